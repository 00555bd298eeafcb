from __future__ import annotations

import numpy as np

from trocar.video.frames import Quality
from trocar.video.privacy import PrivacyGuard, PrivacySettings, coarsen

INSIDE, OUTSIDE, BETWEEN = Quality(), Quality(out_of_body=0.9), Quality(out_of_body=0.4)


def picture(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (90, 160, 3), dtype=np.uint8)


def guarded(guard: PrivacyGuard, quality: Quality) -> bool:
    image = picture()
    said = guard.guard(image, quality)
    assert said == (not np.array_equal(image, picture()))
    return said


def test_one_frame_from_outside_begins_and_a_second_from_inside_ends_it() -> None:
    guard = PrivacyGuard(PrivacySettings(inside_for=3))
    seen = [INSIDE, OUTSIDE, INSIDE, INSIDE, INSIDE, INSIDE]
    assert [guarded(guard, one) for one in seen] == [False, True, True, True, False, False]
    assert guard.blurred == 3


def test_doubt_keeps_it_blurred() -> None:
    guard = PrivacyGuard(PrivacySettings(inside_for=2))
    seen = [OUTSIDE, INSIDE, BETWEEN, INSIDE, INSIDE, INSIDE]
    assert [guarded(guard, one) for one in seen] == [True, True, True, True, False, False]


def test_it_can_be_turned_off() -> None:
    guard = PrivacyGuard(PrivacySettings(blur_out_of_body=False))
    assert not guarded(guard, OUTSIDE)


def test_what_is_left_has_a_dozen_columns_of_detail() -> None:
    image = picture()
    coarsen(image)
    # Neighbouring pixels differ by little: nothing of the noise is left.
    assert np.abs(np.diff(image.astype(int), axis=1)).max() < 30


def test_pictures_of_any_size() -> None:
    for shape in [(1, 1, 3), (2, 5, 3), (7, 1, 3), (1, 300, 3)]:
        coarsen(np.zeros(shape, np.uint8))
