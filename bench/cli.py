"""`trocar bench`: run a workload, compare two measurements, print one."""

from __future__ import annotations

import argparse
import json
import shlex
from pathlib import Path
from typing import Any

from trocar.runtime.command import Command
from trocar.runtime.errors import InvalidInput


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the three actions and every workload's options."""
    from trocar.bench.workloads import discover

    parser.description = "Measured claims: what ran, on what, p50 and p99."
    actions = parser.add_subparsers(dest="action", required=True, metavar="run|compare|report")
    run_parser = actions.add_parser("run", help="run a workload")
    workloads = run_parser.add_subparsers(dest="workload", required=True, metavar="WORKLOAD")
    for name, workload in discover().items():
        workload_parser = workloads.add_parser(name, help=workload.HELP, description=workload.HELP)
        workload.add_arguments(workload_parser)
        workload_parser.add_argument(
            "-o", "--output", metavar="FILE.json", help="write the measurement here too"
        )
        _add_json(workload_parser)
    compare_parser = actions.add_parser("compare", help="two measurements side by side")
    compare_parser.add_argument("before", metavar="A.json")
    compare_parser.add_argument("after", metavar="B.json")
    _add_json(compare_parser)
    report_parser = actions.add_parser("report", help="print a measurement")
    report_parser.add_argument("file", metavar="FILE.json")
    _add_json(report_parser)


def run(args: argparse.Namespace) -> int:
    """Carry out the action."""
    actions = {"run": _run_workload, "compare": _compare, "report": _report}
    return actions[args.action](args)


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")


def _run_workload(args: argparse.Namespace) -> int:
    from trocar.bench import environment, report
    from trocar.bench.workloads import discover

    if args.output is not None and not Path(args.output).resolve().parent.is_dir():
        raise InvalidInput(f"--output {args.output}: expected a folder that exists")
    where = environment.record()
    document: dict[str, Any] = {
        "schema": report.SCHEMA,
        "workload": args.workload,
        "command": _command(args),
        "environment": where,
        **discover()[args.workload].run(args),
    }
    text = json.dumps(document, indent=2)
    if args.output is not None:
        Path(args.output).write_text(text + "\n", encoding="utf-8")
    if args.json:
        print(text)
    else:
        report.show(report.render(document))
    return 0 if document.get("passed", True) else 1


def _compare(args: argparse.Namespace) -> int:
    from trocar.bench import report

    comparison = report.compare(report.read(args.before), report.read(args.after))
    if args.json:
        print(json.dumps(comparison, indent=2))
    else:
        report.show(report.render_comparison(comparison))
    return 0


def _report(args: argparse.Namespace) -> int:
    from trocar.bench import report

    document = report.read(args.file)
    if args.json:
        print(json.dumps(document, indent=2))
    else:
        report.show(report.render(document))
    return 0


def _command(args: argparse.Namespace) -> str:
    """The command line that repeats this measurement."""
    words = ["trocar", "bench", "run", args.workload]
    for name, value in sorted(vars(args).items()):
        if name not in ("action", "workload", "json", "output") and isinstance(
            value, int | float | str | list
        ):
            if isinstance(value, list):
                words += [word for one in value for word in (f"--{name.replace('_', '-')}", str(one))]
            elif value is True:
                words.append(f"--{name.replace('_', '-')}")
            elif value is not False:
                words += [f"--{name.replace('_', '-')}", str(value)]
    return shlex.join(words)


COMMAND = Command(name="bench", help="run, compare and report measurements", configure=configure, run=run)
