from __future__ import annotations

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch")
pytest.importorskip("safetensors", reason="training needs safetensors")

import cv2  # noqa: E402

from trocar.runtime.errors import InvalidInput  # noqa: E402
from trocar.training.run import state_path  # noqa: E402
from trocar.video.annotator.data import RendererSource, augmented, rendered  # noqa: E402
from trocar.video.annotator.folder import FolderSource  # noqa: E402
from trocar.video.annotator.network import NETWORK  # noqa: E402
from trocar.video.annotator.run import train_network  # noqa: E402
from trocar.video.annotator.settings import NetworkSettings, train_settings  # noqa: E402
from trocar.video.annotator.train import Trainer  # noqa: E402
from trocar.video.types import CLASSES  # noqa: E402

SMALL = ((32, 64), (64, 96))
TINY = NetworkSettings(widths=(8, 8, 16, 16, 16), depths=(1, 1, 1, 1))


class Silent:
    def __init__(self):
        self.epochs, self.resumed_at = [], None

    def resumed(self, epoch):
        self.resumed_at = epoch

    def batch(self, share):
        assert 0 < share <= 1

    def epoch(self, number, figures):
        assert figures["seconds"] > 0
        self.epochs.append(number)


def trainer(arm="full", source=None, **changes):
    from dataclasses import replace

    settings = train_settings("annotator", arm, 0, **{"epochs": 3, "frames": 16, "batch_size": 4, **changes})
    settings = replace(settings, network=TINY, repeats=1)
    return Trainer(source or RendererSource(0), settings, shapes=SMALL)


@pytest.fixture(autouse=True)
def few_held_back(monkeypatch):
    monkeypatch.setattr("trocar.video.annotator.train.HELD_FRAMES", 4)


def weights(made):
    return torch.cat([tensor.flatten().float() for tensor in made.averaged.state_dict().values()])


def test_the_same_seed_trains_the_same_network_and_the_adversary_joins_late():
    first, again = trainer(), trainer()
    figures = [first.run_epoch() for _ in range(3)]
    for _ in range(3):
        again.run_epoch()
    torch.testing.assert_close(weights(first), weights(again), atol=1e-6, rtol=1e-6)
    assert ["judge/loss" in each for each in figures] == [False, False, True]
    assert {"loss/cross_entropy", "loss/dice", "loss/tips"} <= set(figures[0])
    assert {"loss/adversarial", "loss/feature_matching"} <= set(figures[2])
    assert figures[2]["loss/cross_entropy"] < figures[0]["loss/cross_entropy"]


def test_without_the_adversary_the_run_is_the_same_until_it_would_join():
    full, plain = trainer(), trainer("no-adversarial")
    for _ in range(2):
        full.run_epoch()
        plain.run_epoch()
    torch.testing.assert_close(weights(full), weights(plain), atol=1e-6, rtol=1e-6)
    full.run_epoch()
    assert "judge/loss" not in plain.run_epoch()
    assert not torch.allclose(weights(full), weights(plain), atol=1e-6)


def test_a_killed_run_goes_on_where_it_was(tmp_path):
    whole = trainer()
    metadata = train_network(whole, CLASSES, output=tmp_path / "whole.safetensors", watcher=Silent())
    half = trainer()
    half.run_epoch()
    half.save(state_path(tmp_path / "net.safetensors"), {"history": [{"seconds": 1.0}]})
    watcher = Silent()
    train_network(trainer(), CLASSES, output=tmp_path / "net.safetensors", watcher=watcher)
    assert (watcher.resumed_at, watcher.epochs) == (1, [2, 3])
    ours, theirs = (NETWORK_LOADED(tmp_path / name) for name in ("whole.safetensors", "net.safetensors"))
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-6)
    assert metadata["training"]["data"] == "rendered tools"
    assert set(metadata["metrics"]) == {"dice", *(f"dice_{name}" for name in CLASSES)}
    assert json.loads((tmp_path / "whole.state.json").read_text())["epoch"] == 3
    with pytest.raises(InvalidInput, match="of another run: epochs: expected 4, got 3"):
        train_network(trainer(epochs=4), CLASSES, output=tmp_path / "whole.safetensors", watcher=Silent())


def NETWORK_LOADED(path):  # noqa: N802
    module, _ = NETWORK.load(path)
    return torch.cat([tensor.flatten().float() for tensor in module.state_dict().values()])


def test_training_goes_on_from_a_trained_network(tmp_path):
    first = trainer(epochs=1)
    train_network(first, CLASSES, output=tmp_path / "a.safetensors", watcher=Silent())
    begun = trainer(epochs=1)
    begun.begin_from(tmp_path / "a.safetensors")
    torch.testing.assert_close(weights(begun), weights(first))


def test_frames_are_those_of_their_seeds_whoever_renders_them():
    here = list(RendererSource(3).epoch(1, 20, SMALL[0]))
    away = RendererSource(3, workers=1)
    try:
        there = list(away.epoch(1, 20, SMALL[0]))
    finally:
        away.close()
    assert [len(block) for block in here] == [len(block) for block in there] == [16, 4]
    for a, b in zip(here, there, strict=True):
        np.testing.assert_array_equal(a.images, b.images)
        np.testing.assert_array_equal(a.labels, b.labels)
        np.testing.assert_array_equal(a.bells, b.bells)
    other = next(iter(RendererSource(3).epoch(2, 20, SMALL[0])))
    assert not np.array_equal(here[0].images, other.images)


def test_mirrors_move_picture_labels_and_tips_together():
    frames = rendered("tools", [(7, number) for number in range(12)], (64, 96))
    found = augmented(frames, np.random.default_rng(0))
    moved = 0
    for number in range(12):
        ways = [()] if (found.labels[number] == frames.labels[number]).all() else [(0,), (1,), (0, 1)]
        way = next(w for w in ways if (np.flip(frames.labels[number], w) == found.labels[number]).all())
        np.testing.assert_array_equal(np.flip(frames.bells[number], way), found.bells[number])
        moved += bool(way)
    assert moved >= 4


@pytest.fixture
def endovis(tmp_path):
    for number in range(12):
        image = np.full((48, 80, 3), 60 + number, dtype=np.uint8)
        mask = np.zeros((48, 80), dtype=np.uint8)
        mask[10:20, 5:40] = 10
        mask[10:20, 40:45] = 30
        for folder, array in (("frames", image), ("masks", mask)):
            (tmp_path / folder).mkdir(exist_ok=True)
            cv2.imwrite(str(tmp_path / folder / f"{number:02}.png"), array)
    return tmp_path


def test_a_data_set_trains_too(endovis, tmp_path):
    source = FolderSource(0, endovis, "endovis17")
    assert source.facts() == {"data": "endovis17", "labelled_frames": 10, "held_back_frames": 2}
    blocks = list(source.epoch(0, 20, (32, 64)))
    assert sum(map(len, blocks)) == 20
    seen = np.concatenate([block.images for block in blocks])[:, 0, 0, 0]
    assert sorted(set(seen.tolist())) == [60 + n for n in range(12) if n % 10]
    assert (blocks[0].bells == -1).all()  # the data set marks no tips
    made = trainer(source=source, epochs=1, frames=8)
    metadata = train_network(made, CLASSES, output=tmp_path / "n.safetensors", watcher=Silent())
    assert metadata["training"]["data"] == "endovis17"
    assert "loss/tips" in made.run_epoch()


def test_a_data_set_of_the_other_model_or_of_one_frame_is_refused(endovis):
    with pytest.raises(InvalidInput, match="--data endovis17: expected a data set of polyps"):
        FolderSource(0, endovis, "endovis17", polyps=True)
    for path in [*endovis.rglob("*.png")]:
        if path.stem != "03":
            path.unlink()
    with pytest.raises(InvalidInput, match="expected at least 2 labelled frames, got 1"):
        FolderSource(0, endovis, "endovis17")
