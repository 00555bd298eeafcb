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
