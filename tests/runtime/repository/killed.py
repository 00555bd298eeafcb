"""Publishes or signs in a child process and kills it at its Nth line, for every N; for `test_kill.py`.

    python killed.py ROOT publish|first|sign MODEL FIELDS.json

A line here is one that runs in the module that writes, or in `shutil`, which sweeps for it. Prints a JSON
object; anything that a kill left wrong is an AssertionError.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from trocar.runtime.repository import atomic
from trocar.runtime.repository.sign import TrustedKeys, key_id
from trocar.runtime.repository.store import Repository

WRITERS = {atomic.__file__, shutil.__file__}


def killed_at(line: int, work: Callable[[], object]) -> bool:
    """Run in a child that dies before its `line`th line; False where it finished first."""
    child = os.fork()
    if child == 0:
        left = itertools.count(line, -1)

        def trace(frame: Any, event: str, _: object) -> Any:
            if frame.f_code.co_filename not in WRITERS:
                return None
            if event == "line" and next(left) == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            return trace

        sys.settrace(trace)
        work()
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, status
    return os.WIFSIGNALED(status)


def publications(root: Path, model: str, fields: dict[str, Any], files: dict[str, bytes]) -> dict[str, int]:
    repository = Repository(root)
    seen = {"lines": 0, "swept": 0, "whole": 0}
    for line in itertools.count(1):
        before = repository.versions(model)
        left = (root / ".publishing").exists()
        went = killed_at(line, lambda: repository.publish(model, fields, files))
        after = repository.versions(model)
        assert after[: len(before)] == before
        assert len(after) - len(before) in (0, 1), (before, after)
        for version in after[len(before) :]:
            assert {n: repository.open(model, version).read(n) for n in files} == files
        assert {entry.name for entry in root.iterdir()} - {".publishing"} == set(repository.names())
        for version in after[len(before) :]:  # so that the next has as many lines
            shutil.rmtree(root / model / str(version))
        if not before:
            shutil.rmtree(root / model, ignore_errors=True)
        seen["lines"] += went
        seen["swept"] += left
        seen["whole"] += went and len(after) > len(before)
        if not went:
            assert len(after) == len(before) + 1
            assert not (root / ".publishing").exists()
            return seen
    raise AssertionError


def signatures(root: Path) -> dict[str, int]:
    unsigned = Repository(root)
    model = unsigned.open("pair")
    seen = {"lines": 0, "swept": 0, "whole": 0}
    for line in itertools.count(1):
        key = Ed25519PrivateKey.generate()
        name = key_id(key.public_key())
        seen["swept"] += (root / ".publishing").exists()
        went = killed_at(line, lambda key=key: unsigned.sign(model, key))  # type: ignore[misc]
        signed = name in unsigned.open("pair").signatures
        if signed:
            trusting = Repository(root, trusted=TrustedKeys({name: key.public_key()}, Path("k")))
            assert trusting.open("pair").signed_by == (name,)
        seen["lines"] += went
        seen["whole"] += went and signed
        if not went:
            assert signed
            assert not (root / ".publishing").exists()
            return seen
    raise AssertionError


def main() -> None:
    root, what, model, fields = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), json.loads(sys.argv[4])
    files = {"model.onnx": model.read_bytes(), "card.md": b"# pair", "more.md": b"x" * 100_000}
    if what == "sign":
        print(json.dumps(signatures(root)))
    else:
        print(json.dumps(publications(root, "pair" if what == "publish" else "first", fields, files)))


if __name__ == "__main__":
    main()
