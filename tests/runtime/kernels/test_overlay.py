"""Classes over a frame: blends and contours worked by hand, the NumPy specification, hostile arrays."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trocar.runtime.errors import InvalidInput
from trocar.runtime.kernels.overlay import overlay, overlay_reference, palette

# The fixture only says where to run.
FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

RED, GREEN = (255, 0, 0), (0, 200, 7)


def painted(backend, frame, labels, colours, **options):
    """The frame afterwards, from a copy; the reference's where the backend is None."""
    frame = frame.copy()
    if backend is None:
        overlay_reference(frame, labels, colours, **options)
        return frame
    there = backend.put(frame)
    overlay(there, backend.put(labels), colours, stream=backend.stream, **options)
    return backend.get(there)


def contour_map(backend, rows, contour, drawn=(1, 2)):
    """Where a contour is drawn over a label map of digits: its digit, or a dot."""
    labels = np.array([[int(digit) for digit in row] for row in rows], dtype=np.uint8)
    lines = palette({label: (label, label, label) for label in drawn}, alpha=0.0)
    found = painted(backend, np.zeros((*labels.shape, 3), np.uint8), labels, lines, contour=contour)
    assert (found == found[..., :1]).all()
    return ["".join(str(value) if value else "." for value in row) for row in found[..., 0]]


# ---- by hand --------------------------------------------------------------------------------------


def test_a_blend_by_hand(backend):
    # 0.25 is 64 of 256: (100 * 192 + 255 * 64 + 128) // 256 = 139, (100 * 192 + 128) // 256 = 75.
    frame, labels = np.full((1, 2, 3), 100, np.uint8), np.uint8([[1, 0]])
    found = painted(backend, frame, labels, palette({1: RED}, alpha=0.25))
    assert found.tolist() == [[[139, 75, 75], [100, 100, 100]]]


def test_each_class_has_its_opacity(backend):
    frame = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 256, 3)
    for label, expected in ((1, frame), (2, np.broadcast_to(np.uint8(GREEN), frame.shape))):
        colours = palette({1: RED, 2: GREEN}, alpha={1: 0.0, 2: 1.0})
        found = painted(backend, frame, np.full((1, 256), label, np.uint8), colours)
        assert (found == expected).all()


def test_classes_without_a_colour_stay_as_they_are(backend):
    frame = np.random.default_rng(1).integers(0, 256, (3, 70, 3), dtype=np.uint8)
    labels = np.uint8([[0] * 70, [5] * 70, [255] * 70])
    found = painted(backend, frame, labels, palette({5: RED}, alpha=1.0), contour=2)
    assert (found[[0, 2]] == frame[[0, 2]]).all()
    assert (found[1] == RED).all()


def test_a_contour_lies_inside_its_class_and_not_along_the_frame(backend):
    rows = [
        "0000000000",
        "0111110022",
        "0111110022",
        "0111110022",
        "0111110022",
        "0111110022",
    ]
    assert contour_map(backend, rows, 1) == [
        "..........",
        ".11111..22",
        ".1...1..2.",
        ".1...1..2.",
        ".1...1..2.",
        ".1...1..2.",
    ]
    assert contour_map(backend, rows, 2) == [
        "..........",
        ".11111..22",
        ".11111..22",
        ".11.11..22",
        ".11.11..22",
        ".11.11..22",
    ]
    assert contour_map(backend, rows, 0) == ["." * 10] * 6


def test_touching_classes_have_a_line_each_and_corners_count(backend):
    rows = ["1112", "1112", "1222", "2222"]
    assert contour_map(backend, rows, 1) == ["..12", "1112", "1222", "22.."]


def test_a_line_against_a_class_that_is_not_drawn(backend):
    assert contour_map(backend, ["1110333", "1110333"], 1, drawn=(1,)) == ["..1....", "..1...."]


def test_a_contour_crosses_the_borders_of_tiles_and_blocks(backend):
    # 2048 columns are a tile of the CPU's, 32 x 8 pixels a block of a GPU's.
    lines = palette({1: RED}, alpha=0.0)
    for column in (31, 32, 33, 2046, 2047, 2048, 2049, 2063, 2064):
        labels = np.zeros((1, 2080), np.uint8)
        labels[:, column:] = 1
        found = painted(backend, np.zeros((1, 2080, 3), np.uint8), labels, lines, contour=3)
        assert np.flatnonzero(found[0, :, 0]).tolist() == [column, column + 1, column + 2]
    for row in range(5, 20):
        labels = np.zeros((24, 3), np.uint8)
        labels[:row] = 1
        found = painted(backend, np.zeros((24, 3, 3), np.uint8), labels, lines, contour=2)
        assert np.flatnonzero(found[:, 1, 0]).tolist() == [row - 2, row - 1]


@FUZZ
@given(st.integers(0, 2**32 - 1), st.integers(0, 3), st.sampled_from([(0, 1), (1,), (2, 4), (255,), ()]))
def test_a_few_pixels_here_and_there_are_found(backend, seed, contour, drawn):
    """What lies before, between and behind them in a row is passed over."""
    rng = np.random.default_rng(seed)
    labels = np.full((4, int(rng.integers(1, 2200))), rng.integers(0, 3), np.uint8)
    for _ in range(3):
        row, column = rng.integers(0, labels.shape)
        labels[row : row + 2, column : column + int(rng.integers(1, 40))] = rng.choice([0, 1, 2, 3, 4, 255])
    colours = palette(dict.fromkeys(drawn, RED), alpha=0.4)
    frame = rng.integers(0, 256, (*labels.shape, 3), dtype=np.uint8)
    expected = painted(None, frame, labels, colours, contour=contour)
    assert (painted(backend, frame, labels, colours, contour=contour) == expected).all()


def test_rows_around_a_sub_rectangle_stay_as_they_are(backend):
    if backend.queue:
        pytest.skip("the arrays of these tests are dense on a GPU")
    whole = np.full((9, 60, 3), 50, np.uint8)
    overlay(whole[2:7, 4:45], np.ones((5, 41), np.uint8), palette({1: RED}, alpha=1.0))
    assert (whole[2:7, 4:45] == RED).all()
    whole[2:7, 4:45] = 50
    assert (whole == 50).all()


def test_the_drawn_classes_box_grown_by_the_contour_is_enough():
    rng = np.random.default_rng(4)
    frame, labels = rng.integers(0, 256, (60, 90, 3), dtype=np.uint8), np.zeros((60, 90), np.uint8)
    labels[20:33, 17:70] = 1
    labels[25:50, 40:50] = 2
    for contour in (0, 1, 4):
        colours = palette({1: RED, 2: GREEN}, alpha=0.4)
        expected = painted(None, frame, labels, colours, contour=contour)
        part = np.s_[20 - contour : 50 + contour, 17 - contour : 70 + contour]
        found = frame.copy()
        overlay(found[part], labels[part], colours, contour=contour)
        assert (found == expected).all()


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (0, 0)])
def test_an_empty_frame(backend, shape):
    colours = palette({1: RED}, alpha=1.0)
    assert painted(backend, np.zeros((*shape, 3), np.uint8), np.zeros(shape, np.uint8), colours).size == 0


# ---- against the specification --------------------------------------------------------------------


@FUZZ
@given(data=st.data())
def test_fuzzed_frames_equal_the_reference(backend, data):
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    height = data.draw(st.integers(1, 40))
    width = data.draw(st.one_of(st.integers(1, 70), st.sampled_from([255, 256, 2047, 2050])))
    coarse = rng.integers(0, 5, (height // 7 + 1, width // 9 + 1), dtype=np.uint8)
    labels = np.ascontiguousarray(coarse.repeat(7, axis=0).repeat(9, axis=1)[:height, :width])
    if data.draw(st.booleans()):
        labels[rng.random(labels.shape) < 0.3] = 255
    frame = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    classes = data.draw(st.sets(st.sampled_from([0, 1, 2, 3, 255])))
    colours = palette(
        {label: tuple(rng.integers(0, 256, 3).tolist()) for label in classes},
        alpha={label: float(rng.random()) for label in classes},
    )
    contour = data.draw(st.one_of(st.just(0), st.integers(1, 16)))
    found = painted(backend, frame, labels, colours, contour=contour)
    assert found.tobytes() == painted(None, frame, labels, colours, contour=contour).tobytes()


@FUZZ
@given(padding=st.tuples(st.integers(0, 99_999), st.integers(0, 99_999)), width=st.integers(1, 70))
def test_rows_may_be_any_distance_apart(padding, width):
    rng = np.random.default_rng(5)
    frame = rng.integers(0, 256, (4, width * 3 + padding[0]), dtype=np.uint8)
    view = np.lib.stride_tricks.as_strided(frame, (4, width, 3), (frame.shape[1], 3, 1))
    labels = rng.integers(0, 3, (4, width + padding[1]), dtype=np.uint8)[:, :width]
    colours = palette({1: RED, 2: GREEN}, alpha=0.3)
    expected = painted(None, view, labels, colours, contour=1)
    overlay(view, labels, colours, contour=1)
    assert (view == expected).all()


# ---- refusals -------------------------------------------------------------------------------------

FRAME, LABELS = np.zeros((6, 8, 3), np.uint8), np.zeros((6, 8), np.uint8)


def read_only(array):
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    ("frame", "labels", "message"),
    [
        (np.zeros((6, 8, 3), np.int8), LABELS, "frame: expected uint8, got int8"),
        (np.zeros((6, 8, 4), np.uint8), LABELS, r"frame: expected rows x columns x 3 .*\(6, 8, 4\)"),
        (np.zeros((6, 8), np.uint8), LABELS, "frame: expected rows x columns x 3"),
        (np.zeros((6, 16, 3), np.uint8)[:, ::2], LABELS, "frame: expected dense"),
        (np.zeros((6, 8, 3), np.uint8)[..., ::-1], LABELS, "frame: expected strides of at least 0"),
        (np.zeros((6, 8, 3), np.uint8)[::-1], LABELS, "frame: expected strides of at least 0"),
        (read_only(np.zeros((6, 8, 3), np.uint8)), LABELS, "frame: expected a writable array"),
        (FRAME, np.zeros((6, 8), bool), "labels: expected uint8, got bool"),
        (FRAME, np.zeros((8, 6), np.uint8), r"labels: expected .* as frame .* got shape \(8, 6\)"),
        (FRAME, np.zeros((6, 16), np.uint8)[:, ::2], "labels: expected dense"),
        (FRAME, FRAME[..., 0], "labels: expected dense"),
        (FRAME, FRAME.reshape(-1)[:48].reshape(6, 8), "frame: expected memory apart from labels"),
        (FRAME, [[0]], "labels: expected an array that DLPack can share, got list"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_by_name(frame, labels, message):
    with pytest.raises(InvalidInput, match=message):
        overlay(frame, labels, palette({1: RED}, alpha=0.5))


@pytest.mark.parametrize("contour", [-1, 17, 2**31])
def test_a_thickness_out_of_range_is_refused(contour):
    with pytest.raises(InvalidInput, match=f"contour: expected a thickness of 0 to 16 pixels, got {contour}"):
        overlay(FRAME.copy(), LABELS, palette({1: RED}, alpha=0.5), contour=contour)


@pytest.mark.parametrize(
    ("colours", "alpha", "message"),
    [
        ({256: RED}, 0.5, "colours: expected classes from 0 to 255, got 256"),
        ({-1: RED}, 0.5, "colours: expected classes"),
        ({1: (0, 0)}, 0.5, "colours: expected three values from 0 to 255 for class 1"),
        ({1: (0, 0, 256)}, 0.5, "colours: expected three values"),
        ({1: RED}, 1.01, "alpha: expected an opacity from 0 to 1 for class 1, got 1.01"),
        ({1: RED}, float("nan"), "alpha: expected"),
        ({1: RED, 2: RED}, {1: 0.5}, "alpha: expected an opacity from 0 to 1 for class 2, got None"),
    ],
)
def test_a_palette_out_of_range_is_refused(colours, alpha, message):
    with pytest.raises(InvalidInput, match=message):
        palette(colours, alpha=alpha)


def test_a_palette_cannot_be_changed_later():
    with pytest.raises(ValueError, match="read-only"):
        palette({1: RED}, alpha=0.5).table[1] = 0
