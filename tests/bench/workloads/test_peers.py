import argparse
import sys
import textwrap

import pytest

from trocar.bench import peers as children
from trocar.bench.peers import dicom, started
from trocar.bench.serving import served
from trocar.bench.workloads import peers
from trocar.planners.case import case_from_bytes
from trocar.planners.geometry import slab_volume_cc
from trocar.runtime.errors import InvalidInput, Unavailable


def measure(*words):
    parser = argparse.ArgumentParser()
    peers.add_arguments(parser)
    return peers.run(parser.parse_args([str(word) for word in words]))


def test_what_is_there_is_measured_and_what_is_not_is_named():
    found = measure("--repeats", 2, "--python", sys.executable)
    assert {"network trocar", "network onnxruntime", "server trocar", "dvh trocar", "dose trocar"} <= found[
        "timings"
    ].keys()
    assert found["times_ours"]["frame cv2_numpy"] > 0
    assert found["largest_difference"]["server trocar"] == 0.0
    assert "--server" in found["missing"]["KServe, Triton, nvidia-pytriton"]
    for script, package, case in (
        ("dicompyler", "dicompyler-core", "dvh dicompyler-core"),
        ("pygrpm_dose", "pygrpm", "dose pygrpm"),
    ):
        # Which of both depends on what the Python has that runs the tests.
        assert (script in found["missing"]) != (case in found["timings"])
        assert (package in found["versions"]) == (case in found["timings"])


def test_a_server_that_was_given_takes_part():
    with served(config='[server]\nservices = "inference"\nlog_level = "warning"\n') as other:
        found = measure("--groups", "network", "--repeats", 2, "--server", f"other={other.target}")
    assert found["timings"]["server other"]["samples"] == 2
    assert found["times_ours"]["server other"] > 0
    assert found["largest_difference"]["server other"] == 0.0


def test_a_server_that_is_not_there_is_an_error():
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1:1"):
        measure("--groups", "network", "--repeats", 1, "--server", "none=127.0.0.1:1")


@pytest.mark.parametrize(
    "words", [("--groups", "x"), ("--repeats", 0), ("--server", "nameless", "--groups", "network")]
)
def test_other_options_are_refused(words):
    with pytest.raises(InvalidInput, match=f"{words[0]}: expected"):
        measure(*words)


@pytest.fixture
def script(tmp_path, monkeypatch):
    """Put a script in the place of those that ship."""
    monkeypatch.setattr(children, "__file__", str(tmp_path / "__init__.py"))

    def write(text):
        (tmp_path / "peer.py").write_text(textwrap.dedent(text))
        return started("peer", sys.executable, ("a", "b"), tmp_path / "log.txt")

    return write


def test_a_peer_works_once_for_each_line(script):
    text = """
        import json, sys
        print("a library's greeting")
        print(json.dumps({"name": "p", "version": "1", "got": sys.argv[1:]}), flush=True)
        for number, _ in enumerate(sys.stdin):
            print(json.dumps({"number": number}), flush=True)
    """
    with script(text) as peer:
        assert peer.said == {"name": "p", "version": "1", "got": ["a", "b"]}
        assert [peer.once()["number"] for _ in range(3)] == [0, 1, 2]


def test_a_peer_that_is_not_installed_says_so(script):
    with (
        pytest.raises(Unavailable, match="No module named 'surely_not_here'"),
        script("import surely_not_here"),
    ):
        pass


def test_a_peer_that_dies_at_work_is_an_error(script):
    text = (
        'import sys\nprint(\'{"name": "p", "version": "1"}\', flush=True)\nsys.stdin.readline()\nsys.exit(3)'
    )
    with script(text) as peer, pytest.raises(Unavailable, match="p: it left before its work was done"):
        peer.once()


def test_the_dicom_that_a_peer_reads_is_what_we_read():
    case = case_from_bytes(dicom.rtstruct({"CTV": (1.0, 2.0, 3.0, 15.0)}, 1.0))
    assert slab_volume_cc(case.structures["ctv"]) == pytest.approx(4 / 3 * 3.14159 * 15**3 / 1000, rel=0.01)
