import argparse
import json

import pytest

from trocar.bench import environment, report
from trocar.bench.cli import COMMAND
from trocar.bench.workloads import discover
from trocar.runtime.errors import InvalidInput


def trocar_bench(*words):
    parser = argparse.ArgumentParser()
    COMMAND.configure(parser)
    return COMMAND.run(parser.parse_args([str(word) for word in words]))


@pytest.fixture(scope="module")
def measurement(tmp_path_factory):
    path = tmp_path_factory.mktemp("bench") / "dose.json"
    assert trocar_bench("run", "dose", "--size", 12, "--seeds", 4, "--repeats", 2, "-o", path) == 0
    return path


def test_the_dose_workload_is_found():
    assert discover()["dose"].NAME == "dose"


def test_a_measurement_names_what_it_ran_on(measurement):
    document = report.read(str(measurement))
    assert document["workload"] == "dose"
    assert document["command"] == (
        "trocar bench run dose --repeats 2 --seed 7 --seeds 4 --size 12 --source i125-6711 --threads 1"
    )
    assert document["environment"]["cores"] >= 1
    assert document["passed"] is True
    assert document["timings"]["numpy_reference"]["samples"] == 2
    assert {"once_ms", "streamed_ms", "copy_bandwidth_gb_s"} <= document["floor"].keys()


def test_json_is_one_document_on_stdout(capsys):
    assert trocar_bench("run", "dose", "--size", 10, "--seeds", 2, "--repeats", 1, "--json") == 0
    assert json.loads(capsys.readouterr().out)["schema"] == "trocar.bench/1"


def test_report_and_compare(measurement, tmp_path, capsys):
    assert trocar_bench("report", measurement) == 0
    printed = capsys.readouterr().out
    assert "superposed" in printed
    assert "relative_difference.exact_to_reference_max" in printed
    slower = json.loads(measurement.read_text())
    slower["timings"]["exact"]["p50_ms"] *= 2
    slower["environment"]["cpu"] = "another"
    (tmp_path / "slower.json").write_text(json.dumps(slower))
    assert trocar_bench("compare", measurement, tmp_path / "slower.json", "--json") == 0
    comparison = json.loads(capsys.readouterr().out)
    assert comparison["cases"]["exact"]["ratio"] == 2.0
    assert comparison["cases"]["superposed"]["ratio"] == 1.0
    assert comparison["same_cpu"] is False
    assert trocar_bench("compare", measurement, tmp_path / "slower.json") == 0
    assert "different processors" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": "trocar.bench/0"}'])
def test_a_file_that_is_no_measurement_is_refused(tmp_path, text):
    (tmp_path / "bad.json").write_text(text)
    with pytest.raises(InvalidInput, match=r"bad\.json: expected"):
        trocar_bench("report", tmp_path / "bad.json")
    with pytest.raises(InvalidInput, match=r"absent\.json"):
        trocar_bench("report", tmp_path / "absent.json")


def test_different_workloads_are_not_compared():
    with pytest.raises(InvalidInput, match="expected one workload, got a and b"):
        report.compare({"workload": "a"}, {"workload": "b"})


def test_an_output_folder_that_is_missing_is_refused_before_measuring(tmp_path):
    with pytest.raises(InvalidInput, match="expected a folder that exists"):
        trocar_bench("run", "dose", "-o", tmp_path / "none" / "x.json")


def test_timings_are_found_however_deep():
    timing = {"p50_ms": 1.0, "p99_ms": 2.0}
    document = {"timings": {"a": timing}, "results": {"b": {"c": timing}}, "environment": {"d": timing}}
    assert [name for name, _ in report.timings(document)] == ["a", "b.c"]


def test_the_environment_is_plain_json():
    record = environment.record()
    assert json.loads(json.dumps(record)) == record
    assert record["cpu"]
