"""How far an exported file is from the network that was trained: in its outputs, and in what they are for."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from trocar.export.network import Feeds, Network, Run
from trocar.runtime.session.base import Array, Session

if TYPE_CHECKING:
    from torch import nn

BATCHES = (1, 2, 5)
SAMPLES_PER_BATCH = 4
_SPREAD = 0.1
REAL = "real"
NEAR_EXAMPLE = "the example, each number moved by about a tenth"


@dataclass(frozen=True, slots=True)
class Tolerance:
    """What passes.

    Differences are those of an output, over its largest magnitude where that is above 1. `metric` is by how
    much a figure of the task may differ from torch's, as a share of it, for better or worse.
    """

    max_difference: float
    percentile_999: float
    metric: float


# Float32 sums in another order differ by some 1e-6; a wrong operator or a lost weight by far more. Float16
# has eleven bits, int8 eight: single outputs may move, what they are for may not.
TOLERANCES: Mapping[str, Tolerance] = {
    "fp32": Tolerance(1e-4, 1e-4, 0.01),
    "fp16": Tolerance(0.02, 0.005, 0.02),
    "int8": Tolerance(0.3, 0.1, 0.05),
}


@dataclass(frozen=True, slots=True)
class Difference:
    """Of one output over every sample: absolute; `scale` is its largest magnitude in torch, 1 at least."""

    max_abs_difference: float
    percentile_999: float
    scale: float


@dataclass(frozen=True, slots=True)
class Parity:
    """A file against torch. `metrics` are the file's figures of the task, `torch_metrics` torch's."""

    precision: str
    outputs: Mapping[str, Difference]
    metrics: Mapping[str, float]
    torch_metrics: Mapping[str, float]
    samples: int
    inputs: str
    provider: str
    torch: str

    @property
    def tolerance(self) -> Tolerance:
        """What is held against it."""
        return TOLERANCES[self.precision]

    def exceeded(self) -> tuple[str, ...]:
        """Say what is past tolerance, a line each; a value that is not a number is."""
        allowed = self.tolerance
        found = []
        for name, output in self.outputs.items():
            for label, value, most in (
                ("differs", output.max_abs_difference, allowed.max_difference),
                ("differs at the 99.9th percentile", output.percentile_999, allowed.percentile_999),
            ):
                if not value <= most * output.scale:
                    found.append(f"{name} {label} by {value:.3g}, {most * output.scale:.3g} allowed")
        for name, ratio in self.metric_ratios().items():
            if not abs(ratio - 1.0) <= allowed.metric:
                found.append(f"{name} is {ratio:.4g} of torch's, 1 +- {allowed.metric:g} allowed")
        return tuple(found)

    def metric_ratios(self) -> dict[str, float]:
        """Each figure of the task over torch's; of two zeros it is 1."""
        return {
            name: 1.0 if self.metrics[name] == value else self.metrics[name] / value if value else math.inf
            for name, value in self.torch_metrics.items()
        }

    def document(self) -> dict[str, Any]:
        """Return plain JSON values; one that is not a number is null."""
        outputs = {
            name: {
                "max_abs_difference": _plain(output.max_abs_difference),
                "percentile_999": _plain(output.percentile_999),
                "scale": _plain(output.scale),
            }
            for name, output in self.outputs.items()
        }
        allowed = self.tolerance
        return {
            "max_abs_difference": _worst(each["max_abs_difference"] for each in outputs.values()),
            "percentile_999": _worst(each["percentile_999"] for each in outputs.values()),
            "outputs": outputs,
            "metric_ratios": {name: _plain(ratio) for name, ratio in self.metric_ratios().items()},
            "tolerance": {
                "max_difference": allowed.max_difference,
                "percentile_999": allowed.percentile_999,
                "metric": allowed.metric,
            },
            "samples": self.samples,
            "inputs": self.inputs,
            "provider": self.provider,
            "torch": self.torch,
        }


@dataclass(frozen=True, slots=True)
class Reference:
    """What torch answers: the batches, its outputs for each, and its figures of the task."""

    batches: tuple[Feeds, ...]
    answers: tuple[Mapping[str, Array], ...]
    metrics: Mapping[str, float]
    inputs: str
    torch: str
    task_metric: Callable[[Run], Mapping[str, float]]


def measure_reference(module: nn.Module, network: Network) -> Reference:
    """Run torch on real inputs, or near the example where the network has no others.

    Parameters
    ----------
    module : in evaluation mode, on the CPU.
    network : may have `parity_inputs` and `task_metric`; see `MeasuredNetwork`.
    """
    import torch

    def run(feeds: Feeds) -> dict[str, Array]:
        with torch.inference_mode():
            answer = module(
                *(torch.from_numpy(np.ascontiguousarray(feeds[name])) for name in network.input_names)
            )
        tensors = answer if isinstance(answer, tuple | list) else (answer,)
        return {name: each.numpy() for name, each in zip(network.output_names, tensors, strict=True)}

    parity_inputs: Callable[[], Sequence[Feeds]] | None = getattr(network, "parity_inputs", None)
    task_metric: Callable[[Run], Mapping[str, float]] = getattr(network, "task_metric", lambda _run: {})
    batches = _near_example(network) if parity_inputs is None else tuple(parity_inputs())
    answers = tuple(run(batch) for batch in batches)
    inputs = NEAR_EXAMPLE if parity_inputs is None else REAL
    return Reference(batches, answers, dict(task_metric(run)), inputs, torch.__version__, task_metric)


def measure_parity(reference: Reference, session: Session, precision: str) -> Parity:
    """Run a file on what torch ran on.

    Parameters
    ----------
    session : of the file.
    precision : a key of `TOLERANCES`.
    """
    answers = [session.run(batch) for batch in reference.batches]
    names = tuple(reference.answers[0])
    return Parity(
        precision=precision,
        outputs={
            name: _difference(
                [answer[name] for answer in reference.answers], [answer[name] for answer in answers]
            )
            for name in names
        },
        metrics=dict(reference.task_metric(session.run)),
        torch_metrics=reference.metrics,
        samples=sum(len(next(iter(batch.values()))) for batch in reference.batches),
        inputs=reference.inputs,
        provider=session.provider,
        torch=reference.torch,
    )


def _difference(expected: Sequence[Array], found: Sequence[Array]) -> Difference:
    pairs = zip(expected, found, strict=True)
    apart = np.concatenate([np.abs(_wide(theirs) - _wide(ours)).ravel() for theirs, ours in pairs])
    scale = max(1.0, *(float(np.abs(_wide(each)).max()) for each in expected))
    return Difference(float(apart.max()), float(np.percentile(apart, 99.9)), scale)


def _wide(values: Array) -> Array:
    return values.astype(np.float64)


def _near_example(network: Network) -> tuple[Feeds, ...]:
    """Batches of several sizes; whole numbers stay as they are."""
    random = np.random.default_rng(0)
    example = {
        name: tensor.numpy()
        for name, tensor in zip(network.input_names, network.example_inputs(), strict=True)
    }
    return tuple(
        {name: _vary(array, batch, random) for name, array in example.items()}
        for batch in BATCHES
        for _ in range(SAMPLES_PER_BATCH)
    )


def _vary(array: Array, batch: int, random: np.random.Generator) -> Array:
    many = np.repeat(array[:1], batch, axis=0)
    if not np.issubdtype(many.dtype, np.floating):
        return many
    return (many + _SPREAD * random.standard_normal(many.shape)).astype(many.dtype)


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _worst(values: Any) -> float | None:
    held = list(values)
    return None if None in held else max(held)
