import json
import subprocess
from collections.abc import Callable


def test_a_stream_alone_and_beside_plans(trocar: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    play = ("--rounds", "1", "--seconds", "1", "--fps", "10", "--plans", "2", "--clip", "rendered:7:0.2")
    done = trocar("bench", "run", "contention", *play, "--json", timeout_s=250)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert [row["way"] for row in document["tables"]["plays"]] == ["alone", "beside plans"]
    for row in document["tables"]["plays"]:
        assert row["sent"] == 10
        assert 1 <= row["annotated"] <= 10 - row["dropped"] - row["failed"]
        assert row["p99 ms"] >= row["p50 ms"] > 0
    assert document["timings"]["beside plans"]["samples"] == document["tables"]["plays"][1]["annotated"]
    assert sum(document["plans"].values()) >= 2
    assert set(document["plans"]) <= {"OK", "CANCELLED"}
