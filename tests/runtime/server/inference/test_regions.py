"""Shared memory: found by plain names alone, and outlived."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from trocar.runtime.errors import InvalidInput
from trocar.runtime.server.inference.posix import FOLDER, PosixRegion
from trocar.runtime.server.inference.regions import Regions
from trocar.runtime.server.inference.span import Span

PAGE = os.sysconf("SC_PAGESIZE")
KEY = f"/trocar_test_{os.getpid()}"
PLACE = FOLDER / KEY[1:]


@pytest.fixture
def regions() -> Iterator[Regions]:
    PLACE.write_bytes(bytes(range(256)) * 64)  # 16 KiB
    yield Regions()
    PLACE.unlink(missing_ok=True)


def _view(regions: Regions, offset: int, size: int) -> np.ndarray:
    return regions.get("r").view(Span("r", offset, size), "uint8", (size,), "input x")


def test_reads_and_writes_in_place(regions: Regions) -> None:
    regions.register("r", KEY, 16, 1024)
    array = _view(regions, 4, 8)
    assert array.tolist() == list(range(20, 28))
    array[:] = 7
    assert PLACE.read_bytes()[20:28] == b"\7" * 8


@pytest.mark.parametrize(
    "key",
    [
        "",
        "/",
        "//x",
        "/a/b",
        "..",
        "/..",
        "/../etc/passwd",
        ".hidden",
        "a\0b",
        "/" + "x" * 300,
        "/a b",
        "/nope",
    ],
)
def test_a_key_stays_in_its_name_space(regions: Regions, key: str) -> None:
    with pytest.raises(InvalidInput, match="region 'r'"):
        regions.register("r", key, 0, 16)


def test_no_link_no_folder_no_pipe(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(64))
    (tmp_path / "link").symlink_to(tmp_path / "secret")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    there = Regions(folder=tmp_path)
    there.register("plain", "secret", 0, 64)
    for key in ("link", "folder", "pipe"):
        with pytest.raises(InvalidInput, match=f"{key}"):
            there.register("r", key, 0, 64)


@pytest.mark.usefixtures("regions")
def test_a_prefix_and_off() -> None:
    Regions(prefix="trocar_").register("r", KEY, 0, 16)
    with pytest.raises(InvalidInput, match="begins with 'or_'"):
        Regions(prefix="or_").register("r", KEY, 0, 16)
    with pytest.raises(InvalidInput, match="shared memory is off"):
        Regions(enabled=False).register("r", KEY, 0, 16)


def test_sizes_and_names(regions: Regions) -> None:
    size = PLACE.stat().st_size
    for offset, length in ((0, size + 1), (size, 1), (2**63, 2**63), (0, 0)):
        with pytest.raises(InvalidInput, match="expected"):
            regions.register("r", KEY, offset, length)
    regions.register("r", KEY, 0, size)
    with pytest.raises(InvalidInput, match="registered already"):
        regions.register("r", KEY, 0, 1)
    for offset, length in ((0, size + 1), (size, 1), (-1, 4)):
        with pytest.raises(InvalidInput, match=f"within the {size} of region 'r'"):
            _view(regions, offset, length)
    with pytest.raises(InvalidInput, match="expected a registered region of r, got 'q'"):
        regions.get("q")
    regions.unregister(PosixRegion, "r")
    with pytest.raises(InvalidInput, match="expected a region in POSIX shared memory, of none, got 'r'"):
        regions.unregister(PosixRegion, "r")


def test_an_object_that_shrank_is_refused(regions: Regions) -> None:
    regions.register("r", KEY, 0, 4 * PAGE)
    os.truncate(PLACE, PAGE)
    with pytest.raises(InvalidInput, match=f"expected {4 * PAGE} bytes in '{KEY}' as registered, got {PAGE}"):
        _view(regions, 0, 4 * PAGE)
    assert _view(regions, 0, 16).tolist() == list(range(16))


def test_an_object_that_shrinks_in_use_costs_no_more_than_its_answer(regions: Regions) -> None:
    """Without the guard this test would end with SIGBUS, and the whole run with it."""
    regions.register("r", KEY, 0, 4 * PAGE)
    array = _view(regions, 0, 4 * PAGE)
    os.truncate(PLACE, PAGE)
    assert array[PAGE:].sum() == 0
    array[3 * PAGE] = 9
    os.truncate(PLACE, 4 * PAGE)  # whole again, but what was read in between is not what the client wrote
    with pytest.raises(InvalidInput, match="pages that were gone for a while"):
        regions.get("r").require_whole()
    regions.drop(regions.get("r"))
    regions.register("r", KEY, 0, 4 * PAGE)
    regions.get("r").require_whole()


def test_what_is_in_use_outlives_its_registration_and_its_object(regions: Regions) -> None:
    regions.register("r", KEY, 0, PAGE)
    held = regions.get("r")
    array = _view(regions, 0, PAGE)
    regions.unregister(PosixRegion)
    PLACE.unlink()
    array[0] = 3
    held.require_whole()
    assert array[:2].tolist() == [3, 1]


def test_nothing_stays_open(regions: Regions) -> None:
    def opened() -> int:
        return sum(
            KEY[1:] in os.readlink(entry) for entry in Path("/proc/self/fd").iterdir() if entry.exists()
        )

    regions.register("held", KEY, 0, PAGE)
    assert opened() > 0
    regions.unregister(PosixRegion, "held")
    for _ in range(1200):  # more than there are guards
        regions.register("r", KEY, 0, PAGE)
        _view(regions, 0, 16)
        regions.unregister(PosixRegion, "r")
    gc.collect()
    assert opened() == 0
    assert KEY[1:] not in Path("/proc/self/maps").read_text()
