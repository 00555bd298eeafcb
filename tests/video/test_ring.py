"""Frame memory: holders, two views of one memory, and nothing left behind."""

from __future__ import annotations

import gc
import os
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trocar.runtime.errors import InvalidInput
from trocar.video.pipeline import Rings
from trocar.video.ring import MAX_SIDE_PX, Geometry, Ring


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_a_slot_is_free_again_when_its_last_holder_lets_go() -> None:
    ring = Ring.create(1, 4, 6)
    slot = ring.acquire()
    assert slot is not None
    slot.retain()
    slot.release()
    assert ring.acquire() is None
    slot.release()
    assert ring.acquire() is not None


def test_a_free_slot_has_no_holders_to_add_or_take_away() -> None:
    slot = Ring.create(1, 4, 6).acquire()
    assert slot is not None
    slot.release()
    with pytest.raises(ValueError, match="is free"):
        slot.release()
    with pytest.raises(ValueError, match="is free"):
        slot.retain()


def test_the_other_side_sees_what_was_written() -> None:
    ring = Ring.create(3, 5, 7)
    first, second = ring.acquire(), ring.acquire()
    assert first is not None
    assert second is not None
    second.image_bgr[...] = 9
    second.labels[...] = 3
    first.image_bgr[...] = 1
    other = Ring(os.dup(ring.descriptor), ring.geometry)
    assert np.all(other.slot(second.index).image_bgr == 9)
    assert np.all(other.slot(second.index).labels == 3)
    other.slot(first.index).labels[...] = 4
    assert np.all(first.labels == 4)
    assert np.all(first.image_bgr == 1)


def test_a_waiting_thread_gets_the_slot_that_comes_free() -> None:
    ring = Ring.create(1, 2, 2)
    slot = ring.acquire()
    assert slot is not None
    threading.Timer(0.02, slot.release).start()
    assert ring.acquire(timeout_s=10) is not None


def test_memory_of_a_size_no_longer_in_use_goes_without_the_collector() -> None:
    before = descriptors()
    gc.disable()
    try:
        rings = Rings(9)
        for turn in range(200):
            slot = rings.slot(*((64, 64) if turn % 2 else (64, 96)))
            assert slot is not None
            slot.release()
        assert descriptors() <= before + 2
    finally:
        gc.enable()


def test_a_frame_of_a_size_before_keeps_its_memory_while_it_is_held() -> None:
    rings = Rings(2)
    old = rings.slot(2, 2)
    assert old is not None
    old.image_bgr[...] = 7
    for size in range(3, 9):
        rings.slot(size, size)
    assert np.all(old.image_bgr == 7)
    old.release()


@given(st.integers(1, 9), st.integers(1, 300), st.integers(1, 300))
def test_slots_do_not_overlap_and_begin_on_pages(slots: int, height: int, width: int) -> None:
    geometry = Geometry(slots, height, width)
    assert geometry.slot_bytes % 4096 == 0
    assert geometry.slot_bytes >= 4 * height * width
    assert geometry.total_bytes == slots * geometry.slot_bytes


@pytest.mark.parametrize("size", [(0, 4), (4, 0), (-1, 4), (4, MAX_SIDE_PX + 1)])
def test_sizes_without_pixels_or_with_too_many_are_refused(size: tuple[int, int]) -> None:
    with pytest.raises(InvalidInput, match="pixels a side"):
        Geometry(1, *size)
