import argparse
import os
from pathlib import Path

import pytest

from trocar.bench.serving import served
from trocar.bench.workloads import _identity, rpc
from trocar.bench.workloads._open_inference import Region
from trocar.runtime.errors import InvalidInput, Unavailable
from trocar.runtime.repository.load import open_model
from trocar.runtime.repository.store import Repository


def measure(*words):
    parser = argparse.ArgumentParser()
    rpc.add_arguments(parser)
    return rpc.run(parser.parse_args([str(word) for word in words]))


def regions():
    return set(Path("/dev/shm").glob("trocar-bench-*"))


def test_every_size_goes_over_every_transport():
    before = regions()
    found = measure("--requests", 6, "--sizes-kib", "1,300")
    names = [f"{kind} {size}" for kind in rpc.TRANSPORTS for size in ("empty", "1 KiB", "300 KiB")]
    assert list(found["timings"]) == names
    assert all(timing["samples"] == 6 for timing in found["timings"].values())
    assert "over_floor" in found["timings"]["shm 300 KiB"]
    assert "over_floor" not in found["timings"]["tcp empty"]
    stages = found["tables"]["in the server, mean ms of a request"]
    assert [row["server on"] for row in stages] == ["tcp", "unix"]
    assert all(row["compute_infer"] > 0 for row in stages)
    assert found["servers_used"]["rss_mib"] > 10
    assert regions() == before


def test_streams_have_connections_and_regions_of_their_own():
    found = measure(
        *("--scenario", "offline", "--streams", 3, "--requests", 12, "--sizes-kib", 4, "--transports", "shm")
    )
    timing = found["timings"]["shm 4 KiB"]
    assert (timing["requests"], timing["failures"], timing["streams"]) == (12, 0, 3)
    assert "over_floor" not in timing


@pytest.mark.parametrize(
    "words", [("--sizes-kib", "x"), ("--sizes-kib", "0"), ("--sizes-kib", "70000"), ("--transports", "udp")]
)
def test_other_options_are_refused(words):
    with pytest.raises(InvalidInput, match=f"{words[0]}: expected"):
        measure(*words)


def test_the_model_answers_with_what_it_was_asked(tmp_path):
    import numpy as np

    _identity.publish(tmp_path)
    session = open_model(Repository(tmp_path).open(_identity.NAME), device="cpu")
    for data in (np.arange(7, dtype=np.uint8), np.zeros(1, np.uint8)):
        assert np.array_equal(session.run({_identity.INPUT: data})[_identity.OUTPUT], data)


def test_a_server_that_does_not_start_says_why():
    with pytest.raises(Unavailable, match="unknown key 'sizes'"), served(config="[server]\nsizes = 1\n"):
        pass


def test_a_region_is_its_owners_alone_and_goes_away():
    with Region(8192) as region:
        path = Path("/dev/shm") / region.name
        assert path.stat().st_size == 8192
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.stat().st_uid == os.getuid()
    assert not path.exists()
