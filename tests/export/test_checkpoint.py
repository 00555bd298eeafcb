from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from trocar.runtime.errors import InvalidInput

torch = pytest.importorskip("torch", reason="torch is not installed (train extra)")
safetensors = pytest.importorskip("safetensors.torch", reason="safetensors is not installed (train extra)")

from trocar.export.checkpoint import read_checkpoint  # noqa: E402

WEIGHTS = {"weight": torch.ones(1, 2), "bias": torch.zeros(1)}


def write(path: Path, metadata: dict[str, str] | None, tensors: dict[str, torch.Tensor] = WEIGHTS) -> Path:
    safetensors.save_file(tensors, path, metadata=metadata)
    return path


def test_tensors_and_facts(tmp_path: Path) -> None:
    checkpoint = read_checkpoint(write(tmp_path / "c.safetensors", {"trocar": '{"epochs": 3}'}))
    assert checkpoint.facts == {"epochs": 3}
    module = torch.nn.Linear(2, 1)
    checkpoint.load_into(module)
    assert module.weight.tolist() == [[1.0, 1.0]]


@pytest.mark.parametrize("tensors", [{"weight": torch.ones(1, 2)}, {**WEIGHTS, "more": torch.ones(1)}])
def test_tensors_must_fit(tmp_path: Path, tensors: dict[str, torch.Tensor]) -> None:
    checkpoint = read_checkpoint(write(tmp_path / "c.safetensors", {"trocar": "{}"}, tensors))
    with pytest.raises(InvalidInput, match="the tensors do not fit the network"):
        checkpoint.load_into(torch.nn.Linear(2, 1))


@pytest.mark.parametrize("metadata", [None, {"other": "{}"}, {"trocar": "{"}, {"trocar": "[]"}])
def test_facts_must_be_there(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    with pytest.raises(InvalidInput, match=r"expected (a )?JSON .*'trocar' in its metadata"):
        read_checkpoint(write(tmp_path / "c.safetensors", metadata))


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (pytest.fail, ("a pickle was loaded",))


@pytest.mark.parametrize(
    "content", [b"", b"\xff" * 64, pickle.dumps(Bomb()), (1 << 60).to_bytes(8, "little") + b"{}"]
)
def test_what_is_no_safetensors_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(content)
    with pytest.raises(InvalidInput, match="expected a safetensors checkpoint"):
        read_checkpoint(path)


def test_a_missing_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="expected a safetensors checkpoint"):
        read_checkpoint(tmp_path / "none.safetensors")
