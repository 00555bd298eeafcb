from __future__ import annotations

import argparse
import json
import subprocess
import sys

import pytest

from trocar.runtime.cli import main
from trocar.runtime.errors import InvalidInput
from trocar.video.annotator.cli import COMMAND, POLYP_COMMAND

NO_TORCH = "import sys; sys.modules.update(torch=None, safetensors=None, tensorboard=None)\n"


def train(*words, command=COMMAND):
    parser = argparse.ArgumentParser()
    command.configure(parser)
    return command.run(parser.parse_args([*map(str, words)]))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--frames", 1), "--frames: expected 2 to 10000000, got 1"),
        (("--epochs", 0), "--epochs: expected 1 to 100000, got 0"),
        (("--seed", -1), "--seed: expected 0 to"),
        (("--workers", -1), "--workers: expected 0 to 1024, got -1"),
        (("--output", "net.pt"), "ends in .safetensors, got net.pt"),
        (("--output", "none/such/net.safetensors"), "--output: expected a folder that exists"),
        (("--data", "endovis17"), "expected --folder DIR with a data set, and none with the renderer"),
        (("--folder", "."), "expected --folder DIR with a data set"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_line(words, message):
    with pytest.raises(InvalidInput, match=message):
        train(*words)


def test_both_networks_are_trained_by_one_verb(capsys):
    assert main(["train", "--help"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in ("annotator", "polyp", "tpgan"))
    assert main(["train", "annotator", "--epochs", "0"]) == 2
    assert capsys.readouterr().err == "trocar: error: --epochs: expected 1 to 100000, got 0\n"


def test_without_torch_one_line_says_what_to_install(tmp_path):
    words = ["train", "polyp", "-o", str(tmp_path / "n.safetensors")]
    code = f"from trocar.runtime.cli import main\nsys.exit(main({words!r}))"
    done = subprocess.run(
        [sys.executable, "-c", NO_TORCH + code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "trocar: error: training needs torch and safetensors, not installed here: pip install 'trocar[train]'"
    ]


def test_what_annotating_needs_imports_without_torch():
    modules = ["card", "cli", "data", "encodings", "evaluate", "folder", "labels", "loaders", "network"]
    modules += ["renderer", "scores", "settings"]
    code = "\n".join(f"import trocar.video.annotator.{name}" for name in modules)
    done = subprocess.run(
        [sys.executable, "-c", NO_TORCH + code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_an_unknown_data_set_lists_those_there_are(tmp_path):
    pytest.importorskip("torch", reason="training needs torch")
    pytest.importorskip("safetensors", reason="training needs safetensors")
    with pytest.raises(InvalidInput, match=r"data set: expected one of endovis17, endovis18.*got 'mine'"):
        train("--data", "mine", "--folder", tmp_path, "-o", tmp_path / "n.safetensors")


def test_a_small_run_writes_a_network_and_says_so_in_json(tmp_path, capsys, monkeypatch):
    pytest.importorskip("torch", reason="training needs torch")
    pytest.importorskip("safetensors", reason="training needs safetensors")
    from trocar.video.annotator.network import POLYP

    monkeypatch.setattr("trocar.video.annotator.train.HELD_FRAMES", 2)
    output = tmp_path / "net.safetensors"
    words = ("--epochs", 1, "--frames", 4, "--batch-size", 4, "--workers", 0, "--device", "cpu", "-o", output)
    assert train(*words, "--json", command=POLYP_COMMAND) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["training"]["frames_an_epoch"] == 4
    assert 0 <= document["metrics"]["dice_polyp"] <= 1
    _, metadata = POLYP.load(output)
    assert metadata["network"]["classes"] == 2
