"""An RT Plan of permanent seeds against the case and the source that it is evaluated with."""

from dataclasses import replace

import pytest

from trocar.planners.dose.source import load_source
from trocar.planners.io.rtplan import BrachyPlan, BrachySource
from trocar.planners.rtplan_check import named_source, rtplan_findings
from trocar.planners.types import Case, Identity
from trocar.runtime.errors import InvalidInput

SOURCE = load_source("i125-6711")
SEED = BrachySource(1, "I-125", "i125-6711", 59.4, 0.42, None)
IDENTITY = Identity("1.2.5", "1.2.7", "1.2.4", frozenset({"1.2.4", "1.2.44"}), "", "", "", "", {})
CASE = Case("c", {}, identity=IDENTITY)


def plan(source=SEED, frame="1.2.4", structures="1.2.5"):
    return BrachyPlan("PERMANENT", "", 145.0, 1, (source,), (), None, frame, "1.2.6", structures)


class Used(BrachyPlan):
    """A plan whose channels use its only source."""

    source = property(lambda self: self.sources[0])


def found(case=CASE, source=SEED, chosen=SOURCE, **more):
    given = plan(source, **more)
    used = Used(*(getattr(given, name) for name in BrachyPlan.__slots__))
    findings = rtplan_findings(case, used, chosen)
    assert {one.severity for one in findings} <= {"warn"}
    return {one.rule: str(one.measured) for one in findings}


def test_a_plan_that_belongs_to_its_case_and_source():
    assert found() == {}
    assert found(frame="1.2.44") == {}


@pytest.mark.parametrize("name", ["6711", "OncoSeed 6711", "Amersham 6711"])
def test_names_of_one_model(name):
    said = found(source=replace(SEED, name=name))
    assert ("plan_source_model" in said) is (
        name == "OncoSeed 6711" and "oncoseed" not in SOURCE.name.lower()
    )


@pytest.mark.parametrize("name", ["STM1251", "I-125", "i125", "IsoSeed I25.S17", "Seed 125"])
def test_another_model_is_said(name):
    assert f'"{name}"' in found(source=replace(SEED, name=name))["plan_source_model"]


def test_no_model_is_said():
    assert "names no source" in found(source=replace(SEED, name=""))["plan_source_model"]


def test_another_isotope_is_refused():
    with pytest.raises(InvalidInput, match=r"expected seeds of I-125, as i125-6711 is, got Pd-103"):
        found(source=replace(SEED, isotope="Pd-103"))
    assert "names no isotope" in found(source=replace(SEED, isotope=""))["plan_isotope"]
    assert found(source=replace(SEED, isotope="125I")) == {}
    assert "16.991 days" in found(source=replace(SEED, half_life_days=16.991))["plan_half_life"]


def test_another_frame_is_refused_and_other_contours_are_said():
    with pytest.raises(
        InvalidInput, match=r"frame of reference: 9\.9 is not the case's \(1\.2\.4, 1\.2\.44\)"
    ):
        found(frame="9.9")
    assert "1.2.55" in found(structures="1.2.55")["plan_structure_set"]
    with pytest.raises(InvalidInput, match=r"structure set: 1\.2\.55 is not the one given"):
        found(frame="", structures="1.2.55")
    assert found(frame="") == {}
    assert "neither" in found(frame="", structures="")["plan_frame"]


def test_a_case_without_a_frame_is_said():
    assert "was assumed" in found(case=Case("nrrd", {}))["plan_frame"]
    assert found(case=Case("nrrd", {}), frame="", structures="") == {}


def test_our_own_plans_name_a_shipped_source():
    assert named_source(SEED) == "i125-6711"
    assert named_source(replace(SEED, name="pd103-theragenic")) == "pd103-theragenics200"
    assert named_source(replace(SEED, name="STM1251")) is None
    assert named_source(replace(SEED, name="")) is None
