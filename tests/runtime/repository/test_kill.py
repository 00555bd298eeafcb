"""A publication killed at any moment leaves the old models or the old and the new, never half of one."""

from __future__ import annotations

import itertools
import json
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from trocar.runtime.repository.store import Model, Repository

KILLS = 12
LONGEST_S = 0.06
# Files large enough that most of the time goes into writing them.
PUBLISHER = """
import json, sys
from pathlib import Path
from trocar.runtime.repository.store import Repository
root, model, fields = Path(sys.argv[1]), Path(sys.argv[2]).read_bytes(), json.loads(sys.argv[3])
repository = Repository(root)
files = {"model.onnx": model, "card.md": b"# pair", "extra.md": b"x" * (5 << 20)}
print("ready", flush=True)
while True:
    repository.publish("pair", fields, files)
    print("published", flush=True)
"""


@pytest.mark.parametrize("what", ["publish", "first", "sign"])
def test_killed_at_every_line(
    what: str, published: Model, repository: Repository, fields: dict[str, Any], graphs: Path
) -> None:
    command = [sys.executable, str(Path(__file__).with_name("killed.py")), str(repository.root), what]
    command += [str(graphs / "pair.onnx"), json.dumps(fields)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    # Kills fell before the rename and after it, and left what the next writer had to sweep.
    assert seen["lines"] > 30
    assert 2 <= seen["whole"] < seen["lines"]
    assert 10 <= seen["swept"] < seen["lines"]
    assert repository.open("pair", 1).manifest == published.manifest


def test_killed_at_random(
    published: Model, repository: Repository, fields: dict[str, Any], graphs: Path
) -> None:
    """Between lines too: within a write, a flush, a rename."""
    generator = random.Random(20261123)
    command = [sys.executable, "-c", PUBLISHER, str(repository.root), str(graphs / "pair.onnx")]
    command.append(json.dumps(fields))
    interrupted = 0
    # On a busy machine a publication may take until long after the kill: then there are more of them.
    for number in itertools.count():
        if number >= (KILLS if interrupted else 10 * KILLS):
            break
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            before = repository.versions("pair")
            time.sleep(generator.uniform(0, LONGEST_S * (1 + number // KILLS)))
            process.kill()
            said = process.stdout.read().count("published")
        interrupted += (repository.root / ".publishing").exists()
        after = repository.versions("pair")
        assert after[: len(before)] == before
        # One more than it could say: killed between the rename and the word.
        assert len(after) - len(before) in (said, said + 1)
        for version in after[len(before) - 1 :]:
            assert repository.open("pair", version).manifest.version == version
    assert interrupted, "no kill fell into a publication; it tests nothing"
    # What the kills left does not stand in the way of the next.
    files = {name: published.read(name) for name in published.manifest.files}
    assert repository.publish("pair", fields, files).manifest.version == after[-1] + 1
    assert not (repository.root / ".publishing").exists()
