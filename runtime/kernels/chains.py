"""Many annealing chains at once on a GPU, one block of threads each: the front of the native kernel.

Chain i draws, adds and decides as a CPU chain (`trocar.runtime.kernels.anneal`) of the same seed and
stream i: the same moves give the same plan. docs/annealing.md has the layout and what limits it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from trocar.runtime.errors import InvalidInput
from trocar.runtime.kernels import _native, cuda, devices
from trocar.runtime.kernels.anneal import Annealer

# As `State` in csrc/chains.h.
_STATE = np.dtype(
    [
        ("random_state", np.uint64),
        ("random_increment", np.uint64),
        ("cost", np.float64),
        ("best_cost", np.float64),
        ("seeds_cost", np.float64),
        ("accepted", np.int64),
        ("count", np.int32),
        ("best_count", np.int32),
    ]
)
_MAX_CANDIDATES = np.iinfo(np.int16).max


class Chains:
    """Chains of one problem on a GPU. Their memory is taken once; slices of one length take none.

    Parameters
    ----------
    begun : chains of the CPU where these begin: chain i begins as `begun[i % len(begun)]`, none of which has
        moved yet.
    matrix : (candidates, points) float32, as `begun` have it.
    seed : chain i draws as `annealer(..., seed=seed, stream=i)`.
    count : how many chains; as many as the GPU runs at once where it is None.

    Raises
    ------
    InvalidInput
        More candidates than 32767, or more points than a block has memory for.
    DeviceError
        No such GPU, or no memory left on it.
    """

    def __init__(
        self,
        begun: Sequence[Annealer],
        matrix: npt.NDArray[np.float32],
        *,
        seed: int,
        count: int | None = None,
    ) -> None:
        if len(matrix) > _MAX_CANDIDATES:
            raise InvalidInput(f"expected at most {_MAX_CANDIDATES} candidates, got {len(matrix)}")
        self._native: Any = devices.module("cuda")
        self._queue = cuda.Stream()
        self._header, tables = begun[0].packed()
        if count is None:
            count = int(self._native.resident_chains(self._header, self._queue.device))
        self.count = count
        of = np.arange(count) % len(begun)
        self._matrix = self._queue.put(matrix)
        self._tables = self._queue.put(np.frombuffer(tables, np.int32))
        self._dose = self._queue.put(np.array([chain.dose() for chain in begun], np.float32)[of])
        self._seeds = self._queue.put(_chosen([chain.plan() for chain in begun], len(matrix))[of])
        self._best = self._queue.put(_chosen([chain.best() for chain in begun], len(matrix))[of])
        self._state = self._queue.put(_first_states(begun, of, seed).view(np.uint64).reshape(count, -1))
        self._temperatures = self._queue.empty((0,), np.float64)

    def run(self, moves: int, t_start: float, t_end: float) -> None:
        """Evaluate `moves` moves a chain while the temperature falls geometrically; returns when done."""
        temperatures = np.array(_native.temperatures(moves, t_start, t_end))
        if self._temperatures.shape != temperatures.shape:
            self._temperatures = self._queue.empty(temperatures.shape, temperatures.dtype)
        self._queue.copy(temperatures, self._temperatures)
        self._native.advance_chains(
            self._header,
            self._matrix,
            self._tables,
            self._dose,
            self._seeds,
            self._best,
            self._state,
            self._temperatures,
            moves,
            self._queue.handle,
        )
        self._queue.synchronize()

    def best(self) -> tuple[npt.NDArray[np.float64], list[tuple[int, ...]]]:
        """The cost (chains,) of each chain's best plan, and the candidates it chose."""
        states = self._queue.get(self._state).view(_STATE)[:, 0]
        plans = [
            tuple(int(c) for c in chosen[:count])
            for chosen, count in zip(self._queue.get(self._best), states["best_count"], strict=True)
        ]
        return states["best_cost"].copy(), plans


def _first_states(begun: Sequence[Annealer], of: npt.NDArray[np.int64], seed: int) -> npt.NDArray[np.void]:
    """(chains,) states before the first move."""
    states = np.zeros(len(begun), _STATE)
    for state, chain in zip(states, begun, strict=True):
        state["cost"], state["best_cost"] = chain.cost, chain.best_cost
        state["seeds_cost"] = chain.seeds_cost
        state["count"], state["best_count"] = len(chain.plan()), len(chain.best())
    states = states[of]
    for stream, state in enumerate(states):
        state["random_state"], state["random_increment"] = _native.random_state(seed, stream)
    return states


def _chosen(plans: Sequence[Sequence[int]], candidates: int) -> npt.NDArray[np.int16]:
    """(plans, candidates): the candidates chosen, then zeros."""
    chosen = np.zeros((len(plans), candidates), np.int16)
    for row, plan in zip(chosen, plans, strict=True):
        row[: len(plan)] = plan
    return chosen
