"""Large buffers stay with the process: counted in page faults, which a busy machine does not change."""

import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys
from trocar.runtime.server.allocator import keep_large_buffers
if sys.argv[1] == "kept" and not keep_large_buffers():
    sys.exit("no mallopt")
import numpy
def touch():
    numpy.ones(9_400_000, numpy.uint8)
touch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    touch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _faults(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", SCRIPT, how], capture_output=True, text=True, check=False)
    if done.stderr.strip() == "no mallopt":
        pytest.skip("the C library is not glibc")
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_a_volume_is_not_paid_for_in_page_faults() -> None:
    assert _faults("kept") < 100


CROWD = """
import os, sys, threading, time
from trocar.runtime.server.allocator import Leftovers, keep_large_buffers
if not keep_large_buffers():
    sys.exit("no mallopt")
import numpy
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGESIZE")
busy = [3, 1]
leftovers = Leftovers(lambda: tuple(busy), quiet_s=0.05)
leftovers.start()
base = resident()
volumes = [numpy.ones(10 << 20, numpy.uint8) for _ in range(10)]
last = numpy.ones(1 << 20, numpy.uint8)  # above them: what is below is not given back by itself
del volumes
time.sleep(0.5)
print(resident() - base > 90 << 20)
busy[1] = 0
deadline = time.monotonic() + 20
while resident() - base > 20 << 20 and time.monotonic() < deadline:
    time.sleep(0.05)
print(resident() - base > 20 << 20)
one = [numpy.ones(10 << 20, numpy.uint8) for _ in range(3)]
del one
time.sleep(0.5)
print(resident() - base > 25 << 20)
held = [numpy.ones(10 << 20, numpy.uint8) for _ in range(10)]
more = [numpy.ones(10 << 20, numpy.uint8) for _ in range(5)]
last = numpy.ones(1 << 20, numpy.uint8)
del more
time.sleep(0.5)  # what nobody uses is given back, what somebody does is not
print(resident() - base > 90 << 20)
del held
deadline = time.monotonic() + 20
while resident() - base > 20 << 20 and time.monotonic() < deadline:
    time.sleep(0.05)
print(resident() - base > 20 << 20)
leftovers.close()
"""


def test_what_many_clients_leave_is_given_back_once_it_is_quiet_and_what_one_leaves_is_kept() -> None:
    done = subprocess.run([sys.executable, "-c", CROWD], capture_output=True, text=True, check=False)
    if done.stderr.strip() == "no mallopt":
        pytest.skip("the C library is not glibc")
    assert done.stdout.split() == ["True", "False", "True", "True", "False"], done.stderr
