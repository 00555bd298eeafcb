from __future__ import annotations

import argparse
import json
import subprocess
import sys

import pytest

from trocar.planners import novelty
from trocar.planners.tpgan.cli import ARM_NAMES, COMMAND, novelty_statistics
from trocar.planners.tpgan.data import training_phantoms
from trocar.planners.tpgan.settings import ARMS
from trocar.runtime.cli import main
from trocar.runtime.errors import InvalidInput
from trocar.training.watch import Console

# None in sys.modules: not there to find, nor to import.
NO_TORCH = "import sys; sys.modules.update(torch=None, safetensors=None, tensorboard=None)\n"


def trocar_train(*words):
    parser = argparse.ArgumentParser()
    COMMAND.configure(parser)
    return COMMAND.run(parser.parse_args([*map(str, words)]))


def run_without_torch(code):
    return subprocess.run(
        [sys.executable, "-c", NO_TORCH + code], capture_output=True, text=True, check=False
    )


def test_the_arms_of_the_command_line_are_the_arms():
    assert set(ARM_NAMES) == set(ARMS)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--cases", 0), "--cases: expected 1 to 100000, got 0"),
        (("--epochs", 0), "--epochs: expected 1 to 100000, got 0"),
        (("--seed", -1), "--seed: expected 0 to 40000, got -1"),
        (("--workers", 0), "--workers: expected 1 to 1024, got 0"),
        (("--strength-spread", 0.5), "--strength-spread: expected 1.0 to 4.0, got 0.5"),
        (("--strength-spread", "nan"), "--strength-spread: expected 1.0 to 4.0, got nan"),
        (("--output", "net.pt"), "ends in .safetensors, got net.pt"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_line(words, message):
    with pytest.raises(InvalidInput, match=message):
        trocar_train(*words)


def test_without_torch_one_line_says_what_to_install(tmp_path):
    done = run_without_torch(
        "from trocar.runtime.cli import main\n"
        f"sys.exit(main(['train', 'tpgan', '--cases', '1', '-o', {str(tmp_path / 'n.safetensors')!r}]))"
    )
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "trocar: error: training needs torch and safetensors, which is not installed: "
        "pip install trocar[train]"
    ]
    assert list(tmp_path.iterdir()) == []


def test_what_serving_needs_imports_without_torch():
    modules = ("augment", "card", "centre", "cli", "data", "network", "settings")
    done = run_without_torch(
        "import importlib\n"
        f"for name in {modules!r}: importlib.import_module('trocar.planners.tpgan.' + name)\n"
        "from trocar.runtime.cli import main\nsys.exit(main(['--help']))"
    )
    assert done.returncode == 0, done.stderr
    assert "train " in done.stdout


def test_an_unknown_network_is_refused(capsys):
    assert main(["train", "annotator-of-mine"]) == 2
    assert "tpgan" in capsys.readouterr().err


def test_data_without_plans_is_refused_in_one_line(tmp_path):
    pytest.importorskip("torch", reason="training needs torch")
    pytest.importorskip("safetensors", reason="training needs safetensors")
    with pytest.raises(InvalidInput, match="--data: expected a folder"):
        trocar_train("--data", tmp_path / "none", "-o", tmp_path / "n.safetensors")


def test_a_small_run_writes_a_network_and_says_so_in_json(tmp_path, capsys):
    pytest.importorskip("torch", reason="training needs torch")
    pytest.importorskip("safetensors", reason="training needs safetensors")
    from trocar.planners.tpgan.network import NETWORK

    output = tmp_path / "net.safetensors"
    words = ("--cases", 2, "--moves", 200, "--epochs", 2, "--device", "cpu", "--workers", 1)
    words = (*words, "--cache", tmp_path / "cache", "-o", output, "--json")
    assert trocar_train(*words) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["training"]["training_cases"] == 1
    assert document["metrics"]["dice"] >= 0
    _, metadata = NETWORK.load(output)
    assert metadata["training"]["epochs"] == 2
    assert NETWORK.card(metadata).startswith("# TP-GAN")
    assert metadata["novelty"] == {}  # of two cases nothing can be said
    # Started again, the run is found done and the network written anew, the same.
    before = output.read_bytes()
    output.unlink()
    assert trocar_train(*words) == 0
    assert output.read_bytes() == before
    with pytest.raises(InvalidInput, match=r"another run: epochs: expected 3, got 2"):
        trocar_train(*words, "--epochs", 3)


@pytest.mark.parametrize(("cases", "expected"), [(19, {}), (30, {"cases": 30}), (500, {"cases": 400})])
def test_what_training_cases_look_like_is_learned_from_the_training_cases(
    monkeypatch, tmp_path, cases, expected
):
    described = []

    def table(seeds, *, progress):
        described.extend(seeds)
        progress(len(described))
        return described

    monkeypatch.setattr(novelty, "phantom_table", table)
    monkeypatch.setattr(novelty, "fit", lambda rows: {"cases": len(rows)})
    parser = argparse.ArgumentParser()
    COMMAND.configure(parser)
    words = ["--cases", str(cases), "--seed", "2", "--cache", str(tmp_path / "cache")]
    args = parser.parse_args(words)
    assert novelty_statistics(args, Console()) == expected
    assert novelty_statistics(args, Console()) == expected  # kept: nothing is described twice
    assert described == list(training_phantoms(2, cases))[: expected.get("cases", 0)]
