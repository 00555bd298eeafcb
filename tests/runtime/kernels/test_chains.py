from __future__ import annotations

import numpy as np
import pytest

from trocar.runtime.errors import InvalidInput
from trocar.runtime.kernels import cuda, devices
from trocar.runtime.kernels.anneal import SearchGoal, SearchRules, SiteGrid, annealer
from trocar.runtime.kernels.chains import Chains

SCHEDULES = ("emulated-forward", "emulated-backward", "emulated-shuffled")
COLUMNS, ROWS, PLANES = 5, 4, 6
RULES = SearchRules(2, True, frozenset({"row3", "tee", "block2x2"}), max_needles=9)
SLICES = [(300, 2.0, 0.3), (200, 0.3, 0.05)]  # 300 is no multiple of 256
SEED = 11
ACCEPTED = 5  # the word of a chain's state that counts accepted moves

# Chains in blocks of threads are a GPU's alone; the CPU's chain is what they are held against.
pytestmark = pytest.mark.parametrize("backend", ["cuda", *SCHEDULES], indirect=True)


class HostQueue:
    """Stands in for a GPU's stream where the kernels are emulated: arrays stay where they are."""

    device, handle = 0, 0

    def empty(self, shape, dtype):
        return np.full(shape, 77, dtype)

    def put(self, host):
        return host.copy()

    def get(self, array):
        return array.copy()

    def copy(self, src, out):
        out[...] = src

    def synchronize(self):
        pass


@pytest.fixture
def gpu(backend, monkeypatch):
    """A GPU, or its emulation."""
    if backend.queue is None:
        monkeypatch.setattr(cuda, "Stream", HostQueue)
    return backend


def problem(points: int = 208, seed: int = 0):
    """A box of tissue with four strata (one of them empty) and goals that share terms."""
    random = np.random.default_rng(seed)
    hole, plane = (a.ravel().astype(np.int32) for a in np.mgrid[0 : COLUMNS * ROWS, 0:PLANES])
    keep = random.random(len(hole)) < 0.9  # not every site is a candidate
    hole, plane = hole[keep], plane[keep]
    centres = np.stack([hole % COLUMNS, hole // COLUMNS, plane], axis=1).astype(np.float64)
    at = random.uniform(-0.5, [COLUMNS - 0.5, ROWS - 0.5, PLANES - 0.5], size=(points, 3))
    squared = ((centres[:, None] - at[None]) ** 2).sum(axis=2)
    matrix = (0.35 / np.maximum(squared, 0.1)).astype(np.float32)
    starts = np.array([0, points - 48, points - 48, points - 16, points], np.int32)
    point_cc = np.array([0.1, 0.3, 0.05, 0.07], np.float32)
    goals = [
        SearchGoal(0b0111, True, 1.0, 18.0, 4.0, 0.5),
        SearchGoal(0b0101, False, 2.0, 4.0, 1.0),
        SearchGoal(0b1100, False, 1.0, 0.2, 8.0, 0.1),
        SearchGoal(0b0001, True, 1.0, 12.0, 2.0, 0.0),
    ]
    return matrix, SiteGrid(COLUMNS, ROWS, PLANES, hole, plane), starts, point_cc, goals


def chain_of(problem, stream: int = 0):
    matrix, sites, starts, point_cc, goals = problem
    return annealer(
        matrix,
        sites,
        starts,
        point_cc,
        goals,
        RULES,
        needle_cost=0.1,
        seed_cost=np.linspace(0.0, 0.04, len(matrix), dtype=np.float32),
        seed=SEED,
        stream=stream,
    )


@pytest.mark.usefixtures("gpu")
def test_a_chain_is_the_cpus_chain_bit_for_bit():
    """Every second chain begins with a plan; the slices go on where the last one ended."""
    case = problem()
    order = [int(c) for c in np.random.default_rng(5).permutation(len(case[0]))]
    begun = [chain_of(case), chain_of(case)]
    assert begun[1].add_if_better(order) > 3
    chains = Chains(begun, case[0], seed=SEED, count=3)
    for moves in SLICES:
        chains.run(*moves)
    costs, plans = chains.best()
    for stream in range(3):
        expected = chain_of(case, stream)
        if stream % 2:
            expected.add_if_better(order)
        for moves in SLICES:
            expected.run(*moves)
        assert plans[stream] == tuple(expected.best())
        assert costs[stream].tobytes() == np.float64(expected.best_cost).tobytes()
        assert expected.best_cost < 0.7 * begun[0].cost  # it has found something
    assert len({frozenset(plan) for plan in plans}) == 3


def test_the_dose_is_added_up_anew_as_on_the_cpu(gpu):
    """Hot enough that most moves pass, far enough that 4096 have."""
    if gpu.name not in ("cuda", "emulated-forward"):
        pytest.skip("long; once is enough")
    case = problem(points=64)
    chains, expected = Chains([chain_of(case)], case[0], seed=SEED, count=1), chain_of(case)
    chains.run(5500, 1e6, 1e6)
    assert expected.run(5500, 1e6, 1e6) > 4096 + 100
    # What the hot run left behind decides every move of the cold one.
    chains.run(600, 0.5, 0.01)
    expected.run(600, 0.5, 0.01)
    costs, plans = chains.best()
    assert plans[0] == tuple(expected.best())
    assert costs[0] == expected.best_cost
    assert gpu.get(chains._dose)[0].tobytes() == np.array(expected.dose(), np.float32).tobytes()


def test_moves_that_no_proposal_fills(gpu):
    """With its only site taken, a chain can but remove the seed: now and then 64 proposals run dry."""
    if gpu.name not in ("cuda", "emulated-forward"):
        pytest.skip("long; once is enough")
    matrix, _, _, point_cc, _ = problem(points=16)
    one = SiteGrid(1, 1, 1, np.zeros(1, np.int32), np.zeros(1, np.int32))
    goals = [SearchGoal(0b0001, True, float(matrix[0].min()) / 2, 1.0, 4.0)]
    case = matrix[:1], one, np.array([0, 16], np.int32), point_cc[:1], goals
    chains, expected = Chains([chain_of(case)], case[0], seed=SEED, count=1), chain_of(case)
    chains.run(3000, 0.5, 0.5)
    accepted = expected.run(3000, 0.5, 0.5)
    assert 0 < accepted < 3000
    assert gpu.get(chains._state)[0, ACCEPTED] == accepted
    assert chains.best()[1][0] == tuple(expected.best()) == (0,)
    assert gpu.get(chains._dose)[0].tobytes() == np.array(expected.dose(), np.float32).tobytes()


@pytest.mark.usefixtures("gpu")
def test_as_many_chains_as_the_device_runs_at_once():
    case = problem(points=64)
    costs, plans = Chains([chain_of(case)], case[0], seed=SEED).best()
    assert len(costs) == len(plans) > 1
    assert set(costs) == {chain_of(case).cost}
    assert set(plans) == {()}


@pytest.mark.usefixtures("gpu")
def test_no_candidates_no_moves():
    case = list(problem(points=64))
    case[0] = case[0][:0]
    case[1] = SiteGrid(COLUMNS, ROWS, PLANES, case[1].hole[:0], case[1].plane[:0])
    chains = Chains([chain_of(case)], case[0], seed=SEED, count=2)
    chains.run(100, 1.0, 0.1)
    costs, plans = chains.best()
    assert plans == [(), ()]
    assert costs[0] == chain_of(case).cost


@pytest.mark.usefixtures("gpu")
def test_more_than_a_block_can_hold_is_refused():
    case = problem(points=16 * 3000)
    chains = Chains([chain_of(case)], case[0], seed=SEED, count=1)
    with pytest.raises(InvalidInput, match="bytes of shared memory"):
        chains.run(10, 1.0, 0.1)


@pytest.mark.usefixtures("gpu")
def test_too_many_candidates_are_refused():
    case = problem(points=64)
    with pytest.raises(InvalidInput, match="at most 32767 candidates, got 32768"):
        Chains([chain_of(case)], np.zeros((32768, 64), np.float32), seed=0, count=1)


CHANGES = {
    "matrix": lambda a: a[:, :48],
    "tables": lambda a: a[:-1],
    "dose": lambda a: a.astype(np.float64),
    "seeds": lambda a: a.astype(np.int32),
    "best": lambda a: a[:1],
    "state": lambda a: a[:, :6].copy(),
    "temperatures": lambda a: a[:1],
    "header": lambda b: b[:-1],
    "moves": lambda _: -1,
}


def advance(gpu, case, **changed):
    """One launch of two chains with arrays of one's own; those in `changed` go as they are."""
    header, tables = chain_of(case).packed()
    count, candidates = 2, len(case[0])
    host = {
        "matrix": case[0],
        "tables": np.frombuffer(tables, np.int32),
        "dose": np.zeros((count, 64), np.float32),
        "seeds": np.zeros((count, candidates), np.int16),
        "best": np.zeros((count, candidates), np.int16),
        "state": np.zeros((count, 7), np.uint64),
        "temperatures": np.ones(2),
    }
    arguments = {"header": header, "moves": 300, **host} | changed
    put = {
        key: gpu.put(np.ascontiguousarray(array))
        for key, array in arguments.items()
        if isinstance(array, np.ndarray) and key not in changed
    }
    devices.module("cuda").advance_chains(**arguments | put, stream=gpu.stream or 0)
    return arguments | put


def test_arrays_that_fit_are_taken(gpu):
    assert gpu.get(advance(gpu, problem(points=64))["state"])[:, ACCEPTED].min() > 0


@pytest.mark.parametrize("name", CHANGES)
def test_arrays_that_do_not_fit_are_refused_by_name(gpu, name):
    case = problem(points=64)
    fitting = advance(gpu, case)[name]
    wrong = CHANGES[name](fitting if isinstance(fitting, bytes | int) else gpu.get(fitting))
    if isinstance(wrong, np.ndarray):
        wrong = gpu.put(np.ascontiguousarray(wrong))
    with pytest.raises(InvalidInput, match=f"^{name}: expected"):
        advance(gpu, case, **{name: wrong})


def test_a_matrix_that_cannot_be_read_in_quads_is_refused(gpu):
    if gpu.name == "cuda":
        pytest.skip("what a GPU allocates is aligned")
    case = problem(points=64)
    matrix = np.zeros(case[0].size + 1, np.float32)[1:].reshape(case[0].shape)
    matrix[...] = case[0]
    with pytest.raises(InvalidInput, match="matrix: expected memory aligned to 16 bytes"):
        advance(gpu, case, matrix=matrix)


def test_outputs_apart_from_inputs(gpu):
    case = problem(points=64)
    header, tables = chain_of(case).packed()
    shared = gpu.put(np.zeros((len(case[0]), 64), np.float32))
    arrays = [
        np.frombuffer(tables, np.int32),
        shared,
        np.zeros((len(case[0]), len(case[0])), np.int16),
        np.zeros((len(case[0]), len(case[0])), np.int16),
        np.zeros((len(case[0]), 7), np.uint64),
        np.ones(1),
    ]
    put = [array if array is shared else gpu.put(array.copy()) for array in arrays]
    with pytest.raises(InvalidInput, match="dose: expected memory apart from matrix"):
        devices.module("cuda").advance_chains(header, shared, *put, 10, gpu.stream or 0)
