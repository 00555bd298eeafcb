import argparse
from pathlib import Path

import pytest

from trocar.bench.workloads import session
from trocar.runtime.errors import InvalidInput, ModelNotFound


def measure(*words):
    parser = argparse.ArgumentParser()
    session.add_arguments(parser)
    return session.run(parser.parse_args([str(word) for word in words]))


def test_every_model_in_every_batch_beside_onnxruntime(inference_repository: Path):
    words = (
        "--repository",
        inference_repository,
        "--models",
        "pair,half",
        "--repeats",
        6,
        "--devices",
        "cpu",
    )
    found = measure(*words, "--batches", "1,3")
    names = [
        f"{model} CPUExecutionProvider fp32 batch {batch}" for model in ("pair", "half") for batch in (1, 3)
    ]
    for name in names:
        assert found["timings"][name]["over_floor"] > 0
        assert found["timings"][f"{name}, onnxruntime alone"]["samples"] == 6
    assert len(found["timings"]) == 2 * len(names)


def test_what_does_not_open_here_is_named():
    found = measure("--models", "tpgan", "--repeats", 1, "--batches", 1)
    if not any("CUDA" in name for name in found["timings"]):
        assert "CUDA" in found["left_out"]["tpgan cuda fp32"]


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("--batches", "0"), InvalidInput),
        (("--batches", "x"), InvalidInput),
        (("--repeats", 0), InvalidInput),
        (("--models", "nobody"), ModelNotFound),
        (("--devices", "abacus", "--models", "tpgan"), InvalidInput),
    ],
)
def test_other_options_are_refused(words, error):
    with pytest.raises(error, match=r"expected|no model 'nobody'"):
        measure(*words)
