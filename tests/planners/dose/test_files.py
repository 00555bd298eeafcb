import json

import numpy as np
import pytest

from trocar.planners.dose.files import read_points, read_seeds
from trocar.runtime.errors import InvalidInput

HEADERS = (("away_cm", "along_cm"), ("x_mm", "y_mm", "z_mm"))


def write(tmp_path, text, name="points.csv"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


@pytest.mark.parametrize(
    "text", ["away_cm,along_cm\n1,2\n3,-4e-1\n", "\ufeffaway_cm, along_cm\r\n1,2\r\n\r\n3,-0.4"]
)
def test_points_are_read(tmp_path, text):
    columns, points = read_points(write(tmp_path, text), HEADERS)
    assert columns == ("away_cm", "along_cm")
    assert points.tolist() == [[1.0, 2.0], [3.0, -0.4]]


def test_a_header_alone_is_no_points(tmp_path):
    assert read_points(write(tmp_path, "x_mm,y_mm,z_mm\n"), HEADERS)[1].shape == (0, 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: expected header away_cm,along_cm or x_mm,y_mm,z_mm, got ''"),
        ("1,2\n", "line 1: expected header"),
        ("along_cm,away_cm\n1,2\n", "line 1: expected header"),
        ("away_cm,along_cm\n1,2\n1,2,3\n", "line 3: expected 2 values, got 3"),
        ("away_cm,along_cm\n1,2\n\nx,2\n", "line 4: expected a number, got 'x'"),
        ("away_cm,along_cm\nnan,2\n", "line 2: expected a finite number"),
        ("away_cm,along_cm\ninf,2\n", "line 2: expected a finite number"),
        ("away_cm,along_cm\n1_0,2\n", "line 2: expected a number, got '1_0'"),
        ("away_cm,along_cm\n1e99,2\n", "line 2: expected a finite number within"),
        ("away_cm,along_cm\n" + "9" * 200_000, "line 2: "),
        (b"away_cm,along_cm\n\xff\xfe,2\n", "expected UTF-8"),
        (b"away_cm,along_cm\n1\x00,2\n", "line 2: "),
    ],
)
def test_bad_csv_is_refused_with_its_line(tmp_path, text, message):
    with pytest.raises(InvalidInput, match=r"points\.csv") as caught:
        read_points(write(tmp_path, text), HEADERS)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(InvalidInput, match="points file"):
            read_points(str(path), HEADERS)


def test_seeds_in_their_three_shapes(tmp_path):
    expected = [[1, 2, 3], [1, 2, 13]]
    plan = {"strength_u": 0.42, "needles": [{"label": "D3.5", "x_mm": 1, "y_mm": 2, "seeds_z_mm": [3, 13]}]}
    oriented = {"seeds_xyz_mm": expected, "directions_xyz": [[0, 0, 1], [1, 0, 0]]}
    for document in (expected, oriented, plan):
        seeds = read_seeds(write(tmp_path, json.dumps(document), "seeds.json"))
        assert seeds.xyz_mm.tolist() == expected
        assert seeds.strength_u == (0.42 if document is plan else None)
        assert (seeds.directions_xyz is not None) == (document is oriented)
    assert read_seeds(write(tmp_path, "[]")).xyz_mm.shape == (0, 3)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "1",
        "{}",
        "[[1, 2]]",
        "[[1, 2, NaN]]",
        "[[1, 2, null]]",
        "[[1, 2, true]]",
        f"[[1, 2, {10**400}]]",
        '[["1", 2, 3]]',
        '{"seeds_xyz_mm": 3}',
        '{"seeds_xyz_mm": [[1, 2, 3]], "directions_xyz": [[1, 2]]}',
        '{"needles": {}}',
        '{"needles": [{"x_mm": 1, "y_mm": 2}]}',
        '{"needles": [{"x_mm": 1, "seeds_z_mm": [3]}]}',
        '{"needles": [], "strength_u": "1"}',
        f'{{"needles": [], "strength_u": {10**400}}}',
        "[" * 100_000,
    ],
)
def test_bad_seeds_are_refused_in_one_line(tmp_path, text):
    with pytest.raises(InvalidInput, match=r"seeds file .*seeds\.json") as caught:
        read_seeds(write(tmp_path, text, "seeds.json"))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_clinical_seeds_are_read_once_picked(shared_dir, tmp_path):
    case = json.loads((shared_dir / "cases" / "ldr_clinical" / "case1_seeds.json").read_text())
    seeds = read_seeds(write(tmp_path, json.dumps({"seeds_xyz_mm": case["plans_seed_xyz_mm"][0]})))
    assert np.unique(seeds.xyz_mm[:, 2] % 5).tolist() == [0.0]
