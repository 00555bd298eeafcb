"""Nothing that is shipped reads a format that can carry code."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FORBIDDEN = {
    "pickle",
    "cPickle",
    "_pickle",
    "dill",
    "cloudpickle",
    "joblib",
    "marshal",
    "shelve",
    "jsonpickle",
}
# Training starts processes of its own, on its own machine, and sends them its own work.
PROCESSES = {
    "planners/tpgan/data.py",
    "video/annotator/data.py",
    # Their connection carries bytes: `send_bytes` and `recv_bytes` alone.
    "runtime/server/pool.py",
    "runtime/server/worker.py",
}


def findings(source: str, *, processes: bool = False) -> list[str]:
    """What in a module's source unpickles, or could."""
    found = []
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        elif isinstance(node, ast.Call):
            given = {each.arg: ast.unparse(each.value) for each in node.keywords}
            called = ast.unparse(node.func)
            if given.get("allow_pickle", "False") != "False" or given.get("weights_only", "True") != "True":
                found.append(f"{called} with {given}")
            if called in ("torch.load", "torch.save") or called in ("eval", "exec"):
                found.append(called)
        refused = FORBIDDEN if processes else FORBIDDEN | {"multiprocessing"}
        found += [name for name in names if name.partition(".")[0] in refused]
    return found


def test_no_module_unpickles() -> None:
    modules = [
        path
        for folder in ("bench", "export", "planners", "runtime", "video")
        for path in (ROOT / folder).rglob("*.py")
    ]
    assert len(modules) > 150
    found = {}
    for path in modules:
        name = str(path.relative_to(ROOT))
        if each := findings(path.read_text(), processes=name in PROCESSES):
            found[name] = each
    assert found == {}


@pytest.mark.parametrize("name", sorted(name for name in PROCESSES if name.startswith("runtime/")))
def test_processes_of_the_server_exchange_bytes_alone(name: str) -> None:
    called = {
        node.func.attr
        for node in ast.walk(ast.parse((ROOT / name).read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    }
    assert {"send_bytes", "recv_bytes"} <= called
    assert not called & {"send", "recv"}


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "import multiprocessing.connection",
        "import numpy\nnumpy.load('x', allow_pickle=True)",
        "import torch\ntorch.load('x')",
        "read('x', weights_only=False)",
        "def f():\n    import joblib",
        "eval('1')",
    ],
)
def test_it_would_be_found(source: str) -> None:
    assert findings(source)
