"""How far the exported graph is from the network that was trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trocar.runtime.session.base import Array, Session

# Float32 sums in another order differ by some 1e-6; a wrong operator or a lost weight by far more.
TOLERANCE = 1e-4
BATCHES = (1, 2, 5)
SAMPLES_PER_BATCH = 4
_SPREAD = 0.1


@dataclass(frozen=True, slots=True)
class Parity:
    """Differences over every output of every sample; `percentile_999` is the 99.9th."""

    max_abs_difference: float
    percentile_999: float
    tolerance: float
    samples: int
    provider: str
    torch: str

    @property
    def passed(self) -> bool:
        """Whether the graph is the network; a difference that is not a number is none."""
        return self.max_abs_difference <= self.tolerance

    def document(self) -> dict[str, Any]:
        """Return plain JSON values; a difference that is not a number is null."""
        values = asdict(self)
        return {
            key: None if isinstance(value, float) and not np.isfinite(value) else value
            for key, value in values.items()
        }


def measure_parity(
    module: nn.Module,
    session: Session,
    example_inputs: Sequence[Tensor],
    *,
    tolerance: float = TOLERANCE,
    seed: int = 0,
) -> Parity:
    """Run both on the same inputs, of several batch sizes.

    Parameters
    ----------
    module : in evaluation mode, on the CPU.
    session : of the exported graph.
    example_inputs : as in use; the samples are these with each number moved by about a tenth.
    tolerance : the largest absolute difference that passes.
    seed : of the samples.
    """
    generator = torch.Generator().manual_seed(seed)
    differences = []
    for batch in BATCHES:
        for _ in range(SAMPLES_PER_BATCH):
            inputs = tuple(_vary(tensor, batch, generator) for tensor in example_inputs)
            differences.append(_difference(module, session, inputs))
    every = np.concatenate(differences)
    return Parity(
        max_abs_difference=float(every.max()),
        percentile_999=float(np.percentile(every, 99.9)),
        tolerance=tolerance,
        samples=sum(BATCHES) * SAMPLES_PER_BATCH,
        provider=session.provider,
        torch=torch.__version__,
    )


def _difference(module: nn.Module, session: Session, inputs: tuple[Tensor, ...]) -> Array:
    with torch.inference_mode():
        answer = module(*inputs)
    expected = answer if isinstance(answer, tuple | list) else (answer,)
    names = [spec.name for spec in session.inputs]
    found = session.run({name: tensor.numpy() for name, tensor in zip(names, inputs, strict=True)})
    pairs = zip(expected, found.values(), strict=True)
    return np.concatenate([np.abs(_wide(ours.numpy()) - _wide(theirs)).ravel() for ours, theirs in pairs])


def _wide(values: Array) -> Array:
    return values.astype(np.float64)


def _vary(tensor: Tensor, batch: int, generator: torch.Generator) -> Tensor:
    """Return a batch of inputs near the example; whole numbers stay as they are."""
    many = tensor[:1].repeat(batch, *[1] * (tensor.dim() - 1))
    if not many.is_floating_point():
        return many
    noise = torch.randn(many.shape, generator=generator, dtype=many.dtype)
    return many + _SPREAD * noise
