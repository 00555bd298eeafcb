import os
import subprocess
import sys
import time

import pytest

from trocar.bench.usage import Meter


@pytest.fixture
def powercap(tmp_path):
    def write(name, energy_uj):
        zone = tmp_path / name
        zone.mkdir(exist_ok=True)
        (zone / "energy_uj").write_text(f"{energy_uj}\n")
        (zone / "max_energy_range_uj").write_text("1000000000\n")

    write("intel-rapl:0", 999_000_000)
    write("intel-rapl:0:0", 5)  # a part of the package above, not to be counted twice
    return tmp_path, write


def test_a_busy_process_is_seen_by_its_id():
    child = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        meter = Meter([child.pid])
        deadline = time.monotonic() + 60
        while meter.document()["cpu_s"] < 0.05:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        child.kill()
        child.wait()
    found = Meter().document(requests=10)  # this process, which does nothing
    assert found["rss_mib"] > 1
    assert found["cpu_s_per_request"] < 0.05


def test_memory_that_is_taken_is_seen():
    meter = Meter([os.getpid()])
    held = bytearray(b"x") * (64 << 20)
    assert meter.document(requests=2)["rss_growth_mib"] > 30
    assert len(held)


def test_energy_is_counted_over_a_wrap(powercap):
    folder, write = powercap
    meter = Meter(powercap=folder)
    write("intel-rapl:0", 3_000_000)
    found = meter.document(requests=2)
    # From 999 J to the wrap at 1000 J, and 3 J on.
    assert found["energy_intel-rapl:0_j"] == pytest.approx(4.0)
    assert found["energy_intel-rapl:0_j_per_request"] == pytest.approx(2.0)
    assert not any("intel-rapl:0:0" in name for name in found)
    assert "energy" not in found


def test_energy_that_nothing_counts_is_said(tmp_path):
    found = Meter(powercap=tmp_path).document()
    if not any(name.startswith("energy_gpu") for name in found):
        assert found["energy"].startswith("not measured: no RAPL")
