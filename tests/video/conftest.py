from __future__ import annotations

import os
from pathlib import Path

import pytest

DOUBLES = Path(__file__).parent / "doubles"


@pytest.fixture(autouse=True)
def _doubles_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Worker processes import `doubles` by name."""
    paths = [str(DOUBLES), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
