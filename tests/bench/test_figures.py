import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEXT = (
    "One {{a; timings/x; pair .1f}} ms, {{a; share; % .0f}} %.\n{{? b}}Two {{b; rows[of=y, z,way=live]/n}}."
)


@pytest.fixture
def house(tmp_path):
    """A README, a text and a folder of records, with the tool beside them."""
    (tmp_path / "tools").mkdir()
    (tmp_path / "records").mkdir()
    shutil.copy(ROOT / "tools" / "figures.py", tmp_path / "tools")
    (tmp_path / "tools" / "figures.md").write_text(TEXT)
    (tmp_path / "README.md").write_text(
        "# top\n<!-- figures of records: x -->\nold\n<!-- end of figures -->\nend\n"
    )
    record(tmp_path, "a", timings={"x": {"p50_ms": 1.04, "p99_ms": 2.06}}, share=0.931)
    return tmp_path


def record(house, name, cpu="c", folder="records", **content):
    (house / folder).mkdir(exist_ok=True)
    (house / folder / f"{name}.json").write_text(json.dumps({"environment": {"cpu": cpu}, **content}))


def figures(house, *words):
    command = [sys.executable, str(house / "tools" / "figures.py"), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_readme_says_what_the_records_say():
    done = figures(ROOT, "--check")
    assert done.returncode == 0, done.stderr


def test_figures_are_filled_in(house):
    assert figures(house, "--check").returncode == 1
    assert figures(house).returncode == 0
    readme = (house / "README.md").read_text()
    assert "One 1.0 / 2.1 ms, 93 %.\n\n<!-- end of figures -->\nend" in readme
    assert "old" not in readme
    assert "Two" not in readme  # there is no record b
    assert figures(house, "--check").returncode == 0


def test_a_changed_record_is_noticed(house):
    figures(house)
    record(house, "a", timings={"x": {"p50_ms": 1.2, "max_ms": 9.0}}, share=0.931)
    done = figures(house, "--check")
    assert done.returncode == 1
    assert "run make figures" in done.stderr
    figures(house)
    assert "One 1.2 / 9.0 ms" in (house / "README.md").read_text()  # of few samples the largest


def test_another_folder_is_kept_in_readme(house):
    record(house, "a", folder="other", timings={"x": {"p50_ms": 5.0, "p99_ms": 6.0}}, share=0.5)
    assert figures(house, "other").returncode == 0
    assert "<!-- figures of other: " in (house / "README.md").read_text()
    assert figures(house, "--check").returncode == 0


def test_an_optional_line_comes_with_its_record(house):
    rows = [{"of": "y", "way": "live", "n": 1}, {"of": "y, z", "way": "live", "n": 7}]
    record(house, "b", rows=rows)
    figures(house)
    assert "Two 7." in (house / "README.md").read_text()


def test_what_is_not_there_is_named(house):
    record(house, "a", timings={}, share=0.5)
    assert "timings/x; pair .1f}}: not in a.json" in figures(house).stderr
    (house / "records" / "a.json").unlink()
    assert "expected a record a.json" in figures(house).stderr
    assert "old" in (house / "README.md").read_text()


def test_times_of_two_machines_do_not_stand_together(house):
    timing = {"p50_ms": 1.0, "p99_ms": 2.0}
    record(house, "b", cpu="d", timings={"y": timing}, rows=[{"of": "y, z", "way": "live", "n": 7}])
    assert "expected records of one processor" in figures(house).stderr
