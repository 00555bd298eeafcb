import copy
import json

import numpy as np
import pytest

from trocar.planners.dose.source import (
    DATA_DIR,
    load_source,
    require_strength_u,
    source_from_document,
    source_keys,
)
from trocar.runtime.errors import InvalidInput, ModelNotFound

SHARED_FILES = {
    "i125-6711": "I125_Amersham_6711",
    "i125-iai125a": "I125_IsoAid_IAI-125A",
    "i125-best2301": "I125_Best_2301",
    "pd103-theragenics200": "Pd103_Theragenics_200",
    "cs131-cs1rev2": "Cs131_IsoRay_CS-1_Rev2",
    "ir192-microselectron-v2": "Ir192_HDR_microSelectron_v2",
    "ir192-flexisource": "Ir192_HDR_Flexisource",
    "ir192-gammamedplus": "Ir192_HDR_GammaMedPlus",
}


def document(key="i125-6711"):
    return json.loads((DATA_DIR / f"{key}.json").read_text(encoding="utf-8"))


def test_eight_sources_ship_each_with_its_publication():
    assert set(source_keys()) == set(SHARED_FILES)
    for key in source_keys():
        assert "Med. Phys." in load_source(key).reference


# Dose-rate constants (cGy/h/U), active lengths and half-lives as the reports print them.
@pytest.mark.parametrize(
    ("key", "dose_rate_constant", "length_cm", "half_life_days"),
    [
        ("i125-6711", 0.965, 0.3, 59.40),  # TG-43U1 table XV
        ("i125-best2301", 1.018, 0.4, 59.40),
        ("pd103-theragenics200", 0.686, 0.423, 16.991),
        ("i125-iai125a", 0.981, 0.3, 59.40),  # TG-43U1S1
        ("cs131-cs1rev2", 1.056, 0.4, 9.689),  # TG-43U1S2
        ("ir192-microselectron-v2", 1.109, 0.35, 73.83),  # HEBD
        ("ir192-flexisource", 1.113, 0.35, 73.83),
        ("ir192-gammamedplus", 1.117, 0.35, 73.83),
    ],
)
def test_constants_are_the_published_ones(key, dose_rate_constant, length_cm, half_life_days):
    source = load_source(key)
    assert source.dose_rate_constant_cgy_h_u == pytest.approx(dose_rate_constant, abs=6e-4)
    assert source.length_cm == length_cm
    assert source.half_life_days == half_life_days


@pytest.mark.parametrize(
    "name", ["6711", "I125-6711", "amersham 6711", "Amersham OncoSeed 6711", "i125_6711"]
)
def test_usual_names_find_the_source(name):
    assert load_source(name).key == "i125-6711"


def test_unknown_name_lists_the_keys():
    with pytest.raises(
        ModelNotFound, match=r"unknown source '6712': expected one of cs131-cs1rev2, i125-6711"
    ):
        load_source("6712")


def test_missing_file_is_not_found():
    with pytest.raises(ModelNotFound, match="no such file"):
        load_source("nowhere.json")


def test_null_in_the_capsule_takes_the_next_larger_radius():
    source = load_source("cs131-cs1rev2")
    assert source.f_r_cm[:2].tolist() == [0.1, 0.25]
    assert (
        source.f[0, :7].tolist()
        == source.f[1, :7].tolist()
        == [0.622, 0.67, 0.731, 0.73, 0.707, 0.759, 0.843]
    )
    assert source.f[0, 7] == 1.161


def test_shipped_tables_are_the_transcribed_ones(shared_dir):
    for key, stem in SHARED_FILES.items():
        source = load_source(key)
        theirs = json.loads((shared_dir / "tg43" / f"{stem}.json").read_text(encoding="utf-8"))
        radii, g = (np.array(theirs["g_r"][name]) for name in ("r_cm", "g"))
        np.testing.assert_allclose(np.interp(source.g_r_cm, radii, g), source.g, rtol=5e-6)
        keep = np.isin(theirs["F"]["r_cm"], source.f_r_cm)
        table = np.array(theirs["F"]["F"], dtype=float)[keep]
        known = np.isfinite(table)
        np.testing.assert_allclose(source.f[known], table[known], rtol=5e-6)


def test_a_file_is_read_as_a_shipped_source_is(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(document() | {"name": "Mine"}), encoding="utf-8")
    mine = load_source(str(path))
    assert (mine.name, mine.key) == ("Mine", "mine")
    assert mine.f.tolist() == load_source("6711").f.tolist()


def change(path, value):
    def apply(source):
        target = source
        for name in path[:-1]:
            target = target[name]
        target[path[-1]] = value

    return apply


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (change(["g_r", "r_cm", 3], 0.2), r"g_r\.r_cm: expected strictly increasing"),
        (change(["F", "r_cm", 0], 2.5), r"F\.r_cm: expected strictly increasing"),
        (change(["F", "theta_deg", 10], 190.0), "theta_deg: expected values from 0 to 180"),
        (change(["g_r", "g", 0], float("nan")), r"g_r\.g: expected a list of finite numbers"),
        (change(["g_r", "g", 0], float("inf")), r"g_r\.g: expected a list of finite numbers"),
        (change(["g_r", "g", 0], 10**400), r"g_r\.g: expected a list of finite numbers"),
        (change(["g_r", "g", 0], -1.0), r"g_r\.g: expected values between 0 and 1000"),
        (change(["g_r", "g", 0], "1"), r"g_r\.g: expected a list of finite numbers"),
        (change(["g_r", "g"], [1.0]), "expected 16 values of g, got 1"),
        (change(["g_r", "r_cm"], [10.0 * k for k in range(1, 17)]), "expected g = 1 at 1 cm"),
        (change(["g_r"], None), "g_r: expected an object, got NoneType"),
        (change(["F", "F", 0], [1.0]), "expected 6 rows"),
        (change(["F", "F", 5, 0], None), "no null at the largest radius"),
        (change(["F", "F", 0, 0], -0.1), "between 0 and 100"),
        (change(["F", "symmetric"], False), "symmetric is False, but theta_deg ends at 90"),
        (change(["half_life_days"], 0), "half_life_days: expected a number"),
        (change(["length_cm"], float("nan")), "length_cm: expected a number"),
        (change(["length_cm"], True), "length_cm: expected a number"),
        (change(["dose_rate_constant_cGy_per_h_per_U"], "0.965"), "dose_rate_constant"),
        (change(["name"], ""), "name: expected text"),
    ],
)
def test_damaged_documents_are_refused_by_name(damage, message):
    damaged = copy.deepcopy(document())
    damage(damaged)
    with pytest.raises(InvalidInput, match=message):
        source_from_document(damaged)


@pytest.mark.parametrize("text", ["", "{", "[]", '"6711"', "[" * 100_000, "\ud800"])
def test_files_that_are_no_source_are_refused_in_one_line(tmp_path, text):
    path = tmp_path / "bad.json"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(InvalidInput, match=r"bad\.json") as caught:
        load_source(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("strength_u", [0.0, -0.4, 100.0, float("nan"), float("inf")])
def test_unbelievable_strengths_are_refused(strength_u):
    with pytest.raises(InvalidInput, match="strength: expected 0 < U <= 10 for I-125"):
        require_strength_u(load_source("6711"), strength_u)


def test_an_hdr_source_may_have_40_000_u():
    require_strength_u(load_source("ir192-flexisource"), 40_000.0)
