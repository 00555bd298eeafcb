import json

import numpy as np
import pytest

from trocar.planners import intake
from trocar.planners.dose.source import DATA_DIR
from trocar.planners.io.plans import plan_document
from trocar.planners.report import ARTIFACTS
from trocar.planners.requests import OUTPUTS, CaseInput, Search, Settings
from trocar.planners.types import Needle, Plan
from trocar.runtime.errors import InvalidInput, ModelNotFound

PLAN = Plan("pd103-theragenics200", 2.0, 125.0, (Needle("1", 0.0, 0.0, (0.0, 10.0)),))
PLAN_FILE = json.dumps(plan_document(PLAN)).encode()
SEEDS_FILE = b'{"plans_seed_xyz_mm": [[[0, 0, 0]], [[1, 2, 3], [1, 2, 13]]]}'


def test_the_protocol_fills_in_what_is_open() -> None:
    request = intake.plan_request(Settings(protocol="ldr-pd103-125"), Search())
    assert request.source.isotope == "Pd-103"
    assert request.prescription_gy == 125.0
    assert request.strength_u == request.protocol.strength_u
    assert (request.moves, request.budget_ms) == (None, None)


def test_what_is_given_stands() -> None:
    settings = Settings(source="iai-125a", strength_u=0.5, prescription_gy=110.0)
    request = intake.plan_request(settings, Search(moves=5, seed=9, chains=3))
    assert request.source.key == "i125-iai125a"
    assert (request.strength_u, request.prescription_gy) == (0.5, 110.0)
    assert (request.moves, request.seed, request.chains) == (5, 9, 3)


def test_a_source_and_a_protocol_of_ones_own() -> None:
    document = json.loads((DATA_DIR / "i125-6711.json").read_text())
    document["name"] = "Our seed"
    request = intake.plan_request(Settings(source_json=json.dumps(document)), Search())
    assert request.source.name == "Our seed"
    with pytest.raises(InvalidInput, match="TOML"):
        intake.plan_request(Settings(protocol_toml="["), Search())


@pytest.mark.parametrize("name", ["x.json", "/etc/X.JSON", "../data/i125-6711.json"])
def test_a_name_is_never_a_file(name: str) -> None:
    with pytest.raises(ModelNotFound):
        intake.plan_request(Settings(source=name), Search())
    with pytest.raises(ModelNotFound):
        intake.plan_request(Settings(protocol=name.replace("json", "toml")), Search())


def test_a_document_without_an_end() -> None:
    with pytest.raises(InvalidInput, match="at most"):
        intake.plan_request(Settings(source_json=" " * (intake.MAX_DOCUMENT_CHARS + 1)), Search())


def test_a_plan_file_says_its_own_figures() -> None:
    given = intake.evaluation(Settings(protocol="ldr-pd103-125"), PLAN_FILE, index=0)
    plan, request = given.plan, given.request
    assert (plan.source, plan.strength_u, plan.prescription_gy) == ("pd103-theragenics200", 2.0, 125.0)
    assert request.source.key == "pd103-theragenics200"
    assert (request.strength_u, request.prescription_gy) == (2.0, 125.0)


def test_what_is_given_wins_over_the_plan_file() -> None:
    settings = Settings(protocol="ldr-pd103-125", strength_u=1.9, prescription_gy=100.0)
    given = intake.evaluation(settings, PLAN_FILE, index=0)
    plan, request = given.plan, given.request
    assert (plan.strength_u, plan.prescription_gy) == (1.9, 100.0)
    assert (request.strength_u, request.prescription_gy) == (1.9, 100.0)


def test_a_seed_list_takes_the_protocols_figures() -> None:
    given = intake.evaluation(Settings(), SEEDS_FILE, index=1)
    plan, request = given.plan, given.request
    np.testing.assert_array_equal(plan.seeds_xyz_mm, [[1, 2, 3], [1, 2, 13]])
    assert plan.source == request.protocol.source
    assert plan.strength_u == request.protocol.strength_u


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), 100.0])
def test_a_zero_that_was_given_is_refused_not_replaced(value: float) -> None:
    with pytest.raises(InvalidInput):
        intake.evaluation(Settings(strength_u=value), SEEDS_FILE, index=0)


def test_cases_of_every_kind() -> None:
    square = np.array([[-15.0, -15.0], [15.0, -15.0], [15.0, 15.0], [-15.0, 15.0]])
    contours = {"Tumour": [(5.0 * i, square) for i in range(8)]}
    case = intake.read_case(CaseInput(name="mine", contours=contours, roles={"ctv": "Tumour"}))
    assert case.structures["ctv"].name == "Tumour"
    assert intake.read_case(CaseInput(phantom_seed=3)).phantom_seed == 3
    with pytest.raises(InvalidInput, match="got none"):
        intake.read_case(CaseInput())


def test_what_minus_o_writes_exists() -> None:
    assert set(OUTPUTS) <= set(ARTIFACTS)
