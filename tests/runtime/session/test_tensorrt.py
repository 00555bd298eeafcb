"""What an engine's session asks of TensorRT and of the driver; see conftest for what stands in for them."""

from __future__ import annotations

import gc
import json
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from trocar.runtime.errors import DeviceError, InvalidInput, ManifestMismatch
from trocar.runtime.session.base import Array, TensorSpec
from trocar.runtime.session.tensorrt import open_engine

LEFT = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
FEEDS = {"left": LEFT, "right": LEFT * 2}
TENSORS = {name: [-1, 2, 3] for name in ("left", "right", "total", "difference")}
FACTS = {
    "flavour": "tensorrt",
    "library": "tensorrt 99.1",
    "capabilities": ["sm89"],
    "gpu": "Imaginary 9000",
}


def targets() -> dict[str, Array]:
    return {name: np.full_like(LEFT, np.nan) for name in ("total", "difference")}


def engine(**changes: Any) -> bytes:
    return json.dumps({"tensors": TENSORS, **changes}).encode()


def on_device(driver: Any, array: Array) -> Any:
    address = driver.allocate(array.nbytes)
    interface = {"shape": array.shape, "typestr": array.dtype.str, "data": (address, False), "version": 3}
    return SimpleNamespace(__cuda_array_interface__=interface, address=address)


def test_it_names_the_gpu_and_the_library(open_pair_engine: Any) -> None:
    session = open_pair_engine()
    assert session.provider == "tensorrt"
    assert str(session.device) == "cuda (Imaginary 9000): the engine is built for sm89"


def test_all_goes_through_a_stream_of_its_own_and_is_waited_for(open_pair_engine: Any, driver: Any) -> None:
    session = open_pair_engine()
    (stream,) = driver.streams
    session.run(FEEDS)
    session.run_into(FEEDS, targets())
    session.bind(FEEDS, targets()).run()
    assert driver.streams == {stream: []}, "nothing is left to do, and no other stream was made"


def test_a_callers_stream_is_the_callers_to_wait_for(open_pair_engine: Any, driver: Any) -> None:
    session = open_pair_engine()
    stream = driver.create_stream()
    found = targets()
    binding = session.bind(FEEDS, found, stream=stream)
    assert not driver.streams[stream]
    binding.run()
    assert np.isnan(found["total"]).all(), "the work waits in the stream"
    driver.synchronise(stream)
    np.testing.assert_array_equal(found["total"], LEFT * 3)


@pytest.mark.parametrize("stream", [0, 1, 2])
def test_the_default_stream_is_refused_by_name(open_pair_engine: Any, stream: int) -> None:
    with pytest.raises(InvalidInput, match=rf"expected a stream .* got the default stream \({stream}\)"):
        open_pair_engine().bind(FEEDS, targets(), stream=stream)


def test_device_arrays_are_used_where_they_lie(open_pair_engine: Any, driver: Any) -> None:
    session = open_pair_engine()
    feeds = {name: on_device(driver, array) for name, array in FEEDS.items()}
    found = {name: on_device(driver, array) for name, array in targets().items()}
    made = driver.made
    for name, array in feeds.items():
        np.frombuffer(driver.memory[array.address], np.float32)[...] = FEEDS[name].ravel()
    session.bind(feeds, found).run()
    assert driver.made == made, "no memory besides the caller's"
    answer = np.frombuffer(driver.memory[found["difference"].address], np.float32)
    np.testing.assert_array_equal(answer.reshape(LEFT.shape), -LEFT)


def test_a_binding_allocates_and_checks_once(open_pair_engine: Any, driver: Any) -> None:
    binding = open_pair_engine().bind(FEEDS, targets())
    made = driver.made
    for _ in range(5):
        binding.run()
    assert (made, driver.made) == (4, 4)


def test_memory_grows_with_the_batch_and_is_given_back(open_pair_engine: Any, driver: Any) -> None:
    session = open_pair_engine()
    for batch in (1, 5, 2, 8):
        feeds = {name: np.ones((batch, 2, 3), np.float32) for name in FEEDS}
        assert session.run(feeds)["total"].shape == (batch, 2, 3)
    assert sum(len(block) for block in driver.memory.values()) == 4 * 8 * 24
    binding = session.bind(FEEDS, targets())
    assert len(driver.memory) == 8
    del binding
    gc.collect()
    assert len(driver.memory) == 4
    del session
    gc.collect()
    assert (driver.memory, driver.streams) == ({}, {})


def test_a_batch_beyond_the_profile(open_pair_engine: Any) -> None:
    feeds = {name: np.ones((9, 2, 3), np.float32) for name in FEEDS}
    with pytest.raises(InvalidInput) as refused:
        open_pair_engine().run(feeds)
    assert str(refused.value) == (
        "input left: expected [1, 2, 3] to [8, 2, 3], for which the engine is built, got [9, 2, 3]"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"library": "tensorrt 98.0"},
            "m.engine: expected tensorrt 98.0, which built the engine, got tensorrt 99.1; build it again",
        ),
        (
            {"capabilities": ["sm86", "sm120"]},
            "m.engine: expected a GPU of sm86, sm120, for which the engine is built, "
            "got Imaginary 9000 (sm89)",
        ),
        (
            {"gpu": "Imaginary 8000"},
            "m.engine: expected Imaginary 8000, on which the engine was tuned, got Imaginary 9000",
        ),
    ],
)
def test_an_engine_of_elsewhere_is_refused_before_the_library_sees_it(
    open_pair_engine: Any, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(DeviceError) as refused:
        open_pair_engine(data=b"never read", facts={**FACTS, **change})
    assert str(refused.value) == message


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            b"rubbish",
            "tensorrt refuses the engine: Serialization assertion magicTag == rt::kMAGIC_TAG failed",
        ),
        (engine(dtype="HALF"), r"left: expected float32 \[batch, 2, 3\], got float16 \[\?, 2, 3\]"),
        (engine(dtype="FP4"), r"left: expected float32 \[batch, 2, 3\], got \? \[\?, 2, 3\]"),
        (engine(tensors={**TENSORS, "total": [2, 2, 3]}), r"total: expected float32 \[batch, 2, 3\], got .*"),
        (engine(tensors={**TENSORS, "extra": [1]}), "expected outputs difference, total, got .*extra.*"),
    ],
)
def test_an_engine_that_is_not_the_manifests(open_pair_engine: Any, data: bytes, message: str) -> None:
    with pytest.raises(ManifestMismatch, match=rf"^m\.engine: {message}$"):
        open_pair_engine(data=data)


def test_another_flavour(open_pair_engine: Any) -> None:
    with pytest.raises(
        ManifestMismatch, match="expected an engine of tensorrt, tensorrt-rtx, got 'openvino'"
    ):
        open_pair_engine(facts={**FACTS, "flavour": "openvino"})


def test_what_the_library_says_when_it_fails(open_pair_engine: Any) -> None:
    with pytest.raises(DeviceError, match=r"m\.engine: no execution context: no memory in two lines"):
        open_pair_engine(data=engine(fails="no memory"))
    with pytest.raises(DeviceError, match=r"refused for left: bad shape in two lines"):
        open_pair_engine(data=engine(fails="bad shape")).run(FEEDS)


def test_a_missing_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    specs = [TensorSpec("x", "float32", (1,))]
    for flavour, module, extra in (
        ("tensorrt", "tensorrt", "tensorrt"),
        ("tensorrt-rtx", "tensorrt_rtx", "rtx"),
    ):
        monkeypatch.setitem(sys.modules, module, None)
        facts = {**FACTS, "flavour": flavour, "library": f"{module} 99.1"}
        with pytest.raises(DeviceError, match=rf"needs {module} 99\.1, .*pip install 'trocar\[{extra}\]'"):
            open_engine(b"", facts=facts, inputs=specs, outputs=specs)


def test_without_a_gpu_the_library_is_not_asked(open_pair_engine: Any, driver: Any) -> None:
    driver.fails = "gpu"
    with pytest.raises(DeviceError, match="the driver knows no device"):
        open_pair_engine()


def test_an_engine_of_fixed_shapes(open_pair_engine: Any) -> None:
    fixed = {name: [2, 2, 3] for name in TENSORS}
    inputs, outputs = (
        tuple(TensorSpec(name, "float32", (2, 2, 3)) for name in names)
        for names in (("left", "right"), ("total", "difference"))
    )
    session = open_pair_engine(data=engine(tensors=fixed), inputs=inputs, outputs=outputs)
    np.testing.assert_array_equal(session.run(FEEDS)["total"], LEFT * 3)
    with pytest.raises(InvalidInput, match=r"expected float32 \[2, 2, 3\], got float32 \[1, 2, 3\]"):
        session.run({name: array[:1] for name, array in FEEDS.items()})
