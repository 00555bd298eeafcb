"""An unmodified tritonclient against `trocar serve`: tensors in POSIX shared memory."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
from tritons import (
    FLOATS,
    PREFIX,
    TEXT,
    kinds,
    pair,
    refused,
    shared,
    tensor,
    text_of,
    triton,
)


class _Region:
    def __init__(self, client: Any, name: str, size: int) -> None:
        self.client, self.name, self.key, self.size = client, PREFIX + name, f"/{PREFIX}{name}", size

    def __enter__(self) -> Any:
        self.handle = shared.create_shared_memory_region(self.name, self.key, self.size)
        return self

    def __exit__(self, *_: object) -> None:
        for region in self.client.get_system_shared_memory_status().regions:
            if region == self.name:
                self.client.unregister_system_shared_memory(self.name)
        shared.destroy_shared_memory_region(self.handle)

    def register(self) -> _Region:
        self.client.register_system_shared_memory(self.name, self.key, self.size)
        return self


def _shared_pair(region: Any) -> list[Any]:
    size = FLOATS.nbytes
    shared.set_shared_memory_region(region.handle, [FLOATS, FLOATS + 1])
    inputs = []
    for number, name in enumerate(("left", "right")):
        tensor = triton.InferInput(name, list(FLOATS.shape), "FP32")
        tensor.set_shared_memory(region.name, size, offset=number * size)
        inputs.append(tensor)
    return inputs


def _shared_outputs(region: Any, size: int = FLOATS.nbytes, start: int = 2) -> list[Any]:
    outputs = []
    for number, name in enumerate(("total", "difference")):
        output = triton.InferRequestedOutput(name)
        output.set_shared_memory(region.name, size, offset=(start + number) * FLOATS.nbytes)
        outputs.append(output)
    return outputs


def test_shared_memory(client: Any) -> None:
    size = FLOATS.nbytes
    with _Region(client, "a", 4 * size) as region:
        region.register()
        told = client.get_system_shared_memory_status(region.name).regions[region.name]
        assert (told.name, told.key, told.offset, told.byte_size) == (region.name, region.key, 0, 4 * size)
        for _ in range(3):
            reply = client.infer("pair", _shared_pair(region), outputs=_shared_outputs(region))
            assert [len(raw) for raw in reply.get_response().raw_output_contents] == [0, 0]
            parameters = reply.get_output("difference").parameters
            assert parameters["shared_memory_region"].string_param == region.name
            assert parameters["shared_memory_byte_size"].int64_param == size
            assert parameters["shared_memory_offset"].int64_param == 3 * size
            found = shared.get_contents_as_numpy(
                region.handle, np.float32, [2, *FLOATS.shape], offset=2 * size
            )
            assert np.array_equal(found[0], 2 * FLOATS + 1)
            assert np.array_equal(found[1], np.full_like(FLOATS, -1))
            found[:] = 0
        # One from memory and one from the request; one there and one in the reply.
        inputs = [_shared_pair(region)[0], pair()[1]]
        outputs = [*_shared_outputs(region)[:1], triton.InferRequestedOutput("difference")]
        reply = client.infer("pair", inputs, outputs=outputs)
        assert np.array_equal(reply.as_numpy("difference"), np.zeros_like(FLOATS))
        found = shared.get_contents_as_numpy(region.handle, np.float32, list(FLOATS.shape), offset=2 * size)
        assert np.array_equal(found, 2 * FLOATS)
        client.unregister_system_shared_memory(region.name)
        code, text = refused(lambda: client.infer("pair", _shared_pair(region)))
        assert (code, "expected a registered region of" in text) == ("INVALID_ARGUMENT", True)


def test_text_in_shared_memory(client: Any) -> None:
    with _Region(client, "text", 4096) as region:
        region.register()
        inputs = kinds()
        raw = inputs[0]._get_content()
        shared.set_shared_memory_region(region.handle, [np.array(raw, object)])
        inputs[0].set_shared_memory(region.name, len(raw))
        output = triton.InferRequestedOutput("text_out")
        output.set_shared_memory(region.name, 2048, offset=2048)
        for _ in range(2):
            client.infer("kinds", inputs, outputs=[output])
            found = shared.get_contents_as_numpy(region.handle, np.object_, [2, 2], offset=2048)
            assert found.tolist() == TEXT.tolist()
        output.set_shared_memory(region.name, len(raw) - 1, offset=2048)
        _, text = refused(lambda: client.infer("kinds", inputs, outputs=[output]))
        assert text.endswith(f"expected {len(raw)} bytes of shared memory or more, got {len(raw) - 1}")


def test_a_region_that_takes_anothers_name(client: Any) -> None:
    """What was bound to the first must not read or write it any more."""
    size = FLOATS.nbytes
    for value in (1, 2):
        with _Region(client, "again", 4 * size) as region:
            region.register()
            for number in range(3):
                inputs = _shared_pair(region)
                shared.set_shared_memory_region(region.handle, [FLOATS * value, FLOATS * number])
                client.infer("pair", inputs, outputs=_shared_outputs(region))
                found = shared.get_contents_as_numpy(
                    region.handle, np.float32, list(FLOATS.shape), offset=2 * size
                )
                assert np.array_equal(found, FLOATS * (value + number))


def test_an_output_whose_shape_only_the_run_tells(client: Any) -> None:
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    with _Region(client, "m", 256) as region:
        region.register()
        wide = triton.InferRequestedOutput("wide")
        wide.set_shared_memory(region.name, 200)
        inputs = [tensor("pixels", pixels, "UINT8"), tensor("mask", np.array(True), "BOOL")]
        reply = client.infer("mixed", inputs, outputs=[wide])
        assert reply.get_output("wide").parameters["shared_memory_byte_size"].int64_param == 96
        assert np.array_equal(shared.get_contents_as_numpy(region.handle, np.int64, [3, 4]), pixels)
        wide.set_shared_memory(region.name, 95)
        _, text = refused(lambda: client.infer("mixed", inputs, outputs=[wide]))
        assert text == "output wide: expected 96 bytes of shared memory or more for int64 [3, 4], got 95"


def test_shared_memory_that_does_not_fit(client: Any) -> None:
    size = FLOATS.nbytes
    with _Region(client, "b", 4 * size) as region:
        _, text = refused(lambda: client.register_system_shared_memory(region.name, region.key, 4 * size + 1))
        assert f"got an object of {4 * size}" in text
        region.register()
        assert "registered already" in refused(region.register)[1]
        inputs = _shared_pair(region)
        inputs[0].set_shared_memory(region.name, size - 4)
        _, text = refused(lambda: client.infer("pair", inputs))
        assert f"input left: expected {size} bytes of shared memory" in text
        inputs[0].set_shared_memory(region.name, size, offset=3 * size + 4)
        assert "expected bytes within" in refused(lambda: client.infer("pair", inputs))[1]
        overlapping = _shared_outputs(region)
        overlapping[1].set_shared_memory(region.name, size, offset=2 * size + 4)
        _, text = refused(lambda: client.infer("pair", _shared_pair(region), outputs=overlapping))
        assert text == "output difference: expected memory of its own, got some of output total"
        for key in ("/../etc/passwd", "/a/b", "", "/etc", "/" + "x" * 300):
            code, _ = refused(lambda key=key: client.register_system_shared_memory("x", key, 16))
            assert code == "INVALID_ARGUMENT"


def test_memory_that_shrinks_costs_its_request_alone(client: Any, inference_server: Any) -> None:
    with _Region(client, "c", 1 << 20) as region:
        region.register()
        place = Path("/dev/shm") / region.name
        stop = threading.Event()

        def saw() -> None:
            while not stop.is_set():
                os.truncate(place, 0)
                os.truncate(place, 1 << 20)

        thread = threading.Thread(target=saw)
        thread.start()
        try:
            batch = 8000
            tensors = []
            for number, name in enumerate(("left", "right")):
                tensor = triton.InferInput(name, [batch, 2, 3], "FP32")
                tensor.set_shared_memory(region.name, batch * 24, offset=number * batch * 24)
                tensors.append(tensor)
            for _ in range(150):
                text = text_of(lambda: client.infer("pair", tensors))
                if text:
                    assert "as registered, got" in text or "registered region" in text
                    if region.name not in client.get_system_shared_memory_status().regions:
                        text_of(region.register)  # unless it is short just then
        finally:
            stop.set()
            thread.join()
        assert inference_server.process.poll() is None
    assert np.array_equal(client.infer("pair", pair()).as_numpy("total"), 2 * FLOATS)
