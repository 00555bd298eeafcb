from __future__ import annotations

import io
import pickle
import zipfile
from dataclasses import replace

import numpy as np
import pytest

from trocar.planners.dose.source import load_source
from trocar.planners.tpgan.data import (
    Recipe,
    expert_files,
    load_dataset,
    read_example,
    training_phantoms,
    write_example,
)
from trocar.runtime.errors import InvalidInput

SMALL = 4  # a phantom with a gland of about 20 cc


@pytest.fixture
def recipe(protocol):
    return Recipe(protocol, load_source(protocol.source), 0.42, moves=200)


def test_an_example_comes_back_as_it_went(example, tmp_path):
    one = example(0)
    write_example(tmp_path / "a.npz", one)
    again = read_example(tmp_path / "a.npz")
    np.testing.assert_array_equal(again.features, one.features)
    np.testing.assert_array_equal(again.seeds, one.seeds)
    assert (again.strength, again.cost) == (one.strength, one.cost)
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


def test_a_file_cut_short_is_refused(example, tmp_path):
    path = tmp_path / "a.npz"
    write_example(path, example(0))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InvalidInput, match=r"a\.npz: expected the arrays of one case"):
        read_example(path)


def test_a_pickle_in_an_example_is_never_loaded(example, tmp_path):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("the pickle was loaded",))

    path = tmp_path / "a.npz"
    write_example(path, example(0))
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|O", "fortran_order": False, "shape": ()})
    members["cost.npy"] = header.getvalue() + pickle.dumps(Bomb())
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(InvalidInput, match="expected the arrays"):
        read_example(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seeds": np.zeros((8, 8, 8), np.uint8)}, "seeds: expected uint8 \\(16, 16, 16\\), got"),
        ({"features": np.full((8, 16, 16, 16), np.nan, np.float32)}, "features: expected finite"),
    ],
)
def test_other_arrays_are_refused(example, tmp_path, change, message):
    write_example(tmp_path / "a.npz", replace(example(0), **change))
    with pytest.raises(InvalidInput, match=message):
        read_example(tmp_path / "a.npz")


def test_a_bomb_is_refused_unopened(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("features.npy", b"\0" * (64 << 20))
    with pytest.raises(InvalidInput, match="unpacks to more"):
        read_example(tmp_path / "a.npz")


def test_training_sets_of_different_seeds_share_no_phantom_and_none_is_small():
    sets = [set(training_phantoms(seed, 1000)) for seed in (0, 1, 40_000)]
    assert len(set().union(*sets)) == 3000
    assert min(min(held) for held in sets) >= 100_000_000
    assert max(max(held) for held in sets) < 2**32
    with pytest.raises(InvalidInput, match="training seed from 0 to 40000, got -1"):
        training_phantoms(-1, 10)


def test_expert_plans_are_made_once_and_made_again_only_where_broken(recipe, tmp_path):
    calls = []
    files = expert_files(recipe, [SMALL], tmp_path, report=lambda *figures: calls.append(figures))
    assert calls == [(1, 1)]
    stamp = files[0].stat().st_mtime_ns
    first = read_example(files[0])
    assert first.seeds.sum() > 20
    assert expert_files(recipe, [SMALL], tmp_path) == files
    assert files[0].stat().st_mtime_ns == stamp
    files[0].write_bytes(files[0].read_bytes()[:1000])
    expert_files(recipe, [SMALL], tmp_path)
    again = read_example(files[0])
    np.testing.assert_array_equal(again.seeds, first.seeds)
    np.testing.assert_array_equal(again.features, first.features)


def test_worker_processes_make_what_one_process_makes(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr("trocar.planners.tpgan.data._CHUNK", 1)
    phantoms = [4, 1_000_000]
    alone = expert_files(recipe, phantoms, tmp_path / "one", workers=1)
    together = expert_files(recipe, phantoms, tmp_path / "two", workers=2)
    assert [path.name for path in alone] == [path.name for path in together]
    for first, second in zip(alone, together, strict=True):
        np.testing.assert_array_equal(read_example(first).seeds, read_example(second).seeds)


def test_a_phantom_too_wide_for_the_template_is_left_out(recipe, tmp_path, monkeypatch):
    def refuse(*_arguments, **_settings):
        raise InvalidInput("the target reaches outside the template")

    monkeypatch.setattr("trocar.planners.tpgan.data.expert_example", refuse)
    assert expert_files(recipe, [SMALL], tmp_path) == []


def test_other_recipes_have_other_folders(recipe):
    names = {
        recipe.folder_name(),
        replace(recipe, moves=300).folder_name(),
        replace(recipe, strength_u=0.5).folder_name(),
        replace(recipe, source=load_source("i125-best2301")).folder_name(),
    }
    assert len(names) == 4
    assert replace(recipe).folder_name() in names


def test_every_other_phantom_has_another_strength(recipe):
    strengths = [recipe.strength_of(phantom) for phantom in range(200)]
    assert set(strengths[::2]) == {0.42}
    assert min(strengths) >= 0.42 / 1.25 - 1e-9
    assert max(strengths) <= 0.42 * 1.25 + 1e-9
    assert np.std(strengths[1::2]) > 0.03
    assert strengths == [recipe.strength_of(phantom) for phantom in range(200)]


@pytest.mark.parametrize("cases", [1, 2, 9, 10, 40, 1000])
def test_cases_held_back_are_not_trained_on(dataset, cases):
    data = dataset(min(cases, 2))
    data = replace(data, names=tuple(f"{i}" for i in range(cases)))
    train, held = data.split()
    assert len(held) >= 1
    assert len(train) >= 1
    if cases > 1:
        assert not set(train) & set(held)
        assert len(train) + len(held) == cases
    if cases >= 40:
        assert len(held) == cases // 10
        # Both kinds of strength are held back: even and odd cases.
        assert {int(i) % 2 for i in held} == {0, 1}


def test_no_examples_are_refused(kernel_gy_u):
    with pytest.raises(InvalidInput, match="at least one example"):
        load_dataset([], kernel_gy_u)
