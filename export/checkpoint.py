"""Checkpoints: a safetensors file whose tensors are a module's state dict.

Its metadata holds one JSON object under `trocar`: the facts from which the network is built and the
manifest is filled. Nothing in such a file is code, which is why pickled checkpoints are not read.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from trocar.runtime.errors import InvalidInput

METADATA_KEY = "trocar"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint's tensors, its facts, and the SHA-256 of the file."""

    path: Path
    tensors: dict[str, Tensor]
    facts: dict[str, Any]
    sha256: str

    def load_into(self, module: nn.Module) -> None:
        """Put the tensors into a module; every one must fit.

        Raises
        ------
        InvalidInput
            A tensor is missing, left over, or of another shape.
        """
        try:
            module.load_state_dict(self.tensors, strict=True)
        except RuntimeError as error:
            raise InvalidInput(f"{self.path}: the tensors do not fit the network: {error!s:.400}") from error


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises
    ------
    InvalidInput
        No such file, not safetensors, or no facts in it.
    """
    try:
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        with safe_open(str(path), framework="pt", device="cpu") as file:
            text = (file.metadata() or {}).get(METADATA_KEY)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise InvalidInput(f"expected a safetensors checkpoint in {path}: {error}") from error
    try:
        facts = json.loads(text or "")
    except (ValueError, RecursionError) as error:
        raise InvalidInput(
            f"{path}: expected JSON under {METADATA_KEY!r} in its metadata: {error}"
        ) from error
    if not isinstance(facts, dict):
        raise InvalidInput(f"{path}: expected a JSON object as {METADATA_KEY!r} in its metadata")
    return Checkpoint(path, tensors, facts, sha256)
