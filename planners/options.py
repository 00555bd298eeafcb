"""Options that `trocar plan` and `trocar evaluate` share, and how they read."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from trocar.runtime.channel import add_access
from trocar.runtime.errors import InvalidInput

if TYPE_CHECKING:
    from trocar.planners.io.dicom_send import Peer
    from trocar.planners.requests import CaseInput, Settings
    from trocar.planners.types import Planes, Template

T = TypeVar("T")

CASE_HELP = "a .seg.nrrd, a label NRRD with --labels, a DICOM RTSTRUCT file or folder, or phantom:SEED"


def add_case(parser: argparse.ArgumentParser) -> None:
    """CASE and how its structures are found."""
    parser.add_argument("case", metavar="CASE", help=CASE_HELP)
    group = parser.add_argument_group("structures")
    group.add_argument(
        "--labels", metavar="ROLE=N,...", default="", help="label values of a label NRRD, such as ctv=1,ptv=2"
    )
    group.add_argument(
        "--role",
        metavar="ROLE=NAME",
        action="append",
        default=[],
        help="the structure of a role, where usual names do not match, such as ctv=MyProstate; repeatable",
    )


def add_settings(parser: argparse.ArgumentParser) -> None:
    """How to treat."""
    group = parser.add_argument_group("treatment")
    add_rules(group, "a shipped protocol (ldr-i125-145 if absent) or a centre's own", "the protocol's")
    group.add_argument("--strength-u", metavar="U", type=float, help="air-kerma strength of one seed")
    group.add_argument("--prescription-gy", metavar="GY", type=float, help="the prescribed dose")
    group.add_argument(
        "--template",
        metavar="O_X,O_Y,PITCH,COLS,ROWS",
        help="needle template in mm; placed on the PTV if absent",
    )
    group.add_argument("--planes", metavar="Z0,PITCH,N", help="seed planes in mm; over the PTV if absent")


def add_rules(group: argparse._ActionsContainer, protocol: str, source: str) -> None:
    """Which protocol and source; the texts say what they are if absent."""
    group.add_argument("--protocol", metavar="NAME|FILE.toml", help=protocol)
    group.add_argument("--source", metavar="NAME|FILE.json", help=f"a seed model; {source} if absent")


def add_run(parser: argparse.ArgumentParser) -> None:
    """Where to compute, and where results go."""
    group = parser.add_argument_group("running")
    group.add_argument(
        "--server", metavar="ADDR", help="a `trocar serve`: host:port or unix:/path; else in process"
    )
    group.add_argument(
        "--timeout-s",
        metavar="S",
        type=float,
        default=300.0,
        help="with --server: the call's deadline (%(default)g)",
    )
    add_access(group)
    group.add_argument("--json", action="store_true", help="one JSON document on stdout")
    group.add_argument(
        "-o",
        "--output",
        metavar="DIR",
        type=Path,
        help="write plan.json, dose.nrrd, dvh.png, plan.png and report.html",
    )


def add_dicom(parser: argparse.ArgumentParser) -> None:
    """DICOM files, and where to send them."""
    group = parser.add_argument_group(
        "DICOM",
        "unapproved, with the findings in the plan's description, also where they failed; "
        "--send travels unencrypted, as DICOM does by default",
    )
    group.add_argument(
        "--dicom",
        action="store_true",
        help="with -o: plan.dcm (RTPLAN), dose.dcm (RTDOSE) and, where structures were derived or the case "
        "is no DICOM, structures.dcm (RTSTRUCT) too",
    )
    group.add_argument(
        "--send",
        metavar="HOST:PORT",
        help="store them at this DICOM node (C-STORE); it is asked with a C-ECHO before the search",
    )
    group.add_argument(
        "--aet", metavar="AET", default="TROCAR", help="with --send: our AE title (%(default)s)"
    )
    group.add_argument(
        "--aec", metavar="AET", default="ANY-SCP", help="with --send: the node's AE title (%(default)s)"
    )
    group.add_argument(
        "--send-timeout-s",
        metavar="S",
        type=float,
        default=60.0,
        help="with --send: the asking, and the storing, may each take so long (%(default)g)",
    )


def peer_of(args: argparse.Namespace) -> Peer | None:
    """Read whom to send to, if anyone."""
    if args.send is None:
        return None
    from trocar.planners.io.dicom_send import parse_peer

    return parse_peer(args.send, called=args.aec, calling=args.aet, timeout_s=args.send_timeout_s)


def check_run(args: argparse.Namespace) -> None:
    """Refuse what `add_run` took but cannot be meant, before anything is computed."""
    from trocar.planners.files import check_folder

    if not args.timeout_s > 0:
        raise InvalidInput(f"--timeout-s: expected more than 0, got {args.timeout_s:g}")
    if args.output is not None:
        check_folder(args.output)


def case_of(args: argparse.Namespace) -> CaseInput:
    """Read the case that the arguments name."""
    from trocar.planners.files import case_from_spec

    labels = {
        role: _number(int, value, "--labels", "ROLE=N,...")
        for role, value in _pairs(args.labels.split(","), "--labels")
    }
    return case_from_spec(args.case, labels=labels, roles=dict(_pairs(args.role, "--role")))


def settings_of(args: argparse.Namespace) -> Settings:
    """Read the treatment's settings; files are read here and travel as text."""
    from trocar.planners.requests import DEFAULT_PROTOCOL

    return replace(
        rules_of(args, DEFAULT_PROTOCOL),
        strength_u=args.strength_u,
        prescription_gy=args.prescription_gy,
        template=parse_template(args.template) if args.template else None,
        planes=parse_planes(args.planes) if args.planes else None,
    )


def rules_of(args: argparse.Namespace, default: str) -> Settings:
    """Read what `add_rules` took; `default` is the protocol where none was named."""
    from trocar.planners.files import read_text
    from trocar.planners.requests import Settings

    protocol_file = args.protocol if args.protocol and args.protocol.lower().endswith(".toml") else None
    source_file = args.source if args.source and args.source.lower().endswith(".json") else None
    return Settings(
        protocol=args.protocol or default,
        protocol_toml=read_text(Path(protocol_file), "--protocol") if protocol_file else None,
        source=None if source_file else args.source,
        source_json=read_text(Path(source_file), "--source") if source_file else None,
    )


def parse_template(text: str) -> Template:
    """Read O_X,O_Y,PITCH,COLS,ROWS; lengths in mm."""
    from trocar.planners.types import Template

    form = "O_X,O_Y,PITCH,COLS,ROWS"
    x, y, pitch, columns, rows = _fields(text, 5, "--template", form)
    return Template(
        origin_xy_mm=(_number(float, x, "--template", form), _number(float, y, "--template", form)),
        pitch_mm=_number(float, pitch, "--template", form),
        columns=_number(int, columns, "--template", form),
        rows=_number(int, rows, "--template", form),
    )


def parse_planes(text: str) -> Planes:
    """Read Z0,PITCH,N; lengths in mm."""
    from trocar.planners.types import Planes

    form = "Z0,PITCH,N"
    z0, pitch, count = _fields(text, 3, "--planes", form)
    return Planes(
        z0_mm=_number(float, z0, "--planes", form),
        pitch_mm=_number(float, pitch, "--planes", form),
        count=_number(int, count, "--planes", form),
    )


def _fields(text: str, count: int, option: str, form: str) -> list[str]:
    fields = text.split(",")
    if len(fields) != count:
        raise InvalidInput(f"{option}: expected {form}, got {text!r}")
    return fields


def _number(kind: Callable[[str], T], text: str, option: str, form: str) -> T:
    try:
        return kind(text)
    except ValueError as error:
        raise InvalidInput(f"{option}: expected {form}, got {text!r} for a number") from error


def _pairs(items: list[str], option: str) -> list[tuple[str, str]]:
    """Read ROLE=VALUE items; what a role may be is the case reader's to say."""
    pairs = []
    for item in filter(None, items):
        role, equals, value = item.partition("=")
        if not (role.strip() and equals and value.strip()):
            raise InvalidInput(f"{option}: expected ROLE=VALUE, got {item!r}")
        pairs.append((role.strip(), value.strip()))
    return pairs
