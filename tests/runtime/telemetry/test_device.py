"""Against a stand-in for the driver: there was no GPU to ask."""

import pytest

from trocar.runtime.errors import DeviceError
from trocar.runtime.session.cuda import Gpu
from trocar.runtime.telemetry import device
from trocar.runtime.telemetry.device import DeviceMemory


class Driver:
    used, asked = False, 0

    def gpu(self) -> Gpu:
        return Gpu(0, "stand-in", "sm89")

    def in_use(self, _: Gpu) -> bool:
        return self.used

    def retain(self, _: Gpu) -> int:
        Driver.asked += 1
        return 7

    def use(self, context: int) -> None:
        assert context == 7

    def memory(self) -> tuple[int, int]:
        return 3, 10


def test_memory_of_a_gpu_that_this_process_uses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "Driver", Driver)
    memory = DeviceMemory()
    assert list(memory.read()) == []  # asking would make a context
    monkeypatch.setattr(Driver, "used", True)
    for _ in range(3):
        (family,) = memory.read()
        assert family.rows == [(("0", "used"), 7.0), (("0", "free"), 3.0)]
    assert Driver.asked == 1


def test_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> None:
        raise DeviceError("libcuda.so.1 is not there")

    monkeypatch.setattr(device, "Driver", nobody)
    assert list(DeviceMemory().read()) == []
