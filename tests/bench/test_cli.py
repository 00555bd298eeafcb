import argparse
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from trocar.bench import environment
from trocar.bench.cli import COMMAND
from trocar.bench.compare import compare
from trocar.bench.report import document
from trocar.bench.workloads import discover
from trocar.runtime.errors import InvalidInput

SMALL_DOSE = ("dose", "--size", 12, "--seeds", 4, "--repeats", 8)
SMALL_DVH = ("dvh", "--size", 20, "--repeats", 8)


def trocar_bench(*words):
    parser = argparse.ArgumentParser()
    COMMAND.configure(parser)
    return COMMAND.run(parser.parse_args([str(word) for word in words]))


@pytest.fixture(scope="module")
def measurement(tmp_path_factory):
    path = tmp_path_factory.mktemp("bench") / "dose.json"
    assert trocar_bench("run", *SMALL_DOSE, "-o", path) == 0
    return path


@pytest.fixture
def gate(tmp_path):
    def write(case, p50_ms):
        path = tmp_path / "gate.toml"
        path.write_text(f'[[limit]]\nworkload = "dose"\ncase = "{case}"\np50_ms = {p50_ms}\n')
        return path

    return write


def test_the_workloads_are_found():
    wanted = {"brachy", "dose", "dvh", "peers", "postprocess", "preprocess", "rpc", "session", "video"}
    assert wanted <= discover().keys()


def test_a_measurement_names_what_it_ran_on(measurement):
    found = document.read(str(measurement))
    assert found["workload"] == "dose"
    assert found["command"] == (
        "trocar bench run dose --repeats 8 --seed 7 --seeds 4 --size 12 --source i125-6711 --threads 1"
    )
    assert found["environment"]["cores"] >= 1
    assert found["passed"] is True
    assert found["timings"]["numpy_reference"]["samples"] == 2
    assert found["timings"]["superposed"]["over_floor"] > 0
    assert {"once_ms", "streamed_ms", "copy_bandwidth_gb_s"} <= found["floor"].keys()
    assert found["machine"]["memory_triad_gb_s"] > 0
    assert found["conditions"]["garbage_collection"] == "between rounds"
    assert found["usage"]["cpu_s"] > 0
    assert "interrupted" not in found


def test_json_is_one_document_on_stdout(capsys):
    assert trocar_bench("run", "dose", "--size", 10, "--seeds", 2, "--repeats", 1, "--json") == 0
    assert json.loads(capsys.readouterr().out)["schema"] == "trocar.bench/1"


def test_several_workloads_each_with_its_options(tmp_path, capsys):
    path = tmp_path / "both.json"
    cpu = min(os.sched_getaffinity(0))
    assert trocar_bench("run", *SMALL_DVH, "--cpus", cpu, *SMALL_DOSE, "--gc", "-o", path, "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads(path.read_text())
    first, second = document.read_all(str(path))
    assert first["command"] == f"trocar bench run dvh --repeats 8 --seed 7 --size 20 --cpus {cpu}"
    assert second["command"].endswith("--threads 1 --gc")
    assert first["environment"]["cores"] == 1
    assert second["conditions"]["garbage_collection"] == "on"
    with pytest.raises(InvalidInput, match="expected one measurement, got 2"):
        document.read(str(path))
    assert trocar_bench("report", path) == 0
    out = capsys.readouterr().out
    assert "numpy_mask_and_histogram" in out
    assert "numpy_shift_and_add" in out


def test_a_second_workload_that_does_not_exist_is_refused_before_measuring(tmp_path):
    with pytest.raises(InvalidInput, match="invalid choice: 'nothing'"):
        trocar_bench("run", *SMALL_DVH, "-o", tmp_path / "x.json", "nothing")
    assert not (tmp_path / "x.json").exists()


def test_report_and_compare(measurement, tmp_path, capsys):
    assert trocar_bench("report", measurement) == 0
    printed = capsys.readouterr().out
    assert "superposed" in printed
    assert "relative_difference.exact_to_reference_max" in printed
    slower = json.loads(measurement.read_text())
    for name in ("p50_ms", "p50_low_ms", "p50_high_ms"):
        slower["timings"]["superposed"][name] *= 10
    samples = slower["timings"]["superposed"]["series_ms"]
    slower["timings"]["superposed"]["series_ms"] = [10 * one for one in samples]
    path = tmp_path / "slower.json"
    path.write_text(json.dumps(slower))
    assert trocar_bench("compare", measurement, path, "--json") == 1
    cases = json.loads(capsys.readouterr().out)["cases"]
    assert cases["superposed"]["ratio"] == pytest.approx(10.0)
    assert cases["superposed"]["verdict"] == "worse"
    assert cases["matrix_800x3000"]["verdict"] == "noise"
    assert trocar_bench("compare", path, measurement) == 0
    assert "better" in capsys.readouterr().out
    slower["environment"]["cpu"] = "another"
    path.write_text(json.dumps(slower))
    with pytest.raises(InvalidInput, match="expected one machine"):
        trocar_bench("compare", measurement, path)
    assert trocar_bench("compare", measurement, path, "--force") == 1
    assert "different machines" in capsys.readouterr().out


def test_a_gate_is_an_exit_code(measurement, gate, capsys):
    assert trocar_bench("report", measurement, "--gate", gate("superposed", 60_000)) == 0
    assert "all 1 limits are kept" in capsys.readouterr().err
    assert trocar_bench("report", measurement, "--gate", gate("superposed", 0)) == 1
    assert "not kept: dose superposed: p50_ms is" in capsys.readouterr().err
    assert trocar_bench("report", measurement, "--gate", gate("gone", 60_000)) == 1
    assert "dose gone: p50_ms was not measured" in capsys.readouterr().err
    assert trocar_bench("run", *SMALL_DVH, "--gate", gate("superposed", 60_000)) == 1
    assert "expected a measurement, got none" in capsys.readouterr().err


def test_a_bad_gate_is_refused_before_measuring(tmp_path):
    (tmp_path / "gate.toml").write_text("[[limits]]\n")
    with pytest.raises(InvalidInput, match="unknown key 'limits'"):
        trocar_bench("run", *SMALL_DVH, "-o", tmp_path / "x.json", "--gate", tmp_path / "gate.toml")
    assert not (tmp_path / "x.json").exists()


def test_reports_are_written(measurement, tmp_path):
    assert trocar_bench("report", measurement, "--to", "md,html,csv", "-o", tmp_path / "out") == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "bench.csv",
        "bench.html",
        "bench.md",
    ]
    with pytest.raises(InvalidInput, match="expected some of md, html, csv, got 'pdf'"):
        trocar_bench("report", measurement, "--to", "pdf", "-o", tmp_path)
    with pytest.raises(InvalidInput, match="--to and --output together"):
        trocar_bench("report", measurement, "--to", "md")


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"schema": "trocar.bench/0"}', '{"measurements": []}', '{"measurements": [3]}']
)
def test_a_file_that_is_no_measurement_is_refused(tmp_path, text):
    (tmp_path / "bad.json").write_text(text)
    with pytest.raises(InvalidInput, match=r"bad\.json: expected"):
        trocar_bench("report", tmp_path / "bad.json")
    with pytest.raises(InvalidInput, match=r"absent\.json"):
        trocar_bench("report", tmp_path / "absent.json")


def test_different_workloads_are_not_compared(measurement, tmp_path):
    with pytest.raises(InvalidInput, match="expected one workload, got a and b"):
        compare({"workload": "a"}, {"workload": "b"})
    (tmp_path / "other.json").write_text(measurement.read_text().replace('"dose"', '"other"'))
    with pytest.raises(InvalidInput, match="expected one workload, got dose and other"):
        trocar_bench("compare", measurement, tmp_path / "other.json")


def test_an_output_folder_that_is_missing_is_refused_before_measuring(tmp_path):
    with pytest.raises(InvalidInput, match="expected a folder that exists"):
        trocar_bench("run", "dose", "-o", tmp_path / "none" / "x.json")


def test_ctrl_c_keeps_what_was_measured(tmp_path):
    path = tmp_path / "kept.json"
    command = [
        sys.executable,
        "-m",
        "trocar.runtime.cli",
        "bench",
        "run",
        "dvh",
        "--size",
        "20",
        "--repeats",
        "10",
        "-o",
    ]
    command += [str(path), "dose", "--size", "12", "--repeats", "1000000", "dvh"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 120
        while not path.exists():  # written after the first workload
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.2)
        time.sleep(2.0)  # into the second
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=120)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130, said
    assert "keeping what was measured" in said
    first, second = document.read_all(str(path))
    assert first["workload"], "interrupted" not in first
    assert (second["workload"], second["interrupted"]) == ("dose", True)
    assert 1 <= second["timings"]["superposed"]["samples"] < 1_000_000


def test_timings_are_found_however_deep():
    timing = {"p50_ms": 1.0, "p99_ms": 2.0}
    found = {"timings": {"a": timing}, "results": {"b": {"c": timing}}, "environment": {"d": timing}}
    assert [name for name, _ in document.timings(found)] == ["a", "b.c"]


def test_the_environment_is_plain_json():
    record = environment.record()
    assert json.loads(json.dumps(record)) == record
    assert record["cpu"]
    assert {"isa", "governor", "gpu", "load_1min", "python"} <= record.keys()
