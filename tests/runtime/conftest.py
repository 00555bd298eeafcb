from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def graphs() -> Path:
    """The folder of small ONNX graphs."""
    return Path(__file__).parents[1] / "data" / "models"
