import argparse
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint

import pytest

from trocar.runtime import cli
from trocar.runtime.command import INTENDED_USE, Command
from trocar.runtime.errors import InvalidInput, QueueFull

PREFIX = "trocar: error: "


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--planes")
    parser.add_argument("word", nargs="?")


@pytest.fixture
def verbs(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def install(**runs: Callable[[argparse.Namespace], int]) -> None:
        class Point:
            def __init__(self, name: str, run: Callable[[argparse.Namespace], int]) -> None:
                self.name, self._run = name, run

            def load(self) -> Command:
                return Command(name=self.name, help=f"Does {self.name}.", configure=_configure, run=self._run)

        monkeypatch.setattr(cli, "entry_points", lambda **_: [Point(*item) for item in runs.items()])

    return install


def _raise(error: BaseException) -> Callable[[argparse.Namespace], int]:
    def run(_: argparse.Namespace) -> int:
        raise error

    return run


@pytest.mark.parametrize(
    ("run", "code", "line"),
    [
        (lambda _: 0, 0, ""),
        (lambda _: 1, 1, ""),
        (_raise(InvalidInput("expected 1,\n got 2")), 2, "expected 1, got 2"),
        (_raise(QueueFull("full")), 3, "full"),
        (_raise(ValueError("odd")), 3, "internal: ValueError: odd (TROCAR_DEBUG=1 shows where)"),
        (_raise(KeyboardInterrupt()), 130, "interrupted"),
    ],
)
def test_exit_codes_and_one_line(
    verbs: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
    run: Callable[[argparse.Namespace], int],
    code: int,
    line: str,
) -> None:
    verbs(act=run)
    assert cli.main(["act"]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (f"{PREFIX}{line}\n" if line else "")


def test_debug_shows_the_traceback(
    verbs: Callable[..., None], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TROCAR_DEBUG", "1")
    verbs(act=_raise(ValueError("odd")))
    assert cli.main(["act"]) == 3
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "expected a command: act"),
        (["fly"], "unknown command 'fly'; known are act"),
        (["act", "--nothing"], "unrecognized arguments: --nothing (see `trocar act --help`)"),
        (["act", "--plane", "x"], "unrecognized arguments"),
        (["--nothing"], "unrecognized arguments: --nothing"),
    ],
)
def test_usage_mistakes_are_one_line_and_two(
    verbs: Callable[..., None], capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    verbs(act=lambda _: 0)
    assert cli.main(arguments) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_a_value_may_begin_with_a_minus(verbs: Callable[..., None]) -> None:
    seen: list[argparse.Namespace] = []

    def run(args: argparse.Namespace) -> int:
        seen.append(args)
        return 0

    verbs(act=run)
    assert cli.main(["act", "--planes", "-30,5,14", "word"]) == 0
    assert (seen[0].planes, seen[0].word) == ("-30,5,14", "word")


def test_help_begins_with_the_intended_use(
    verbs: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    verbs(act=lambda _: 0)
    for arguments in (["--help"], ["act", "--help"]):
        assert cli.main(arguments) == 0
        assert capsys.readouterr().out.startswith(INTENDED_USE)


def test_a_plug_in_that_does_not_load_hides_no_other(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = EntryPoint(name="broken", value="no.such.module:X", group="trocar.commands")
    fine = EntryPoint(name="serve", value="trocar.runtime.server.cli:COMMAND", group="trocar.commands")
    monkeypatch.setattr(cli, "entry_points", lambda **_: [broken, fine])
    assert cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    assert "broken" in text
    assert "Serve planning and models over gRPC" in text


def _run(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    code = "from trocar.runtime.cli import main; import sys; sys.exit(main())"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60, **options
    )


def test_version() -> None:
    from importlib.metadata import version

    assert _run("--version").stdout == f"trocar {version('trocar')}\n"
    verbose = _run("--version", "--verbose").stdout
    assert "grpcio " in verbose
    assert "CPU kernels: for " in verbose
    assert "CUDA kernels: architectures " in verbose or "CUDA kernels: not built" in verbose
    assert "\nGPU: " in verbose
    assert "CPUExecutionProvider" in verbose


def test_every_command_teaches_by_an_example() -> None:
    for name in ("plan", "evaluate", "phantom", "serve"):
        done = _run(name, "--help")
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(INTENDED_USE)
        assert "examples:" in done.stdout


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from trocar.runtime.cli import main; main(['--help']); "
        "print(sorted({'numpy', 'grpc', 'rich', 'cv2', 'matplotlib'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stderr == "[]\n"


def test_a_reader_that_leaves_is_no_error() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    code = "from trocar.runtime.cli import main; import sys; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", code, "--help"],
        stdout=write_end,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    os.close(write_end)
    assert done.returncode == 141
    assert done.stderr == ""
