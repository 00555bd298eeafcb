"""The `trocar` command: finds the verb, runs it, and turns every failure into one line and a code.

0 ok; 1 the result failed its checks; 2 bad input; 3 internal, or no server. Set TROCAR_DEBUG=1 for the
traceback of a failure.
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import sys
import traceback
import warnings
from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import NoReturn

from trocar.runtime.address import without_secrets
from trocar.runtime.command import INTENDED_USE, Command
from trocar.runtime.errors import InvalidInput, TrocarError

OK = 0
INTERNAL = 3
INTERRUPTED = 130
BROKEN_PIPE = 141

EXAMPLES = """\
examples:
  trocar plan phantom:7 -o out/                      plan a phantom, write report.html and plan.json
  trocar plan patient.seg.nrrd --json                plan contours drawn in 3D Slicer
  trocar serve                                       serve on 127.0.0.1:8001, and in another terminal:
  trocar plan patient.seg.nrrd --server 127.0.0.1:8001

`trocar COMMAND --help` shows the options of one command.
exit codes: 0 ok, 1 the result failed its checks, 2 bad input, 3 internal or no server
"""


class Parser(argparse.ArgumentParser):
    """An argument parser that says the intended use first and fails in one line."""

    def format_help(self) -> str:
        """Help text, below the intended use."""
        return f"{INTENDED_USE}\n\n{super().format_help()}"

    def error(self, message: str) -> NoReturn:
        """Raise what `main` prints as one line."""
        raise InvalidInput(f"{message} (see `{self.prog} --help`)")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not sys.warnoptions:
        # Libraries warn about a file's oddities, with values from it: neither one line nor ours to print.
        warnings.simplefilter("ignore")
    # That it cannot keep its list of fonts, where a disk is full, is not why the command failed.
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
    try:
        code = _dispatch(arguments)
        sys.stdout.flush()
        return code
    except TrocarError as error:
        return _fail(str(error) or type(error).__name__, error.exit_code)
    except BrokenPipeError:
        # The reader of our output left (`| head`); the interpreter must not complain about it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except KeyboardInterrupt:
        return _fail("interrupted", INTERRUPTED)
    except Exception as error:
        text = str(error) or "no further message"
        return _fail(f"internal: {type(error).__name__}: {text} (TROCAR_DEBUG=1 shows where)", INTERNAL)


def _fail(message: str, code: int) -> int:
    if os.environ.get("TROCAR_DEBUG") == "1":
        print(without_secrets(traceback.format_exc()), end="", file=sys.stderr)
    print(f"trocar: error: {without_secrets(' '.join(message.split()))}", file=sys.stderr)
    return code


def _dispatch(arguments: list[str]) -> int:
    """Split `trocar [OPTIONS] COMMAND ...` at the command; only that command's module is loaded."""
    split = next((i for i, word in enumerate(arguments) if not word.startswith("-")), len(arguments))
    top = _top_parser().parse_args(arguments[:split])
    if top.version:
        print("\n".join(_versions(verbose=top.verbose)))
        return OK
    verbs = {point.name: point for point in entry_points(group="trocar.commands")}
    if top.help:
        print(_overview(verbs))
        return OK
    if split == len(arguments):
        raise InvalidInput(f"expected a command: {', '.join(sorted(verbs))} (see `trocar --help`)")
    name = arguments[split]
    if name not in verbs:
        raise InvalidInput(f"unknown command {name!r}; known are {', '.join(sorted(verbs))}")
    return run_command(verbs[name].load(), arguments[split + 1 :])


def run_command(command: Command, arguments: Sequence[str]) -> int:
    """Parse one command's arguments and run it; `TrocarError` passes through."""
    parser = Parser(
        prog=f"trocar {command.name}",
        description=command.help,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command.configure(parser)
    try:
        parsed = parser.parse_args(_join_negative_values(arguments))
    except SystemExit as done:  # argparse ends --help this way
        return int(done.code or 0)
    return command.run(parsed)


def _join_negative_values(arguments: Sequence[str]) -> list[str]:
    """Write `--planes -30,5,14` as `--planes=-30,5,14`: argparse would take the value for an option."""
    joined: list[str] = []
    for word in arguments:
        if joined and re.match(r"-[\d.]", word) and re.fullmatch(r"--[a-z][a-z-]*", joined[-1]):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def _top_parser() -> Parser:
    parser = Parser(
        prog="trocar",
        usage="trocar COMMAND [OPTIONS]",
        description="Plans prostate seed brachytherapy and proves the plan; serves it over gRPC.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
        allow_abbrev=False,
    )
    parser.add_argument("-h", "--help", action="store_true", help="show this text and exit")
    parser.add_argument("--version", action="store_true", help="show the version and exit")
    parser.add_argument("--verbose", action="store_true", help="with --version: what it runs on")
    return parser


def _overview(verbs: dict[str, EntryPoint]) -> str:
    """Top-level help. A plug-in that does not load is named and must not hide the others."""
    parser = _top_parser()
    lines = []
    for name, point in sorted(verbs.items()):
        try:
            summary = point.load().help.strip().splitlines()[0]
        except Exception as error:
            summary = f"(not available: {type(error).__name__}: {error})"
        lines.append(f"  {name:<10} {summary}")
    before, examples, after = parser.format_help().partition("examples:")
    return f"{before}commands:\n" + "\n".join(lines) + f"\n\n{examples}{after}".rstrip()


def _versions(*, verbose: bool) -> list[str]:
    from trocar.runtime.versions import describe, installed

    return [f"trocar {installed('trocar')}", *(describe() if verbose else [])]


if __name__ == "__main__":
    sys.exit(main())
