"""A process that lends memory of a GPU by handles: a request a line on stdin, an answer a line on stdout."""

from __future__ import annotations

import base64
import ctypes
import json
import sys
from typing import Any

from trocar.runtime.session.cuda import IPC_HANDLE_BYTES, Driver


def main() -> None:
    """Answer until stdin ends."""
    driver = Driver()
    driver.use(driver.retain(driver.gpu()))
    stream = driver.create_stream()

    def allocate(size: int) -> dict[str, Any]:
        address = driver.allocate(size)
        handle = (ctypes.c_ubyte * IPC_HANDLE_BYTES)()
        code = driver._library.cuIpcGetMemHandle(ctypes.byref(handle), ctypes.c_uint64(address))
        return {"address": address, "code": code, "handle": base64.b64encode(bytes(handle)).decode()}

    def write(address: int, data: str) -> dict[str, Any]:
        raw = base64.b64decode(data)
        place = ctypes.create_string_buffer(raw, len(raw))
        driver.to_device(address, ctypes.addressof(place), len(raw), stream)
        driver.synchronise(stream)
        return {}

    def read(address: int, size: int) -> dict[str, Any]:
        place = ctypes.create_string_buffer(size)
        driver.to_host(ctypes.addressof(place), address, size, stream)
        driver.synchronise(stream)
        return {"data": base64.b64encode(place.raw).decode()}

    def free(address: int) -> dict[str, Any]:
        driver.free(address)
        return {}

    calls = {"allocate": allocate, "write": write, "read": read, "free": free}
    for line in sys.stdin:
        name, arguments = json.loads(line)
        print(json.dumps(calls[name](*arguments)), flush=True)


if __name__ == "__main__":
    main()
