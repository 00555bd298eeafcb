from __future__ import annotations

import sys

import pytest

from trocar.runtime.cli import main


@pytest.fixture
def third_party(tmp_path, monkeypatch):
    """Install a package that trains two networks, one of which does not load."""
    site = tmp_path / "site"
    metadata = site / "third_party_trainer-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: third-party-trainer\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[trocar.trainers]\nmixer = third_party_trainer:COMMAND\nbroken = third_party_trainer_gone:COMMAND\n"
    )
    (site / "third_party_trainer.py").write_text(
        "from trocar.runtime.command import Command\n"
        "def configure(parser): parser.add_argument('--speed', type=int, default=1)\n"
        "def run(args): print(f'mixing at {args.speed}'); return 0\n"
        "COMMAND = Command('mixer', 'mixes at 100 % speed'.replace('%', '%%'), configure, run)\n"
    )
    monkeypatch.syspath_prepend(str(site))
    yield
    sys.modules.pop("third_party_trainer", None)


@pytest.mark.usefixtures("third_party")
def test_a_third_party_trains_its_network_with_its_own_options(capsys):
    assert main(["train", "mixer", "--speed", "7"]) == 0
    assert capsys.readouterr().out == "mixing at 7\n"
    assert main(["train", "mixer", "--cases", "3"]) == 2
    assert "unrecognized arguments: --cases 3" in capsys.readouterr().err


@pytest.mark.usefixtures("third_party")
def test_a_trainer_that_does_not_load_is_named_and_hides_no_other(capsys):
    assert main(["train", "--help"]) == 0
    out = capsys.readouterr().out
    assert "mixes at 100 % speed" in out
    assert "not available" in out
    assert "tpgan" in out
    assert main(["train", "broken"]) == 2
    assert "the trainer of broken does not load: ModuleNotFoundError" in capsys.readouterr().err


def test_a_network_nobody_trains_is_refused_with_those_there_are(capsys):
    assert main(["train", "none-of-mine"]) == 2
    error = capsys.readouterr().err
    assert "tpgan" in error
    assert len(error.splitlines()) == 1
    assert main(["train"]) == 2
