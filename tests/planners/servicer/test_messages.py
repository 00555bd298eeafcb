import json

import numpy as np
import pytest

from trocar.planners.requests import CaseInput, Search, Settings
from trocar.planners.servicer import messages
from trocar.planners.types import Planes, Template
from trocar.runtime.errors import InvalidInput
from trocar.v1 import planning_pb2

# The shape of `trocar plan --json`, with what the wire could lose: zeros, words, an absent lattice, a null.
DOCUMENT = {
    "plan": {
        "schema": "trocar.plan/1",
        "source": "i125-6711",
        "strength_u": 0.42,
        "prescription_gy": 145.0,
        "frame": "patient-lps-mm",
        "template": {"origin_xy_mm": [-30.0, -62.5], "pitch_mm": 5.0, "columns": 13, "rows": 13},
        "planes": {"z0_mm": 0.0, "pitch_mm": 5.0, "count": 14},
        "needles": [{"label": "D3.5", "x_mm": 0.0, "y_mm": -0.1, "seeds_z_mm": [0.0, 10.0]}],
        "provenance": {"seed": 0, "device": "cpu", "stopped_early": False},
    },
    "metrics": {
        "ctv": {
            "volume_cc": 40.123456789012345,
            "v100_pct": 99.0,
            "v150_pct": 0.0,
            "v200_pct": 0.0,
            "d90_gy": 160.0,
            "d30_gy": 1.0,
            "d10_gy": 1.0,
            "d2cc_gy": 1.0,
            "d0_1cc_gy": 1.0,
            "mean_gy": 1.0,
        }
    },
    "seeds": 2,
    "needles": 1,
    "total_strength_u": 0.84,
    "validity": {
        "acceptable": False,
        "findings": [
            {
                "rule": "a",
                "measured": 1.5,
                "limit": 2.0,
                "unit": "%",
                "severity": "pass",
                "source": "ABS 2012",
            },
            {"rule": "b", "measured": "words", "limit": "", "unit": "", "severity": "note", "source": ""},
        ],
    },
    "timing_ms": {"read": 0.0, "total": 12.345},
    "provenance": {"model": "annealing", "model_sha256": "", "extra": None},
}
JUDGED = ("plan", "metrics", "seeds", "needles", "total_strength_u", "validity")
DOCUMENT["alternatives"] = [{key: DOCUMENT[key] for key in JUDGED}]


def test_a_document_survives_the_wire() -> None:
    sent = messages.reply_message(DOCUMENT, {"dvh.png": b"\x89PNG", "secret.sh": b"rm"})
    received = planning_pb2.PlanReply.FromString(sent.SerializeToString())
    document, artifacts = messages.read_reply(received, ("dvh.png",))
    assert document == DOCUMENT
    assert artifacts == {"dvh.png": b"\x89PNG"}  # a server chooses no file of its own
    json.dumps(document, allow_nan=False)


def test_media_types() -> None:
    files = dict.fromkeys(("plan.json", "dose.nrrd", "dvh.png", "report.html"), b"")
    sent = messages.reply_message(DOCUMENT, files)
    assert [item.media_type for item in sent.artifacts] == [
        "application/json",
        "application/octet-stream",
        "image/png",
        "text/html",
    ]


@pytest.mark.parametrize(
    "case",
    [
        CaseInput(name="a.seg.nrrd", nrrd=b"NRRD", labels={"ctv": 1}, roles={"ptv": "P"}),
        CaseInput(nrrd=b""),
        CaseInput(rtstruct=b"DICM"),
        CaseInput(phantom_seed=0),
        CaseInput(phantom_seed=2**32 - 1),
        CaseInput(),
    ],
)
def test_cases_there_and_back(case: CaseInput) -> None:
    assert messages.case_input(messages.case_message(case)) == case


def test_contours_there_and_back() -> None:
    square = np.array([[0.0, 0.0], [10.0, 0.0], [10.0, 10.0], [0.1, 10.0]])
    given = CaseInput(contours={"CTV": [(0.0, square), (5.0, square + 1)], "Rectum": []})
    read = messages.case_input(messages.case_message(given))
    assert read.contours is not None
    assert list(read.contours) == ["CTV", "Rectum"]
    assert [z for z, _ in read.contours["CTV"]] == [0.0, 5.0]
    np.testing.assert_array_equal(read.contours["CTV"][1][1], square + 1)


def test_half_a_point_is_refused() -> None:
    message = planning_pb2.CaseInput()
    message.contours.structures.add(name="CTV").contours.add(z_mm=0, xy_mm=[1, 2, 3])
    with pytest.raises(InvalidInput, match="expected pairs x, y, got 3 numbers"):
        messages.case_input(message)


def test_a_structure_given_twice_is_refused() -> None:
    message = planning_pb2.CaseInput()
    for _ in range(2):
        message.contours.structures.add(name="CTV")
    with pytest.raises(InvalidInput, match="'CTV' twice"):
        messages.case_input(message)


@pytest.mark.parametrize(
    "given",
    [
        Settings(),
        Settings(protocol="ldr-pd103-125", source="6711", strength_u=0.0, prescription_gy=0.0),
        Settings(source_json="{}", template=Template((-1.0, 2.0), 5.0, 10, 11), planes=Planes(0.0, 5.0, 3)),
    ],
)
def test_settings_there_and_back(given: Settings) -> None:
    """A zero that was given stays given: it must be refused later, not replaced by a default."""
    assert messages.settings(messages.settings_message(given)) == given


def test_the_text_of_a_protocol_wins() -> None:
    read = messages.settings(
        messages.settings_message(Settings(protocol="mine.toml", protocol_toml="key = 1"))
    )
    assert read.protocol_toml == "key = 1"


def test_an_empty_request_asks_for_the_defaults() -> None:
    assert messages.settings(planning_pb2.PlanSettings()) == Settings()
    assert messages.search(planning_pb2.SearchSettings()) == Search()


def test_a_template_of_one_coordinate_is_refused() -> None:
    message = planning_pb2.PlanSettings()
    message.template.origin_xy_mm.append(1.0)
    with pytest.raises(InvalidInput, match="an origin of 2 values, got 1"):
        messages.settings(message)


@pytest.mark.parametrize(
    "given", [Search(), Search(budget_ms=500.0), Search(moves=1, seed=2**63 - 1, chains=3, alternatives=2)]
)
def test_searches_there_and_back(given: Search) -> None:
    assert messages.search(messages.search_message(given)) == given


def test_a_plan_comes_as_a_file_or_as_a_message() -> None:
    assert messages.plan_content(planning_pb2.EvaluateRequest(plan_file=b"{}")) == b"{}"
    plan = planning_pb2.Plan(source="6711", needles=[planning_pb2.Needle(label="A1.0", seeds_z_mm=[0.0])])
    content = messages.plan_content(planning_pb2.EvaluateRequest(plan=plan))
    assert isinstance(content, dict)
    assert content["needles"] == [{"label": "A1.0", "x_mm": 0.0, "y_mm": 0.0, "seeds_z_mm": [0.0]}]
    with pytest.raises(InvalidInput, match="expected a plan, got none"):
        messages.plan_content(planning_pb2.EvaluateRequest())
