"""`trocar plan`, `trocar evaluate` and `trocar phantom`."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trocar.planners import options
from trocar.planners.start_kinds import START_KINDS
from trocar.runtime.command import Command
from trocar.runtime.errors import InvalidInput

if TYPE_CHECKING:
    from trocar.planners.io.dicom_send import Peer
    from trocar.planners.requests import CaseInput, Settings

PLAN_EXAMPLES = """\
examples:
  trocar plan phantom:7 -o out/                          plan a phantom; open out/report.html
  trocar plan patient.seg.nrrd --strength-u 0.42         contours from 3D Slicer
  trocar plan RTSTRUCT.dcm --role ctv=GTV_prostate       contours from a planning system
  trocar plan labels.nrrd --labels ctv=1,urethra=3
  trocar plan patient.seg.nrrd --server 127.0.0.1:8001 --budget-ms 2000 --json
  trocar plan RTSTRUCT.dcm -o out/ --dicom               an RTPLAN, an RTDOSE, an RTSTRUCT of what was derived
  trocar plan RTSTRUCT.dcm --send 10.0.0.5:11112 --aec PACS --aet TROCAR

The same --moves, --seed and --chains give the same plan, in process and from a server.
exit codes: 0 acceptable, 1 not acceptable (the findings say why), 2 bad input, 3 internal or no server
"""

EVALUATE_EXAMPLES = """\
examples:
  trocar evaluate phantom:7 out/plan.json                the proof of a plan that exists
  trocar evaluate case1.seg.nrrd case1_seeds.json --index 0 --strength-u 0.42 --prescription-gy 144
  trocar evaluate patient.seg.nrrd plan.json --dose-grid 0.5 -o out/
  trocar evaluate RTSTRUCT.dcm RTPLAN.dcm                permanent seeds of a planning system
  trocar evaluate RTSTRUCT.dcm RTPLAN.dcm --rtdose RTDOSE.dcm --source ir192-gammamedplus
                                                         HDR: our dose against the planning system's own;
                                                         with --server too

exit codes: 0 acceptable, 1 not acceptable (the findings say why), 2 bad input, 3 internal or no server
"""

PHANTOM_EXAMPLES = """\
examples:
  trocar phantom 7                                       its structures and volumes
  trocar phantom 7 -o phantom7.seg.nrrd                  a segmentation that 3D Slicer opens
"""


def _configure_plan(parser: argparse.ArgumentParser) -> None:
    parser.epilog = PLAN_EXAMPLES
    options.add_case(parser)
    options.add_settings(parser)
    group = parser.add_argument_group("search")
    group.add_argument("--budget-ms", metavar="N", type=float, help="wall time for the search")
    group.add_argument("--moves", metavar="N", type=int, help="or an exact number of moves a chain")
    group.add_argument(
        "--seed", metavar="N", type=int, default=0, help="random seed of the search (%(default)d)"
    )
    group.add_argument("--chains", metavar="N", type=int, help="annealing chains; the best one wins")
    group.add_argument(
        "--alternatives",
        metavar="K",
        type=int,
        default=0,
        help="so many other plans besides, each the best of another chain; -o writes plan-2.json, ...",
    )
    group.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="cpu",
        help="where the chains run; auto takes a GPU that works (%(default)s)",
    )
    group.add_argument(
        "--start",
        choices=START_KINDS,
        help="what a chain begins with: the network's proposal (the default), the best seeds one by one, or "
        "seeds in random order",
    )
    group.add_argument(
        "--repository", metavar="DIR", default="", help="the network's models (default: the shipped ones)"
    )
    group.add_argument(
        "--require-signature",
        metavar="KEY",
        default="",
        help="a file of public keys: refuse a network that none signed",
    )
    options.add_run(parser)
    options.add_dicom(parser)


def _run_plan(args: argparse.Namespace) -> int:
    from trocar.planners.requests import DICOM_OUTPUTS, OUTPUTS, Search
    from trocar.planners.show import progress_bar
    from trocar.runtime.channel import access_of

    options.check_run(args)
    if args.server and (args.repository or args.require_signature):
        raise InvalidInput("expected no --repository or --require-signature with --server, which has its own")
    if args.server and args.device != "cpu":
        raise InvalidInput(f"--device: expected none with --server, which has its own, got {args.device}")
    settings, case = options.settings_of(args), options.case_of(args)
    search = Search(
        budget_ms=args.budget_ms,
        moves=args.moves,
        seed=args.seed,
        chains=args.chains,
        start=args.start,
        alternatives=args.alternatives,
        device=args.device,
    )
    if args.dicom and not args.output:
        raise InvalidInput("--dicom: expected -o DIR with it, got none")
    access = access_of(args)
    peer = options.peer_of(args)
    if peer is not None:
        from trocar.planners.io.dicom_send import check_peer

        # A peer that is not there shall not cost a search.
        check_peer(peer)
    artifacts = OUTPUTS * bool(args.output) + DICOM_OUTPUTS * (args.dicom or peer is not None)
    with progress_bar("planning") as progress:
        if access is not None:
            from trocar.planners.servicer import client

            answer = client.plan(
                access, case, settings, search, artifacts=artifacts, timeout_s=args.timeout_s
            )
        else:
            from trocar.planners import local

            with _interruptible() as stop:
                answer = local.plan(
                    case,
                    settings,
                    search,
                    repository=args.repository,
                    require_signature=args.require_signature,
                    artifacts=artifacts,
                    progress=progress,
                    stop=stop,
                )
    document, files = answer
    code = _finish(args, document, files if args.dicom else _without(files, DICOM_OUTPUTS))
    # What is computed is shown and written by now, whatever becomes of the sending.
    if peer is not None:
        _send(peer, {name: files[name] for name in DICOM_OUTPUTS if name in files})
    return code


def _without(files: Mapping[str, bytes], names: Sequence[str]) -> dict[str, bytes]:
    return {name: content for name, content in files.items() if name not in names}


def _send(peer: Peer, files: Mapping[str, bytes]) -> None:
    from trocar.planners.io.dicom_send import send

    def say(line: str) -> None:
        print(line, file=sys.stderr)

    for warning in send(peer, files, progress=say):
        say(f"warning: {warning}")


@contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Let Ctrl-C end the search: its threads cannot be interrupted, but they ask whether to stop."""
    asked: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: asked.append(number))
    try:
        yield lambda: bool(asked)
    finally:
        signal.signal(signal.SIGINT, before)
    if asked:
        raise KeyboardInterrupt


def _configure_evaluate(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EVALUATE_EXAMPLES
    options.add_case(parser)
    parser.add_argument("plan", metavar="PLAN", type=Path, help="a plan.json, a *_seeds.json, or an RTPLAN")
    parser.add_argument(
        "--index", metavar="N", type=int, default=0, help="which plan of a *_seeds.json (%(default)d)"
    )
    parser.add_argument(
        "--dose-grid",
        metavar="MM",
        type=float,
        default=1.0,
        help="voxel of the evaluation grid (%(default)g)",
    )
    parser.add_argument(
        "--rtdose", metavar="FILE", type=Path, help="an HDR plan's own dose: ours is compared on its grid"
    )
    parser.add_argument(
        "--treated",
        metavar="WHEN",
        help="with --rtdose: decay the source to this date and time (2026-01-31T12:00)",
    )
    options.add_settings(parser)
    options.add_run(parser)


def _run_evaluate(args: argparse.Namespace) -> int:
    from trocar.planners.files import MAX_TEXT_BYTES, read_bytes
    from trocar.planners.requests import OUTPUTS
    from trocar.planners.show import progress_bar
    from trocar.runtime.channel import access_of

    options.check_run(args)
    if not 0 <= args.index < 2**32:
        raise InvalidInput(f"--index: expected 0 or more, got {args.index}")
    settings, case = options.settings_of(args), options.case_of(args)
    plan_file = read_bytes(args.plan, "plan", MAX_TEXT_BYTES)
    if args.rtdose is not None:
        return _run_against_rtdose(args, case, settings, plan_file)
    if args.treated is not None:
        raise InvalidInput("--treated: expected --rtdose with it, got none")
    asked: dict[str, Any] = {
        "index": args.index,
        "dose_grid_mm": args.dose_grid,
        "artifacts": OUTPUTS if args.output else (),
    }
    access = access_of(args)
    with progress_bar("evaluating"):
        if access is not None:
            from trocar.planners.servicer import client

            answer = client.evaluate(access, case, settings, plan_file, timeout_s=args.timeout_s, **asked)
        else:
            from trocar.planners import local

            answer = local.evaluate(case, settings, plan_file, **asked)
    return _finish(args, *answer)


def _run_against_rtdose(
    args: argparse.Namespace, case: CaseInput, settings: Settings, plan_file: bytes
) -> int:
    from trocar.planners.files import MAX_CASE_BYTES, read_bytes
    from trocar.planners.show import progress_bar, show_stated
    from trocar.runtime.channel import access_of

    for name in ("output", "protocol", "strength_u", "template", "planes"):
        if getattr(args, name) is not None:
            option = name.replace("_", "-")
            raise InvalidInput(f"--{option}: expected none with --rtdose, whose plan has its own, got one")
    dose_file = read_bytes(args.rtdose, "rtdose", MAX_CASE_BYTES)
    asked = {"treated": args.treated or ""}
    access = access_of(args)
    with progress_bar("evaluating"):
        if access is not None:
            from trocar.planners.servicer import client

            document = client.evaluate_rtdose(
                access, case, settings, plan_file, dose_file, timeout_s=args.timeout_s, **asked
            )
        else:
            from trocar.planners import local

            document = local.evaluate_rtdose(case, settings, plan_file, dose_file, **asked)
    if args.json:
        json.dump(document, sys.stdout, allow_nan=False)
        print()
    else:
        show_stated(document)
    return 0 if document["validity"]["acceptable"] else 1


def _finish(args: argparse.Namespace, document: dict[str, Any], artifacts: dict[str, bytes]) -> int:
    """Write the files, show the result, and say in the exit code whether it is acceptable."""
    from trocar.planners.files import write_all
    from trocar.planners.show import show_plan

    plans = {
        f"plan-{number}.json": (json.dumps(other["plan"], indent=2, allow_nan=False) + "\n").encode()
        for number, other in enumerate(document["alternatives"], start=2)
    }
    written = write_all(args.output, artifacts | plans) if args.output else []
    if args.json:
        json.dump(document, sys.stdout, allow_nan=False)
        print()
    else:
        show_plan(document, written)
    return 0 if document["validity"]["acceptable"] else 1


def _configure_phantom(parser: argparse.ArgumentParser) -> None:
    parser.epilog = PHANTOM_EXAMPLES
    parser.add_argument(
        "seed", metavar="SEED", help="the phantom's number; the same number is the same phantom"
    )
    parser.add_argument(
        "-o", "--output", metavar="FILE.seg.nrrd", type=Path, help="write the segmentation here"
    )
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")


def _run_phantom(args: argparse.Namespace) -> int:
    from trocar.planners.files import phantom_seed
    from trocar.planners.io.seg_writer import write_seg_nrrd
    from trocar.planners.phantom import phantom_case
    from trocar.planners.show import case_document, show_case
    from trocar.runtime.files import write_file

    if args.output is not None and not args.output.name.lower().endswith(".seg.nrrd"):
        raise InvalidInput(f"--output: expected a name that ends in .seg.nrrd, got {args.output}")
    case = phantom_case(phantom_seed(args.seed))
    if args.output is not None:
        write_file(args.output, write_seg_nrrd(case))
    if args.json:
        document = case_document(case) | ({"file": str(args.output)} if args.output else {})
        json.dump(document, sys.stdout, allow_nan=False)
        print()
    else:
        show_case(case, args.output)
    return 0


PLAN = Command(
    name="plan",
    help="Plan a case: seeds and needles, their dose, and the proof that the plan is valid.",
    configure=_configure_plan,
    run=_run_plan,
)
EVALUATE = Command(
    name="evaluate",
    help="Prove a plan that exists: independent dose, DVH and validity.",
    configure=_configure_evaluate,
    run=_run_evaluate,
)
PHANTOM = Command(
    name="phantom",
    help="Make a phantom: a prostate with its organs, the same for the same number.",
    configure=_configure_phantom,
    run=_run_phantom,
)
