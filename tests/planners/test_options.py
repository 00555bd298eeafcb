import argparse
from pathlib import Path

import pytest

from trocar.planners import options
from trocar.planners.requests import Settings
from trocar.planners.types import Planes, Template
from trocar.runtime.errors import InvalidInput


def _parse(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    options.add_case(parser)
    options.add_settings(parser)
    options.add_run(parser)
    return parser.parse_args(["phantom:1", *arguments])


def test_nothing_given_is_the_defaults() -> None:
    assert options.settings_of(_parse()) == Settings()


def test_everything_given() -> None:
    args = _parse(
        "--protocol=ldr-pd103-125",
        "--source=6711",
        "--strength-u=0.5",
        "--prescription-gy=144",
        "--template=-30,-62.5,5,13,10",
        "--planes=-5,5,14",
    )
    assert options.settings_of(args) == Settings(
        protocol="ldr-pd103-125",
        source="6711",
        strength_u=0.5,
        prescription_gy=144.0,
        template=Template((-30.0, -62.5), 5.0, 13, 10),
        planes=Planes(-5.0, 5.0, 14),
    )


def test_files_travel_as_text(tmp_path: Path) -> None:
    (tmp_path / "p.TOML").write_text("key = 1")
    (tmp_path / "s.json").write_text("{}")
    settings = options.settings_of(_parse(f"--protocol={tmp_path}/p.TOML", f"--source={tmp_path}/s.json"))
    assert (settings.protocol_toml, settings.source_json, settings.source) == ("key = 1", "{}", None)


def test_labels_and_roles() -> None:
    case = options.case_of(_parse("--role", "ctv=My Prostate", "--role", "ptv=P=2"))
    assert case.roles == {"ctv": "My Prostate", "ptv": "P=2"}
    args = _parse("--labels", "ctv=1, ptv=2")
    args.case = __file__
    with pytest.raises(InvalidInput, match="which is neither"):
        options.case_of(args)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--template=1,2,3"], "--template: expected O_X,O_Y,PITCH,COLS,ROWS, got '1,2,3'"),
        (["--template=1,2,3,4,x"], "--template: expected O_X,O_Y,PITCH,COLS,ROWS, got 'x' for a number"),
        (["--template=1,2,3,4,5.5"], "got '5.5' for a number"),
        (["--planes=1,2"], "--planes: expected Z0,PITCH,N"),
        (["--labels=ctv"], "--labels: expected ROLE=VALUE, got 'ctv'"),
        (["--labels=ctv=one"], "--labels: expected ROLE=N,..., got 'one' for a number"),
        (["--role==x"], "--role: expected ROLE=VALUE, got '=x'"),
        (["--timeout-s=0"], "--timeout-s: expected more than 0"),
        (["--timeout-s=nan"], "--timeout-s: expected more than 0"),
        (["--protocol=none.toml"], "--protocol: cannot read none.toml"),
        (["--source=none.json"], "--source: cannot read none.json"),
    ],
)
def test_what_cannot_be_meant(arguments: list[str], said: str) -> None:
    def read(args: argparse.Namespace) -> None:
        options.check_run(args)
        options.settings_of(args)
        options.case_of(args)

    with pytest.raises(InvalidInput) as raised:
        read(_parse(*arguments))
    assert said in str(raised.value)
