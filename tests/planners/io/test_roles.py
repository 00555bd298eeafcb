import pytest

from trocar.planners.io.roles import match_roles
from trocar.runtime.errors import InvalidInput


@pytest.mark.parametrize(
    ("name", "role"),
    [
        *[
            (name, "ctv")
            for name in ("CTV", "ctv ", "Prostate", "PROSTATE", "prostate_gland", "Prost.", "Gland")
        ],
        *[(name, "ctv") for name in ("CTV_Prostate", "Prostate CTV", "CTV1", "CTV 145", "whole prostate")],
        *[(name, "ptv") for name in ("PTV", "PTV145", "ptv_145", "PTV 145Gy", "PTV_Prostate", "P.T.V.")],
        *[(name, "urethra") for name in ("Urethra", "URETHRA", "prostatic urethra", "Urethra_prostatic")],
        *[(name, "rectum") for name in ("Rectum", "rectum ", "Rectal wall", "RECTUM_OUTER", "Rekt_um")],
        *[(name, "bladder") for name in ("Bladder", "Urinary_Bladder", "BLADDER", "bladder-wall")],
    ],
)
def test_usual_names(name, role):
    assert match_roles(["Femoral head", name]) == {role: 1}


@pytest.mark.parametrize(
    "name",
    [
        "Rectum_PRV", "PTV-CTV", "Bladder avoid", "ring PTV", "Expanded_5_5_5_Rectum", "Seminal vesicles",
        "a5.5", "", "   ", "prostate bed opt", "zCTV_minus_urethra", "needle", "CTVx2", "前立腺?",
    ],
)  # fmt: skip
def test_names_that_play_no_role(name):
    assert match_roles([name]) == {}


def test_the_better_name_wins():
    assert match_roles(["Prostate", "CTV", "CTV1"])["ctv"] == 1
    assert match_roles(["Gland", "Prostate"])["ctv"] == 1
    assert match_roles(["Rectal wall", "Rectum"])["rectum"] == 1
    assert match_roles(["PTV145", "PTV"])["ptv"] == 1


def test_equally_good_names_are_refused_with_the_way_out():
    with pytest.raises(
        InvalidInput, match=r'role ptv: "PTV145" and "PTV 110" fit equally well; .* ptv=PTV145'
    ):
        match_roles(["PTV145", "PTV 110"])
    with pytest.raises(InvalidInput, match='"CTV" and "ctv" fit equally well'):
        match_roles(["CTV", "ctv"])
    assert match_roles(["PTV145", "PTV 110"], {"ptv": "PTV 110"}) == {"ptv": 1}
    assert match_roles(["CTV", "ctv"], {"ctv": "ctv"}) == {"ctv": 1}


def test_overrides():
    names = ["MyProstate", "Prostate", "Rectum"]
    assert match_roles(names, {"ctv": "MyProstate"}) == {"ctv": 0, "rectum": 2}
    assert match_roles(names, {"ctv": "my prostate"})["ctv"] == 0
    assert match_roles(names, {"rectum": "none"}) == {"ctv": 1}
    assert match_roles(names, {"ptv": "Prostate"}) == {"ctv": 1, "ptv": 1, "rectum": 2}
    with pytest.raises(
        InvalidInput, match='role ctv: no structure "Nothing"; found MyProstate, Prostate, Rectum'
    ):
        match_roles(names, {"ctv": "Nothing"})
    with pytest.raises(
        InvalidInput, match='unknown role "gtv": expected one of ctv, ptv, urethra, rectum, bladder'
    ):
        match_roles(names, {"gtv": "Prostate"})
    with pytest.raises(InvalidInput, match='role ctv: 2 structures are called "A"'):
        match_roles(["A", "A"], {"ctv": "A"})
