"""`trocar bench`: run workloads, compare two measurements, report them."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from trocar.runtime.command import Command
from trocar.runtime.errors import InvalidInput

INTERRUPTED = 130
FORMATS = ("md", "html", "csv")
# Options of every workload: how it is measured and where it goes, not what.
_COMMON = ("action", "workload", "more", "output", "json", "gate", "cpus", "gc")

RUN_HELP = """\
examples:
  trocar bench run dose                                    a table on the terminal
  trocar bench run dose --repeats 100 dvh --size 80        several, each with its own options after its name
  trocar bench run rpc --cpus 0 -o rpc.json                held to processor 0; kept for compare and report
  trocar bench run brachy --scenario server --rate 2       requests at random moments, two a second
  trocar bench run dose dvh --gate acceptance.toml         exit 1 where a limit is not kept

`trocar bench run WORKLOAD --help` shows a workload's options. Ctrl-C keeps what was measured.
exit codes: 0 ok, 1 a check or a limit was not kept, 2 bad input, 130 interrupted (what was measured is kept)
"""
COMPARE_HELP = """\
The verdict of a case is "better" or "worse" where the whole 95 % interval of the ratio of medians (bootstrap
over blocks of neighbouring samples) lies beyond the margin, else "noise".
exit codes: 0 no case is worse, 1 some case is worse, 2 bad input, such as measurements of different machines
"""
REPORT_HELP = """\
examples:
  trocar bench report dose.json                            a table on the terminal
  trocar bench report *.json --to md,html,csv -o out/      out/bench.md, out/bench.html, out/bench.csv
  trocar bench report *.json --gate acceptance.toml        exit 1 where a limit is not kept
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the three actions and every workload's options."""
    parser.description = "Measured claims: what ran, on what, p50 and p99."
    actions = parser.add_subparsers(dest="action", required=True, metavar="run|compare|report")
    raw = argparse.RawDescriptionHelpFormatter
    _configure_run(
        actions.add_parser(
            "run", help="run workloads", epilog=RUN_HELP, formatter_class=raw, allow_abbrev=False
        )
    )
    compare_parser = actions.add_parser(
        "compare", help="two measurements side by side", epilog=COMPARE_HELP, formatter_class=raw
    )
    compare_parser.add_argument("before", metavar="A.json")
    compare_parser.add_argument("after", metavar="B.json")
    compare_parser.add_argument("--force", action="store_true", help="compare different machines too")
    compare_parser.add_argument(
        "--margin-pct", type=float, default=5.0, help="how far beyond 1 a ratio counts (default %(default)s)"
    )
    _add_json(compare_parser)
    report_parser = actions.add_parser(
        "report", help="show measurements", epilog=REPORT_HELP, formatter_class=raw
    )
    report_parser.add_argument("files", metavar="FILE.json", nargs="+")
    report_parser.add_argument("--to", default="", metavar="FORMAT,...", help=f"of {', '.join(FORMATS)}")
    report_parser.add_argument("-o", "--output", metavar="DIR", help="with --to: the folder (made if absent)")
    report_parser.add_argument("--gate", metavar="FILE.toml", help="limits to keep; else exit 1")
    _add_json(report_parser)


def run(args: argparse.Namespace) -> int:
    """Carry out the action."""
    actions = {"run": _run_workloads, "compare": _compare, "report": _report}
    return actions[args.action](args)


def _configure_run(parser: argparse.ArgumentParser) -> None:
    from trocar.bench.workloads import discover

    workloads = parser.add_subparsers(dest="workload", required=True, metavar="WORKLOAD")
    for name, workload in discover().items():
        workload_parser = workloads.add_parser(
            name, help=workload.HELP, description=workload.HELP, allow_abbrev=False
        )
        workload.add_arguments(workload_parser)
        common = workload_parser.add_argument_group("of every workload")
        common.add_argument("-o", "--output", metavar="FILE.json", help="write the measurement here too")
        common.add_argument("--gate", metavar="FILE.toml", help="limits to keep; else exit 1")
        common.add_argument("--cpus", default="", metavar="0,2-3", help="hold it to these processors")
        common.add_argument("--gc", action="store_true", help="let Python collect garbage while it measures")
        _add_json(common)
        # Takes the next workload's name with all that follows it, and hands it back unread.
        more = workload_parser.add_argument(
            "more", nargs=argparse.PARSER, metavar="WORKLOAD", help="a further workload with its options"
        )
        more.required = False


def _add_json(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")


def _chain(args: argparse.Namespace) -> list[argparse.Namespace]:
    """The arguments of each workload that was named."""
    from trocar.runtime.cli import Parser

    found = [args]
    while found[-1].more:
        parser = Parser(prog="trocar bench run")
        _configure_run(parser)
        found.append(parser.parse_args(found[-1].more))
    return found


def _run_workloads(args: argparse.Namespace) -> int:
    from trocar.bench.gate import read_gate
    from trocar.bench.progress import stoppable
    from trocar.bench.report.document import dumps, together
    from trocar.bench.report.terminal import render, show

    chain = _chain(args)
    output = next((one.output for one in reversed(chain) if one.output), None)
    if output is not None and not Path(output).resolve().parent.is_dir():
        raise InvalidInput(f"--output {output}: expected a folder that exists")
    gate = [limit for one in chain if one.gate for limit in read_gate(one.gate)]
    documents: list[dict[str, Any]] = []
    with stoppable() as stop:
        for one in chain:
            documents.append(_measured(one))
            if stop.asked:
                documents[-1]["interrupted"] = True
            # Written after each, so that nothing measured is lost with a later one.
            if output is not None:
                Path(output).write_text(dumps(together(documents)) + "\n", encoding="utf-8")
            if stop.asked:
                break
    if args.json or chain[-1].json:
        print(dumps(together(documents)))
    else:
        for document in documents:
            show(render(document))
    passed = _keeps(gate, documents) and all(document.get("passed", True) for document in documents)
    return INTERRUPTED if stop.asked else 0 if passed else 1


def _measured(args: argparse.Namespace) -> dict[str, Any]:
    """One workload's document: what it found, on what, under which conditions, and what that took."""
    from trocar.bench import conditions, environment, floors
    from trocar.bench.report.document import SCHEMA
    from trocar.bench.usage import Meter
    from trocar.bench.workloads import discover

    with conditions.applied(conditions.parse_cpus(args.cpus), collect=args.gc) as held:
        where = environment.record()
        meter = Meter()
        found = discover()[args.workload].run(args)
        usage = meter.document()
        return {
            "schema": SCHEMA,
            "workload": args.workload,
            "command": _command(args),
            "environment": where,
            "conditions": held,
            "machine": floors.memory(),
            "usage": usage,
            **found,
        }


def _compare(args: argparse.Namespace) -> int:
    from trocar.bench.compare import compare
    from trocar.bench.report.document import read_all
    from trocar.bench.report.terminal import render_comparison, show

    first, second = (_by_workload(path, read_all(path)) for path in (args.before, args.after))
    shared = [name for name in first if name in second]
    if not shared:
        names = (", ".join(map(str, found)) for found in (first, second))
        raise InvalidInput("expected one workload, got {} and {}".format(*names))
    found = [
        compare(first[name], second[name], margin=args.margin_pct / 100.0, force=args.force)
        for name in shared
    ]
    if args.json:
        print(json.dumps(found[0] if len(found) == 1 else {"comparisons": found}, indent=2))
    else:
        for comparison in found:
            show(render_comparison(comparison))
    worse = any(case["verdict"] == "worse" for one in found for case in one["cases"].values())
    return 1 if worse else 0


def _by_workload(path: str, measurements: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    found = {str(one.get("workload")): one for one in measurements}
    if len(found) < len(measurements):
        raise InvalidInput(f"{path}: expected each workload once")
    return found


def _report(args: argparse.Namespace) -> int:
    from trocar.bench.gate import read_gate
    from trocar.bench.report.document import dumps, read_all, together
    from trocar.bench.report.terminal import render, show

    formats = [name for name in args.to.split(",") if name]
    if unknown := sorted(set(formats) - set(FORMATS)):
        raise InvalidInput(f"--to: expected some of {', '.join(FORMATS)}, got {unknown[0]!r}")
    if bool(formats) != bool(args.output):
        raise InvalidInput("expected --to and --output together")
    gate = read_gate(args.gate) if args.gate else []
    documents = [document for path in args.files for document in read_all(path)]
    for path, text in _written(formats, documents):
        folder = Path(args.output)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
        print(f"wrote {folder / path}", file=sys.stderr)
    if args.json:
        print(dumps(together(documents)))
    elif not formats:
        for document in documents:
            show(render(document))
    return 0 if _keeps(gate, documents) else 1


def _written(formats: Sequence[str], documents: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    from trocar.bench.report.page import html
    from trocar.bench.report.text import comma_separated, markdown

    writers = {"md": markdown, "html": html, "csv": comma_separated}
    for name in formats:
        yield f"bench.{name}", writers[name](documents)


def _keeps(gate: Sequence[Any], documents: Sequence[Mapping[str, Any]]) -> bool:
    """Whether every limit is kept; each that is not is named on stderr."""
    from trocar.bench.gate import violations

    broken = violations(gate, documents)
    for line in broken:
        print(f"not kept: {line}", file=sys.stderr)
    if gate and not broken:
        print(f"all {len(gate)} limits are kept", file=sys.stderr)
    return not broken


def _command(args: argparse.Namespace) -> str:
    """The command line that repeats this measurement."""
    words = ["trocar", "bench", "run", args.workload]
    for name, value in sorted(vars(args).items()):
        if name not in _COMMON and value != "" and isinstance(value, int | float | str | list):
            if isinstance(value, list):
                words += [word for one in value for word in (f"--{name.replace('_', '-')}", str(one))]
            elif value is True:
                words.append(f"--{name.replace('_', '-')}")
            elif value is not False:
                words += [f"--{name.replace('_', '-')}", str(value)]
    words += ["--cpus", args.cpus] if args.cpus else []
    words += ["--gc"] if args.gc else []
    return shlex.join(words)


COMMAND = Command(name="bench", help="run, compare and report measurements", configure=configure, run=run)
