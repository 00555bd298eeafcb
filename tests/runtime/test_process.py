"""A process that works for another: what becomes of it where memory runs out."""

import subprocess
import sys

import pytest

SCRIPT = """
import socket
from trocar.runtime import process
ours, theirs = socket.socketpair()
process.begin([str(theirs.detach())])
class Fails:
    def __del__(self):
        raise {error}("in passing")
Fails()
print("goes on")
"""


@pytest.mark.parametrize(("error", "code"), [("MemoryError", 1), ("ValueError", 0)])
def test_only_a_thread_without_memory_ends_it(error: str, code: int) -> None:
    """`__del__` stands for a thread that cannot begin: Python reports both by the same hook."""
    script = SCRIPT.format(error=error)
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert done.stdout == ("goes on\n" if code == 0 else "")
    assert ("ValueError: in passing" in done.stderr) == (code == 0)
