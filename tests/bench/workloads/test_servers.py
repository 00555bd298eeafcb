import argparse

import numpy as np
import pytest

from trocar.bench.serving import served
from trocar.bench.workloads import _frame_volume, servers
from trocar.bench.workloads._frame_volume import FRAME, VOLUME
from trocar.runtime.errors import InvalidInput, Unavailable
from trocar.runtime.repository.load import open_model
from trocar.runtime.repository.store import Repository


@pytest.fixture(autouse=True)
def _this_process_keeps_its_allocator(monkeypatch):
    """The client's settings would stay for all tests that follow; what they give is not measured here."""
    monkeypatch.setattr("trocar.runtime.server.allocator.keep_large_buffers", lambda: True)


def measure(*words):
    parser = argparse.ArgumentParser()
    servers.add_arguments(parser)
    return servers.run(parser.parse_args([str(word) for word in words]))


def test_every_server_answers_as_the_network_does_and_is_measured():
    found = measure("--frames", 12, "--volumes", 6, "--clients", 0, "--seconds", 0.1)
    names = [servers.OURS, servers.SHARED, servers.FLOOR, servers.BARE, "bare aio"]
    assert found["missing"] == {}
    assert list(found["timings"]) == [f"{model} {name}" for model in ("frame", "volume") for name in names]
    assert found["timings"][f"frame {servers.OURS}"]["samples"] == 12
    rows = found["tables"]["beside bare sync, tensors in the message"]
    (base,) = [row for row in rows if row["case"] == f"volume {servers.BARE}"]
    assert (base["p50 over bare"], base["p99 over bare"]) == (1.0, 1.0)
    (shared,) = [row for row in rows if row["case"] == f"volume {servers.SHARED}"]
    (floor,) = [row for row in rows if row["case"] == f"volume {servers.FLOOR}"]
    assert 0 < floor["p50 ms"] < shared["p50 ms"]
    memory = {row["when"]: row["MiB"] for row in found["tables"]["trocar, resident"]}
    assert memory["after one client"] > memory["at the start"] > 40


def test_several_clients_are_counted_together(tmp_path):
    _frame_volume.publish(tmp_path)
    with served(config=servers._CONFIG.format(folder=tmp_path)) as ours:
        server = servers.Server(ours.target, shared=True)
        assert servers._together(server, FRAME, 2, 0.3) > 0
        plain = servers.Server(ours.target, process=ours.process)
        memory = servers._memory(plain, argparse.Namespace(clients=2, seconds=0.3))
        # Linux counts both in steps, a few pages for each processor.
        assert memory["at most, 2 clients sending volumes"] + 1 > memory["a second later"] > 40
    with pytest.raises(Unavailable, match="expected 2 clients to be answered, got one that was not"):
        servers._together(server, FRAME, 2, 0.3)  # it is gone


def test_what_is_not_there_is_named(tmp_path, monkeypatch):
    (tmp_path / "tritonclient.py").write_text("raise ImportError('no such package')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found = measure("--frames", 1, "--volumes", 1, "--clients", 0)
    assert found["missing"] == dict.fromkeys((servers.BARE, "bare aio"), "ImportError: no such package")
    assert "p50 over bare" not in found["tables"]["beside bare sync, tensors in the message"][0]


def test_a_name_is_one_servers():
    with pytest.raises(InvalidInput, match="--server: expected a new NAME=HOST:PORT, got 'trocar=a:1'"):
        measure("--server", "trocar=a:1")


def test_the_models_as_files_for_other_servers(tmp_path):
    found = measure("--models", tmp_path / "new")
    assert sorted(found["models"]) == [str(tmp_path / "new" / f"{name}.onnx") for name in ("frame", "volume")]


@pytest.mark.parametrize("words", [("--frames", 0), ("--volumes", 0), ("--clients", -1), ("--seconds", 0)])
def test_other_options_are_refused(words):
    with pytest.raises(InvalidInput, match="expected frames and volumes of 1 or more"):
        measure(*words)


def test_the_networks_compute_what_they_say(tmp_path):
    _frame_volume.publish(tmp_path)
    volume = VOLUME.payload(seed=3)
    session = open_model(Repository(tmp_path).open("volume"), device="cpu")
    assert np.array_equal(session.run({"volume": volume})["answer"], 2 * volume[:, :1])
    session = open_model(Repository(tmp_path).open("frame"), device="cpu")
    black, white = (np.full(FRAME.shape, level, np.uint8) for level in (0, 255))
    assert not session.run({"frame": black})["answer"].any()
    answer = session.run({"frame": white})["answer"]
    assert answer.shape == FRAME.answer_shape
    # Inside, every answer is the sum of one filter's weights, or nothing where that is negative.
    weights = 0.1 * np.random.default_rng(0).standard_normal((4, 3, 3, 3))
    expected = np.maximum(weights.sum(axis=(1, 2, 3)), 0)
    assert np.allclose(answer[0, :, 1:, 1:], expected[:, None, None], atol=1e-5)
