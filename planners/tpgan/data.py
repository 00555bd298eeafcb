"""Examples as files and as arrays: one `.npz` a case, written whole or not at all, never pickled."""

from __future__ import annotations

import hashlib
import io
import multiprocessing
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trocar.planners.dose.engine import DoseEngine
from trocar.planners.dose.source import SourceModel
from trocar.planners.expert import OFF_BOARD_COST, OFF_STAGGER_COST, Example, expert_example
from trocar.planners.features import CHANNELS, SIDE
from trocar.planners.phantom import phantom_case
from trocar.planners.protocol import Protocol
from trocar.planners.types import Float32Array, require
from trocar.runtime.errors import InvalidInput
from trocar.runtime.files import write_file

FORMAT = 1
MAX_EXAMPLE_BYTES = 8 << 20
# Training phantoms begin here, far from the small numbers that people and benchmarks use.
FIRST_PHANTOM = 100_000_000
PHANTOMS_PER_SEED = 100_000
MAX_SEED = 40_000
_CHUNK = 4  # cases a worker makes before it reports

Report = Callable[[int, int], None]
_FIELDS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "features": (np.float32, (len(CHANNELS), SIDE, SIDE, SIDE)),
    "seeds": (np.uint8, (SIDE, SIDE, SIDE)),
    "strength": (np.float64, ()),
    "cost": (np.float64, ()),
}


@dataclass(frozen=True, slots=True)
class Dataset:
    """Examples as arrays: (n, 8, 16, 16, 16), (n, 16, 16, 16), (n,) U/Gy, and the seed's dose kernel.

    `kernel_gy_u` is (31, 31, 31), dose in Gy per U at lattice offsets.
    """

    names: tuple[str, ...]
    features: Float32Array
    seeds: npt.NDArray[np.uint8]
    strength: Float32Array
    kernel_gy_u: Float32Array

    def split(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Cases to train on and cases to validate on: two of every twenty, whatever the number of cases.

        With fewer than ten cases the last one is kept back; a lone case is both.
        """
        index = np.arange(len(self.names))
        held = np.isin(index % 20, (9, 18))
        if not held.any():
            held[-1] = True
        return (index if len(index) == 1 else index[~held]), index[held]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How expert plans are made.

    Every other case draws its seed strength from `strength_u` / spread to `strength_u` x spread, so
    that the network learns what its strength channel means.
    """

    protocol: Protocol
    source: SourceModel
    strength_u: float
    moves: int
    strength_spread: float = 1.25

    def folder_name(self) -> str:
        """A name that changes with anything that changes the examples."""
        source = {name: np.asarray(getattr(self.source, name)).tolist() for name in self.source.__slots__}
        facts = (
            FORMAT,
            CHANNELS,
            repr(self.protocol),
            source,
            self.strength_u,
            self.moves,
            self.strength_spread,
            (OFF_BOARD_COST, OFF_STAGGER_COST),
        )
        return f"expert-{hashlib.sha256(repr(facts).encode()).hexdigest()[:16]}"

    def strength_of(self, phantom: int) -> float:
        """Seed strength of a phantom's plan, U."""
        if phantom % 2 == 0 or self.strength_spread == 1.0:
            return self.strength_u
        turn = float(np.random.default_rng([FORMAT, phantom]).uniform(-1.0, 1.0))
        low, high = self.protocol.strength_range_u
        return float(np.clip(self.strength_u * self.strength_spread**turn, low, high))


def training_phantoms(seed: int, cases: int) -> range:
    """The phantoms of a training set; sets of different seeds share none."""
    require(0 <= seed <= MAX_SEED, f"expected a training seed from 0 to {MAX_SEED}, got {seed}")
    require(1 <= cases <= PHANTOMS_PER_SEED, f"expected 1 to {PHANTOMS_PER_SEED} cases, got {cases}")
    first = FIRST_PHANTOM + seed * PHANTOMS_PER_SEED
    return range(first, first + cases)


def write_example(path: Path, example: Example) -> None:
    """Write one example; the file appears whole."""
    arrays: dict[str, Any] = {
        name: np.asarray(getattr(example, name), dtype) for name, (dtype, _) in _FIELDS.items()
    }
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_file(path, buffer.getvalue())


def read_example(path: Path) -> Example:
    """Read one example.

    Raises
    ------
    InvalidInput
        Not such a file, or arrays of another kind.
    """
    try:
        require(path.stat().st_size <= MAX_EXAMPLE_BYTES, f"example {path.name}: too large to be one")
        with zipfile.ZipFile(path) as archive:
            sizes = sum(entry.file_size for entry in archive.infolist())
        require(sizes <= MAX_EXAMPLE_BYTES, f"example {path.name}: unpacks to more than an example holds")
        with np.load(path, allow_pickle=False) as arrays:
            held = {name: arrays[name] for name in _FIELDS}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InvalidInput(f"example {path.name}: expected the arrays of one case ({error})") from None
    for name, (dtype, shape) in _FIELDS.items():
        array = held[name]
        require(
            array.dtype == dtype and array.shape == shape,
            f"example {path.name}: {name}: expected {np.dtype(dtype)} {shape}, "
            f"got {array.dtype} {array.shape}",
        )
        require(bool(np.isfinite(array).all()), f"example {path.name}: {name}: expected finite values")
    return Example(held["features"], held["seeds"], float(held["strength"]), float(held["cost"]))


def expert_files(
    recipe: Recipe, phantoms: Sequence[int], folder: Path, *, workers: int = 1, report: Report | None = None
) -> list[Path]:
    """Make what is missing of the phantoms' examples, and return all their files.

    A phantom that cannot be planned (too wide for the template) has none.

    Parameters
    ----------
    folder : the cache; a run that was killed goes on where it was.
    workers : processes.
    report : called with the number done and the number wanted.
    """
    folder = folder / recipe.folder_name()
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"phantom-{phantom}.npz" for phantom in phantoms]
    missing = [phantom for phantom, path in zip(phantoms, paths, strict=True) if not _usable(path)]
    done = len(paths) - len(missing)
    chunks = [missing[i : i + _CHUNK] for i in range(0, len(missing), _CHUNK)]
    for made in _made(recipe, chunks, folder, workers):
        done += made
        if report is not None:
            report(done, len(paths))
    return [path for path in paths if path.exists()]


def load_dataset(files: Sequence[Path], kernel_gy_u: Float32Array) -> Dataset:
    """Read examples into arrays."""
    require(len(files) > 0, "expected at least one example to train on, got none")
    examples = [read_example(path) for path in files]
    return dataset_of([path.stem for path in files], examples, kernel_gy_u)


def dataset_of(names: Sequence[str], examples: Sequence[Example], kernel_gy_u: Float32Array) -> Dataset:
    """Gather examples into arrays."""
    return Dataset(
        tuple(names),
        np.stack([example.features for example in examples]),
        np.stack([example.seeds for example in examples]),
        np.array([example.strength for example in examples], dtype=np.float32),
        np.asarray(kernel_gy_u, dtype=np.float32),
    )


def _usable(path: Path) -> bool:
    if not path.exists():
        return False
    try:
        read_example(path)
    except InvalidInput:
        return False
    return True


def _made(recipe: Recipe, chunks: Sequence[Sequence[int]], folder: Path, workers: int) -> Iterator[int]:
    if workers <= 1 or len(chunks) <= 1:
        for chunk in chunks:
            yield _make(recipe, chunk, folder)
        return
    # Spawned, not forked: the parent may hold threads of torch or of the native kernels.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(workers, len(chunks)), mp_context=context)
    try:
        for future in as_completed([pool.submit(_make, recipe, chunk, folder) for chunk in chunks]):
            yield future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _make(recipe: Recipe, phantoms: Sequence[int], folder: Path) -> int:
    engine = DoseEngine(recipe.source)
    for phantom in phantoms:
        try:
            example = expert_example(
                phantom_case(phantom),
                recipe.protocol,
                engine,
                strength_u=recipe.strength_of(phantom),
                moves=recipe.moves,
                seed=phantom,
            )
        except InvalidInput:
            continue
        write_example(folder / f"phantom-{phantom}.npz", example)
    return len(phantoms)
