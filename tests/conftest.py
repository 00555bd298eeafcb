import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of local test data: TROCAR_SHARED, or `shared` beside the repository."""
    root = Path(os.environ.get("TROCAR_SHARED", Path(__file__).resolve().parents[1].parent / "shared"))
    if not (root / "cases").is_dir():
        pytest.skip("../shared is not present")
    return root
