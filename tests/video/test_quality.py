from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from trocar.video.frames import Quality
from trocar.video.quality import Inspector, inspect, mark_view


def scene(seed: int = 0, size: tuple[int, int] = (360, 640)) -> np.ndarray:
    """Red tissue with texture at several scales, and a few highlights."""
    random = np.random.default_rng(seed)
    texture = sum(
        cv2.resize(
            random.normal(size=(size[0] // k, size[1] // k)), size[::-1], interpolation=cv2.INTER_CUBIC
        )
        for k in (1, 2, 4, 8, 16)
    )
    base = np.array([60, 70, 160], float)
    image = base * (1 + 0.12 * texture[..., None])
    for _ in range(20):
        x, y = int(random.integers(size[1])), int(random.integers(size[0]))
        cv2.circle(image, (x, y), 3, (255, 255, 255), -1)
    return np.clip(image, 0, 255).astype(np.uint8)


def veiled(image: np.ndarray, share: float) -> np.ndarray:
    return (image * (1 - share) + 200 * share).astype(np.uint8)


def test_smoke_rises_with_a_veil_and_blur_does_not() -> None:
    image = scene()
    found = [inspect(veiled(image, share)) for share in (0.0, 0.2, 0.4, 0.6, 0.8)]
    smoke = [one.smoke for one in found]
    assert smoke == sorted(smoke)
    assert smoke[-1] - smoke[0] > 0.5
    assert max(one.blur for one in found) - found[0].blur < 0.1


def test_blur_rises_with_defocus_and_smoke_does_not() -> None:
    image = scene()
    found = [inspect(cv2.GaussianBlur(image, (0, 0), sigma)) for sigma in (0.5, 2, 4, 8)]
    blur = [one.blur for one in found]
    assert blur == sorted(blur)
    assert blur[-1] > 0.9
    assert max(one.smoke for one in found) - min(one.smoke for one in found) < 0.1


def test_every_smoky_frame_scores_above_its_clean_twin(shared_dir: Path) -> None:
    folder = shared_dir / "video" / "smoke"
    pairs = sorted((folder / "input").iterdir())
    assert pairs
    for smoky in pairs:
        clean = folder / "output" / smoky.name
        assert inspect(cv2.imread(str(smoky))).smoke > inspect(cv2.imread(str(clean))).smoke, smoky.name


def test_no_real_frame_counts_as_out_of_body(shared_dir: Path) -> None:
    frames = [
        path
        for folder in (
            "cholecseg8k_instrument/frames",
            "endovis17/frames",
            "cvc612/images",
            "kvasir_seg/images",
        )
        for path in (shared_dir / "video" / folder).iterdir()
    ]
    assert frames
    for path in frames:
        assert inspect(cv2.imread(str(path))).out_of_body < 0.3, path.name


def test_only_the_view_inside_the_circle_counts() -> None:
    image = scene()
    circle = np.zeros(image.shape[:2], np.uint8)
    cv2.circle(circle, (320, 180), 170, 1, -1)
    round_view = image * circle[..., None]
    whole, inside = inspect(image), inspect(round_view)
    assert inside.exposure == pytest.approx(whole.exposure, abs=0.05)
    assert inside.smoke == pytest.approx(whole.smoke, abs=0.05)
    assert inside.out_of_body < 0.3


def test_the_view_is_the_circle_and_not_the_text_beside_it() -> None:
    brightness = np.zeros((180, 320), np.float32)
    y, x = np.mgrid[:180, :320]
    circle = (x - 200) ** 2 + (y - 90) ** 2 <= 80**2
    brightness[circle] = 0.5
    brightness[90:110, 180:220] = 0.0  # something dark within
    brightness[5:10, 5:40] = 1.0  # text
    regions, scratch, marked = (np.empty(brightness.shape, kind) for kind in (np.int32, np.uint8, np.uint8))
    mark_view((brightness > 0.1).astype(np.uint8), regions, scratch, marked)
    view = marked.astype(bool)
    assert not view[:20, :60].any()
    assert view[100, 200]
    assert np.logical_xor(view, circle).sum() < 0.1 * circle.sum()


@pytest.mark.parametrize(
    ("colour", "inside"),
    [((60, 70, 160), True), ((120, 130, 180), True), ((150, 120, 60), False), ((190, 190, 190), False),
     ((90, 160, 60), False)],
)  # fmt: skip
def test_rooms_and_drapes_are_outside_and_tissue_is_inside(colour, inside: bool) -> None:
    image = np.clip(np.array(colour) * (scene()[..., 2:] / 160.0), 0, 255).astype(np.uint8)
    inspector = Inspector()
    inspector(scene())  # the camera has colours: a picture without any is a wall
    assert (inspector(image).out_of_body < 0.5) == inside


@pytest.mark.parametrize("shape", [(1, 1), (1, 640), (480, 1), (3, 5), (17, 4001)])
@pytest.mark.parametrize("value", [0, 128, 255])
def test_any_picture_has_finite_bounded_values(shape, value: int) -> None:
    found = inspect(np.full((*shape, 3), value, np.uint8))
    for name in Quality.__slots__:
        assert 0.0 <= getattr(found, name) <= 1.0, name


def test_highlights_and_exposure() -> None:
    image = np.full((180, 320, 3), (60, 60, 140), np.uint8)
    image[:45, :160] = 255  # an eighth of the picture
    found = inspect(image)
    assert found.highlights == pytest.approx(1 / 8, abs=0.01)
    grey = (0.114 * 60 + 0.587 * 60 + 0.299 * 140) / 255
    assert found.exposure == pytest.approx(grey * 7 / 8 + 1 / 8, abs=0.01)


def test_fouling_sees_a_smear_on_part_of_the_lens() -> None:
    image = scene()
    smeared = image.copy()
    smeared[:, :200] = cv2.GaussianBlur(image, (0, 0), 8)[:, :200]
    assert inspect(image).fouling < 0.05
    assert 0.15 < inspect(smeared).fouling < 0.45


def test_memory_that_is_kept_carries_nothing_over() -> None:
    inspector = Inspector()
    black = np.zeros((360, 640, 3), np.uint8)
    frames = [scene(1), scene(2, (720, 1280)), black, veiled(scene(3), 0.5), scene(1)]
    assert [inspector(frame) for frame in frames] == [inspect(frame) for frame in frames]


def test_a_picture_without_colour_is_not_called_a_room() -> None:
    inspector = Inspector()
    for seed in range(3):
        grey = cv2.cvtColor(scene(seed), cv2.COLOR_BGR2GRAY)
        assert inspector(cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR)).out_of_body == 0.0
    assert inspector.remark.startswith("the picture has no colour: ")
    for seed in range(4):
        inspector(scene(seed))
    assert inspector.remark == ""  # most have


def test_red_and_blue_exchanged_is_remarked_on() -> None:
    inspector = Inspector()
    for seed in range(3):
        assert inspector(np.ascontiguousarray(scene(seed)[..., ::-1])).out_of_body > 0.5
    assert inspector.remark.startswith("with red and blue exchanged most frames would show the inside")
    room = Inspector()
    for shade in (90, 120, 150):  # a white room, under light that is not quite
        wall = np.full((360, 640, 3), (shade, shade - 2, shade - 6), np.uint8)
        assert room(wall).out_of_body > 0.5
    assert room.remark == ""
