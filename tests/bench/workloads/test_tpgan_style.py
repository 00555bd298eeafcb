from __future__ import annotations

import argparse
import json
import subprocess
import sys

import numpy as np
import pytest

from trocar.bench import styled
from trocar.bench.report import terminal
from trocar.bench.workloads import tpgan_style
from trocar.planners.dose.engine import DoseEngine
from trocar.planners.dose.source import load_source
from trocar.planners.features import CHANNELS, SIDE
from trocar.planners.generator import NOISE_CHANNELS, Generator
from trocar.planners.protocol import load_protocol
from trocar.planners.tpgan.centre import centre_example, centre_plans
from trocar.runtime.errors import InvalidInput
from trocar.runtime.session.base import TensorSpec
from trocar.runtime.session.fake import FakeSession

SITES = (SIDE, SIDE, SIDE)
PHANTOMS = (700_001, 700_002)


def measure(*options):
    parser = argparse.ArgumentParser()
    tpgan_style.add_arguments(parser)
    return tpgan_style.run(parser.parse_args(options))


def network(depth_cm):
    """A network that wants seeds about so deep in the PTV."""
    inputs = (
        TensorSpec("features", "float32", ("batch", len(CHANNELS), *SITES)),
        TensorSpec("noise", "float32", ("batch", NOISE_CHANNELS, *SITES)),
    )

    def probability(feeds):
        ptv = feeds["features"][:, 1]
        return {"probability": np.exp(-((ptv + depth_cm) ** 2) * 20.0 - 1.0).astype(np.float32)}

    outputs = (TensorSpec("probability", "float32", ("batch", *SITES)),)
    return Generator(FakeSession(inputs, outputs, probability), "fake/1", "0" * 64, {})


@pytest.fixture(scope="module")
def setting():
    protocol = load_protocol("ldr-i125-145")
    return styled.Setting(protocol, DoseEngine(load_source(protocol.source)), 40_000)


@pytest.fixture(scope="module")
def cases(setting):
    return [styled.planned_phantom(phantom, setting) for phantom in PHANTOMS]


def test_the_share_counts_weights_up_to_the_rim():
    depth_mm = np.array([-3.0, 2.0, 8.0, 8.1, 15.0], np.float32)
    assert styled.rim_share(np.array([1.0, 0.5, 0.5, 1.0, 1.0]), depth_mm) == pytest.approx(0.5)


def test_a_seed_costs_what_it_lies_too_deep(cases):
    case = cases[0]
    plain = styled.canonical(case.problem, case.window).seed_cost
    more = styled.peripheral(case.problem, case.window, case.depth_mm).seed_cost - plain
    assert (more[case.depth_mm <= styled.RIM_MM] == 0.0).all()
    deepest = case.depth_mm.argmax()
    assert more[deepest] == pytest.approx(styled.COST_PER_MM * (case.depth_mm[deepest] - 8.0), rel=1e-5)


def test_the_centre_keeps_its_seeds_nearer_the_surface(cases):
    for case in cases:
        own, canonical = (
            styled.rim_share(np.ones(len(case.chosen[style])), case.depth_mm[case.chosen[style]])
            for style in styled.STYLES
        )
        assert own > canonical + 0.02


def test_a_folder_is_read_back_as_it_was_planned(cases, setting, tmp_path):
    assert styled.write_folders(iter(cases), tmp_path, setting) == len(cases)
    for style in styled.STYLES:
        plans = centre_plans(tmp_path / style)
        assert [plan.name for plan in plans] == ["case-00000", "case-00001"]
        for plan, case in zip(plans, cases, strict=True):
            example = centre_example(plan, setting.protocol, setting.engine, 0.42)
            depth_mm = -10.0 * example.features[1]
            chosen = case.chosen[style]
            assert example.seeds.sum() == len(chosen)
            planned = styled.rim_share(np.ones(len(chosen)), case.depth_mm[chosen])
            assert styled.rim_share(example.seeds, depth_mm) == pytest.approx(planned, abs=0.02)


def test_networks_are_held_against_the_centres_plans(cases):
    networks = {
        tpgan_style.GIVEN: network(1.2),
        tpgan_style.CENTRE: network(0.3),
        tpgan_style.CONTROL: network(0.9),
    }
    rows = [row for case in cases for row in tpgan_style.measured(case, networks)]
    table = {row["of"]: row for row in tpgan_style._summary(rows)}
    assert list(table) == ["centre's plans", "canonical plans", *networks, "blind"]
    assert table["centre's plans"]["off_centre"] == 0.0
    assert table["centre's plans"]["cost_ratio"] == 1.0
    expected = [table[of]["expected"] for of in networks]
    assert expected[1] > expected[2] > expected[0]
    assert table[tpgan_style.GIVEN]["centre_network_nearer_in"] == len(cases)
    assert table[tpgan_style.CENTRE]["seeds"] > 20
    found = tpgan_style._verdict(list(table.values()))
    assert found["passed"]
    other = {tpgan_style.CENTRE: tpgan_style.GIVEN, tpgan_style.GIVEN: tpgan_style.CENTRE}
    swapped = [{**row, "of": other.get(of, of)} for of, row in table.items()]
    assert not tpgan_style._verdict(swapped)["passed"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--cases", "1"), "--cases: expected 2 to 50000, got 1"),
        (("--held-out", "0"), "--held-out: expected at least one phantom"),
        (("--workers", "0"), "--workers: expected 1 or more, got 0"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(options, message):
    with pytest.raises(InvalidInput, match=message):
        measure(*options)


def test_without_torch_one_line_says_what_to_install():
    code = (
        "import sys; sys.modules.update(torch=None, onnx=None)\n"
        "from trocar.runtime.cli import main\n"
        "sys.exit(main(['bench', 'run', 'tpgan-style']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("trocar: error: tpgan-style trains: it needs torch, onnx")
    assert "pip install 'trocar[train]'" in line


def test_a_small_run_trains_and_measures(tmp_path, capfd):
    for name in ("torch", "safetensors", "onnxscript"):
        pytest.importorskip(name, reason=f"training needs {name}")
    # A network of one epoch prefers nothing: what its plan costs hangs on the last bit, and is not exported.
    found = measure(
        *("--cases", "4", "--held-out", "1", "--moves", "5000", "--epochs", "30", "--workers", "1"),
        *("--repository", str(tmp_path)),
    )
    assert found["cases"] == 4
    assert found["left_out"].startswith("given network: ")
    of = [row["of"] for row in next(iter(found["tables"].values()))]
    assert of == ["centre's plans", "canonical plans", "centre network", "control network", "blind"]
    assert json.loads(json.dumps(found)) == found
    terminal.render(found)
    assert capfd.readouterr().out == ""
