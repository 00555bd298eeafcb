"""Other people's software beside ours: each in a process of its own, with a Python of its own if need be.

They cannot be installed beside trocar: dicompyler-core and pygrpm want pydicom before 3. A script of this
folder runs in the peer's Python, knows nothing of trocar, prints one line of JSON once it is ready, and then
does the work once for every line that it reads.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from trocar.runtime.errors import Unavailable

_LEAVE_S = 30.0


@dataclass(frozen=True, slots=True)
class Peer:
    """A script that is ready: what it said of itself, and its pipes."""

    said: dict[str, Any]
    _stdin: IO[str]
    _stdout: IO[str]

    def once(self) -> dict[str, Any]:
        """Do the work once; what it says of the result.

        Raises
        ------
        Unavailable : it left.
        """
        try:
            self._stdin.write("\n")
            self._stdin.flush()
        except OSError:
            raise Unavailable(f"{self.said.get('name')}: it left before its work was done") from None
        return _line(self._stdout, str(self.said.get("name")))


@contextmanager
def started(script: str, python: str, arguments: Sequence[str], log: Path) -> Iterator[Peer]:
    """Start a script of this folder with some Python; it ends with the block.

    Raises
    ------
    Unavailable : it does not run there; the last line that it wrote says why.
    """
    path = Path(__file__).resolve().parent / f"{script}.py"
    with log.open("w+", encoding="utf-8") as stderr:
        process = subprocess.Popen(
            [python, str(path), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            process_group=0,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            try:
                said = _line(process.stdout, script)
            except Unavailable:
                stderr.seek(0)
                lines = stderr.read().strip().splitlines()
                raise Unavailable(lines[-1] if lines else f"{script} left without a word") from None
            yield Peer(said, process.stdin, process.stdout)
        finally:
            try:
                process.stdin.close()
                process.wait(_LEAVE_S)
            except (OSError, subprocess.TimeoutExpired):
                process.kill()
                process.wait()
            process.stdout.close()


def _line(stdout: IO[str], name: str) -> dict[str, Any]:
    """The next line that is JSON: libraries print what they like."""
    for line in stdout:
        if line.startswith("{"):
            found = json.loads(line)
            assert isinstance(found, dict)
            return found
    raise Unavailable(f"{name}: it left before its work was done")
