"""Preprocessing: reference, CPU and CUDA agree bit for bit; OpenCV agrees within stated bounds."""

from __future__ import annotations

from fractions import Fraction

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trocar.runtime.errors import InvalidInput
from trocar.runtime.kernels import _native
from trocar.runtime.kernels.preprocess import preprocess, preprocess_reference

FORMATS = ("bgr", "rgb", "nv12", "grey")
RESIZES = ("bilinear", "area")
# OpenCV rounds to whole levels, and its bilinear loses up to 0.3 on the way: ours is within 0.025 of exact.
LINEAR_BOUND, AREA_BOUND = 0.85, 0.51


def random_frame(pixel_format, height, width, seed=0):
    rng = np.random.default_rng(seed)
    shapes = {"grey": (height, width), "nv12": (height * 3 // 2, width)}
    return rng.integers(0, 256, shapes.get(pixel_format, (height, width, 3)), dtype=np.uint8)


def smooth_frame(height, width):
    """A picture whose neighbouring pixels differ by little: what chroma at half the resolution can carry."""
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    waves = [np.sin(3 * x + 2 * y), np.cos(4 * y - x), np.sin(2 * x * y + 1)]
    return np.stack([(128 + 90 * wave).astype(np.uint8) for wave in waves], axis=-1)


def nv12_of(bgr):
    """The frame in BT.601 as OpenCV writes it, with interleaved chroma."""
    height, width = bgr.shape[:2]
    planar = cv2.cvtColor(bgr, cv2.COLOR_BGR2YUV_I420)
    chroma = planar[height:].reshape(2, height // 2, width // 2)
    return np.concatenate([planar[:height], np.stack(chroma, axis=-1).reshape(height // 2, width)])


def output(pixel_format, height, width, dtype=np.float32):
    return np.full((1 if pixel_format == "grey" else 3, height, width), np.nan, dtype=dtype)


def expect(src, shape, dtype=np.float32, **options):
    out = np.full(shape, np.nan, dtype=dtype)
    preprocess_reference(src, out, **options)
    return out


def levels(src, height, width, **options):
    """What preprocess gives with scale 1 and bias 0."""
    out = output(options["pixel_format"], height, width)
    preprocess(src, out, scale=1.0, **options)
    return out


# ---- reference x CPU x CUDA ------------------------------------------------------------------------

SIZES = [
    # frame height, width, crop, output height, width
    (6, 8, None, 6, 8),
    (36, 64, None, 7, 13),
    (10, 14, None, 31, 67),
    (2, 2, None, 5, 3),
    (30, 200, None, 1, 1),
    (40, 50, (3, 5, 31, 37), 16, 64),
    (40, 50, (39, 49, 1, 1), 4, 4),
    (12, 300, (1, 7, 11, 290), 9, 129),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("pixel_format", FORMATS)
@pytest.mark.parametrize(("height", "width", "crop", "out_height", "out_width"), SIZES)
def test_every_backend_has_the_references_bits(
    backend, pixel_format, resize, dtype, height, width, crop, out_height, out_width
):
    src = random_frame(pixel_format, height, width)
    options = {"pixel_format": pixel_format, "resize": resize, "crop": crop, "order": "rgb"}
    options |= {"scale": 1 / 57, "bias": 0.3} if pixel_format == "grey" else THREE
    host = output(pixel_format, out_height, out_width, dtype)
    out = backend.put(host)
    preprocess(backend.put(src), out, stream=backend.stream, **options)
    assert backend.get(out).tobytes() == expect(src, host.shape, dtype, **options).tobytes()


THREE = {"scale": (1 / 57, 1 / 3, -0.02), "bias": (-2.1, 0.3, 7.0)}


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_the_cpu_has_the_references_bits_whatever_the_sizes(data):
    pixel_format = data.draw(st.sampled_from(FORMATS))
    step = 2 if pixel_format == "nv12" else 1
    height, width = (step * data.draw(st.integers(1, 60 // step)) for _ in range(2))
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    crop = (top, left, data.draw(st.integers(1, height - top)), data.draw(st.integers(1, width - left)))
    out_height, out_width = data.draw(st.integers(0, 40)), data.draw(st.integers(0, 150))
    src = random_frame(pixel_format, height, width, data.draw(st.integers(0, 99)))
    options = {
        "pixel_format": pixel_format,
        "crop": data.draw(st.sampled_from([None, crop])),
        "resize": data.draw(st.sampled_from(RESIZES)),
        "scale": data.draw(st.floats(-300, 300, width=32)),
        "bias": data.draw(st.floats(-300, 300, width=32)),
        "order": data.draw(st.sampled_from(["rgb", "bgr"])),
        "matrix": data.draw(st.sampled_from(["bt601", "bt709"])),
    }
    out = output(pixel_format, out_height, out_width, data.draw(st.sampled_from([np.float32, np.float16])))
    preprocess(src, out, **options)
    assert out.tobytes() == expect(src, out.shape, out.dtype, **options).tobytes()


def by_pixel(src, out, **options):
    """The functor alone, pixel by pixel, without the row loops."""

    class OnePixelAtATime:
        @staticmethod
        def preprocess(*arguments):
            _native.preprocess(*arguments[:-2], True, arguments[-1])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trocar.runtime.kernels.devices.module", lambda _: OnePixelAtATime)
        preprocess(src, out, **options)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("pixel_format", FORMATS)
@pytest.mark.parametrize("size", [(1080, 1920, 512, 512), (270, 480, 512, 1100), (64, 6000, 32, 63)])
def test_row_loops_have_the_functors_bits(pixel_format, resize, dtype, size):
    src = random_frame(pixel_format, *size[:2])
    options = {"pixel_format": pixel_format, "resize": resize, "scale": 1 / 57, "bias": -1.7}
    fast, slow = output(pixel_format, *size[2:], dtype), output(pixel_format, *size[2:], dtype)
    preprocess(src, fast, **options)
    by_pixel(src, slow, **options)
    assert fast.tobytes() == slow.tobytes()


@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("pixel_format", FORMATS)
def test_a_column_under_which_a_row_does_not_fit_the_stack(pixel_format, resize):
    src = random_frame(pixel_format, 4, 9000)
    out = output(pixel_format, 3, 2)
    preprocess(src, out, pixel_format=pixel_format, resize=resize)
    assert out.tobytes() == expect(src, out.shape, pixel_format=pixel_format, resize=resize).tobytes()


# ---- by hand ---------------------------------------------------------------------------------------


def test_one_to_one_is_every_level_exactly():
    src = np.arange(256, dtype=np.uint8).reshape(16, 16)
    for resize in RESIZES:
        assert (levels(src, 16, 16, pixel_format="grey", resize=resize)[0] == src).all()


def test_bilinear_by_hand():
    # Positions of 4 outputs over 2 samples: -0.25, 0.25, 0.75, 1.25.
    found = levels(np.array([[0, 100]], dtype=np.uint8), 1, 4, pixel_format="grey")
    assert found[0, 0].tolist() == [0, 25, 75, 100]
    # One output over 2 x 2 lies in their middle.
    corners = np.array([[10, 20], [30, 200]], dtype=np.uint8)
    assert levels(corners, 1, 1, pixel_format="grey")[0, 0, 0] == 65
    # 3 to 2: positions 0.25 and 1.75.
    row = np.array([[0, 100, 200]], dtype=np.uint8)
    assert levels(row, 1, 2, pixel_format="grey")[0, 0].tolist() == [25, 175]


def test_area_by_hand():
    # 3 to 2: each output covers one sample and half of the middle one.
    found = levels(np.array([[30, 60, 120]], dtype=np.uint8), 1, 2, pixel_format="grey", resize="area")
    assert found[0, 0].tolist() == [40, 100]
    mean = levels(np.array([[0, 4], [8, 255]], dtype=np.uint8), 1, 1, pixel_format="grey", resize="area")
    assert mean[0, 0, 0] == 66.75
    # 2 to 3: the middle output covers a half of each.
    found = levels(np.array([[0, 90]], dtype=np.uint8), 1, 3, pixel_format="grey", resize="area")
    assert found[0, 0].tolist() == [0, 45, 90]


def test_scale_and_bias_follow_the_order_of_the_output():
    pixel = np.array([[[10, 20, 30]]], dtype=np.uint8)
    out = output("bgr", 1, 1)
    preprocess(pixel, out, pixel_format="bgr", scale=(1, 2, 4), bias=(0.5, 0, -1))
    assert out.ravel().tolist() == [30.5, 40, 39]
    preprocess(pixel, out, pixel_format="bgr", order="bgr", scale=(1, 2, 4), bias=(0.5, 0, -1))
    assert out.ravel().tolist() == [10.5, 40, 119]
    preprocess(pixel, out, pixel_format="rgb", scale=1.0)
    assert out.ravel().tolist() == [10, 20, 30]
    preprocess(pixel, out, pixel_format="rgb", order="bgr", scale=1.0)
    assert out.ravel().tolist() == [30, 20, 10]


# ITU-R BT.601-7 and BT.709-6, 8 bits: Y, Cb, Cr of 100 % bars, from the recommendations' equations.
BARS = {
    "bt601": {(81, 90, 240): (255, 0, 0), (145, 54, 34): (0, 255, 0), (41, 240, 110): (0, 0, 255)},
    "bt709": {(63, 102, 240): (255, 0, 0), (173, 42, 26): (0, 255, 0), (32, 240, 118): (0, 0, 255)},
}
GREYS = {(16, 128, 128): (0, 0, 0), (235, 128, 128): (255, 255, 255), (0, 128, 128): (0, 0, 0)}


@pytest.mark.parametrize("matrix", ["bt601", "bt709"])
def test_nv12_of_published_colours(matrix):
    for (y, u, v), rgb in (BARS[matrix] | GREYS).items():
        src = np.array([[y, y], [y, y], [u, v]], dtype=np.uint8)
        found = levels(src, 1, 1, pixel_format="nv12", matrix=matrix).ravel()
        np.testing.assert_allclose(found, rgb, atol=1.5)  # the bars' codes are rounded to whole steps
        swapped = levels(src, 1, 1, pixel_format="nv12", matrix=matrix, order="bgr").ravel()
        assert swapped.tolist() == found[::-1].tolist()


def test_nv12_chroma_sits_in_the_middle_of_its_pixels():
    # Four columns of luma 128; chroma samples 128 and 192 sit at 0.5 and 2.5.
    src = np.array([[128] * 4, [128] * 4, [128, 128, 128, 192]], dtype=np.uint8)
    red, _, _ = levels(src, 2, 4, pixel_format="nv12", matrix="bt601")[:, 0]
    grey = (128 - 16) * 255 / 219
    expected = grey + np.array([0, 16, 48, 64]) * 2 * (1 - 0.299) * 255 / 224
    np.testing.assert_allclose(red, expected, atol=0.05)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 99))
def test_bilinear_is_within_its_bound_of_exact_arithmetic(length, out_length, seed):
    row = random_frame("grey", 1, length, seed)
    column = random_frame("grey", length, 1, seed)
    src = ((row.astype(int) * column) // 255).astype(np.uint8)
    found = levels(src, out_length, out_length, pixel_format="grey")[0]

    def tap(x):
        position = Fraction((2 * x + 1) * length, 2 * out_length) - Fraction(1, 2)
        position = min(max(position, Fraction(0)), Fraction(length - 1))
        index = min(int(position), max(length - 2, 0))
        return index, min(index + 1, length - 1), position - index

    for y in range(out_length):
        top, bottom, v = tap(y)
        for x in range(out_length):
            left, right, u = tap(x)
            above = int(src[top, left]) * (1 - u) + int(src[top, right]) * u
            below = int(src[bottom, left]) * (1 - u) + int(src[bottom, right]) * u
            assert abs(Fraction(float(found[y, x])) - (above * (1 - v) + below * v)) <= 0.025


# ---- against OpenCV --------------------------------------------------------------------------------

SHAPES = [((90, 160), (64, 64)), ((64, 64), (150, 97)), ((54, 96), (54, 40)), ((33, 47), (11, 90))]


@pytest.mark.parametrize(
    ("ours", "theirs", "bound"),
    [("bilinear", cv2.INTER_LINEAR, LINEAR_BOUND), ("area", cv2.INTER_AREA, AREA_BOUND)],
)
@pytest.mark.parametrize(("frame", "size"), SHAPES)
def test_opencv_agrees_within_its_rounding(frame, size, ours, theirs, bound):
    if ours == "area" and (size[0] > frame[0] or size[1] > frame[1]):
        pytest.skip("OpenCV's area interpolates when it enlarges")
    src = random_frame("bgr", *frame)
    resized = cv2.resize(src, size[::-1], interpolation=theirs)
    expected = cv2.cvtColor(resized, cv2.COLOR_BGR2RGB).transpose(2, 0, 1)
    found = levels(src, *size, pixel_format="bgr", resize=ours)
    assert np.abs(found - expected).max() <= bound


def test_a_crop_is_what_opencv_makes_of_the_cropped_frame():
    src = random_frame("bgr", 90, 160)
    expected = cv2.resize(src[11:78, 23:150], (48, 40)).transpose(2, 0, 1)
    found = levels(src, 40, 48, pixel_format="bgr", order="bgr", crop=(11, 23, 67, 127))
    assert np.abs(found - expected).max() <= LINEAR_BOUND


def test_blob_from_image_agrees():
    src = random_frame("bgr", 108, 192)
    blob = cv2.dnn.blobFromImage(src, 1 / 50, (64, 48), (110, 120, 130), swapRB=True)[0]
    out = output("bgr", 48, 64)
    preprocess(src, out, pixel_format="bgr", scale=1 / 50, bias=(-110 / 50, -120 / 50, -130 / 50))
    assert np.abs(out - blob).max() <= LINEAR_BOUND / 50


@pytest.mark.parametrize("size", [(128, 192), (60, 77)])
def test_nv12_agrees_with_opencv_of_a_smooth_picture(size):
    # OpenCV repeats chroma over 2 x 2 pixels and rounds twice; ours interpolates it.
    src = nv12_of(smooth_frame(128, 192))
    bgr = cv2.resize(cv2.cvtColor(src, cv2.COLOR_YUV2BGR_NV12), size[::-1])
    found = levels(src, *size, pixel_format="nv12", matrix="bt601", order="bgr")
    assert np.abs(found - bgr.transpose(2, 0, 1)).max() <= 4
    assert np.abs(found - bgr.transpose(2, 0, 1)).mean() <= 0.6


# ---- memory ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("pixel_format", FORMATS)
def test_strided_rows_and_planes_give_what_dense_ones_give(backend, pixel_format, resize):
    if backend.name == "cuda":
        pytest.skip("arrays of trocar's own on a GPU are dense")
    src = random_frame(pixel_format, 20, 30)
    frame = np.zeros((src.shape[0] * 2, src.shape[1] + 9, *src.shape[2:]), dtype=np.uint8)
    padded = frame[::2, 4 : 4 + src.shape[1]]
    padded[:] = src
    room = output(pixel_format, 24, 60)
    out = room[:, 3:21:2, 5:40]
    preprocess(padded, out, pixel_format=pixel_format, resize=resize, stream=backend.stream)
    expected = expect(src, out.shape, pixel_format=pixel_format, resize=resize)
    assert np.ascontiguousarray(out).tobytes() == expected.tobytes()
    out[:] = np.nan
    assert np.isnan(room).all()  # nothing beside it was written


def test_nv12_planes_may_lie_apart(backend):
    src = random_frame("nv12", 20, 30)
    out = backend.put(output("nv12", 8, 9))
    pair = (backend.put(src[:20].copy()), backend.put(src[20:].copy()))
    preprocess(pair, out, pixel_format="nv12", stream=backend.stream)
    expected = expect(src, (3, 8, 9), pixel_format="nv12")
    assert backend.get(out).tobytes() == expected.tobytes()
    assert expect((src[:20], src[20:]), (3, 8, 9), pixel_format="nv12").tobytes() == expected.tobytes()


def test_huge_strides_reach_where_they_say():
    # Two rows a gigabyte apart: reserved, and touched only there.
    far = np.lib.stride_tricks.as_strided(np.zeros(1 << 30, dtype=np.uint8), (2, 3), ((1 << 30) - 3, 1))
    far[0], far[1] = (10, 20, 30), (50, 60, 70)
    assert levels(far, 1, 3, pixel_format="grey")[0, 0].tolist() == [30, 40, 50]
    assert levels(far, 1, 3, pixel_format="grey", resize="area")[0, 0].tolist() == [30, 40, 50]


def test_nothing_is_written_to_an_empty_output(backend):
    for shape in [(1, 0, 5), (1, 5, 0), (1, 0, 0)]:
        out = backend.put(np.empty(shape, dtype=np.float32))
        preprocess(backend.put(random_frame("grey", 4, 4)), out, pixel_format="grey", stream=backend.stream)


def test_a_repeated_call_gives_the_same_bits():
    src = random_frame("nv12", 270, 480)
    first, second = output("nv12", 200, 300), output("nv12", 200, 300)
    for out in (first, second):
        preprocess(src, out, pixel_format="nv12")
    assert first.tobytes() == second.tobytes()


def test_float16_overflows_to_infinity():
    out = output("grey", 1, 2, np.float16)
    preprocess(np.array([[0, 255]], dtype=np.uint8), out, pixel_format="grey", scale=1e6)
    assert out.ravel().tolist() == [0, np.inf]


# ---- refused, by name ------------------------------------------------------------------------------

BGR = np.zeros((4, 6, 3), dtype=np.uint8)
OUT = np.zeros((3, 5, 5), dtype=np.float32)
READ_ONLY = OUT.copy()
READ_ONLY.flags.writeable = False
MEMORY = np.zeros(400, dtype=np.uint8)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"src": BGR.astype(np.int8)}, "src: expected uint8, got int8"),
        ({"src": BGR[..., :2]}, r"src: expected height x width x 3"),
        ({"src": BGR[..., ::-1]}, "src: expected strides of at least 0"),
        ({"src": BGR[:, ::2]}, "src: expected dense axes from axis 1"),
        ({"src": BGR[::-1]}, "src: expected strides of at least 0"),
        ({"src": BGR[0]}, "src: expected height x width x 3"),
        ({"src": BGR[:0]}, "crop: expected at least one pixel of a frame of 0 x 6"),
        ({"src": [[1, 2], [3, 4]]}, "src: expected an array that DLPack can share, got list"),
        ({"src": (BGR, BGR)}, "src: expected an array, or two of nv12, got 2 of bgr"),
        ({"out": OUT.astype(np.float64)}, "out: expected float32 or float16, got float64"),
        ({"out": OUT[:2]}, "out: expected channels x height x width of shape"),
        ({"out": OUT[0]}, "out: expected channels x height x width of shape"),
        ({"out": OUT[:, :, ::2]}, "out: expected dense axes from axis 2"),
        ({"out": OUT[:, ::-1]}, "out: expected strides of at least 0"),
        ({"out": np.broadcast_to(OUT[:1], (3, 5, 5))}, "out: expected a writable array"),
        ({"out": READ_ONLY}, "out: expected a writable array"),
        (
            {"src": MEMORY[100:172].reshape(4, 6, 3), "out": MEMORY[:300].view(np.float32).reshape(3, 5, 5)},
            "out: expected memory apart from src",
        ),
        ({"pixel_format": "yuyv"}, "pixel_format: expected one of bgr, rgb, nv12, grey, got 'yuyv'"),
        ({"resize": "nearest"}, "resize: expected one of bilinear, area, got 'nearest'"),
        ({"order": "gbr"}, "order: expected one of rgb, bgr, got 'gbr'"),
        ({"matrix": "bt2020"}, "matrix: expected one of"),
        (
            {"crop": (0, 0, 5, 6)},
            r"crop: expected at least one pixel of a frame of 4 x 6, got \(0, 0, 5, 6\)",
        ),
        ({"crop": (-1, 0, 2, 2)}, "crop: expected at least one pixel"),
        ({"crop": (0, 0, 0, 2)}, "crop: expected at least one pixel"),
        ({"crop": (0, 0, 2, -1)}, "crop: expected at least one pixel"),
        ({"crop": (0, 5, 1, 2**31 - 1)}, "crop: expected at least one pixel"),
        ({"crop": (0, 0, 1, 2**70)}, "crop: expected numbers of at most"),
        ({"crop": (0, 0, 1.5, 2)}, "crop: expected 4 integers"),
        ({"crop": (0, 0, 1)}, "crop: expected 4 integers"),
        ({"scale": (1, 2)}, "scale: expected a finite float32 number, or 3"),
        ({"scale": float("nan")}, "scale: expected a finite"),
        ({"bias": (0, 0, float("inf"))}, "bias: expected a finite"),
        ({"bias": 1e39}, "bias: expected a finite"),
        ({"bias": "x"}, "bias: expected a finite"),
        ({"stream": 7}, "stream: expected none"),
    ],
)
def test_refused_by_name(changes, message):
    arguments = {"src": BGR, "out": OUT.copy(), "pixel_format": "bgr"} | changes
    src, out = arguments.pop("src"), arguments.pop("out")
    with pytest.raises(InvalidInput, match=message):
        preprocess(src, out, **arguments)


@pytest.mark.parametrize(
    ("src", "message"),
    [
        (np.zeros((7, 4), np.uint8), r"src: expected NV12 of height \* 3 / 2 rows"),
        (np.zeros((9, 5), np.uint8), "src: expected NV12 of even height and width, got 6 x 5"),
        (np.zeros((3, 4, 1), np.uint8), "src: expected NV12 rows x width"),
        ((np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.uint8)), "chroma: expected height / 2 x width"),
        ((np.zeros((4, 4), np.uint8), np.zeros((2, 4), np.int8)), "chroma: expected uint8"),
        ((np.zeros((3, 4), np.uint8), np.zeros((1, 4), np.uint8)), "src: expected NV12 of even"),
        ((np.zeros((4, 4), np.uint8),), "src: expected an array, or two of nv12, got 1"),
    ],
)
def test_nv12_refused_by_name(src, message):
    with pytest.raises(InvalidInput, match=message):
        preprocess(src, OUT.copy(), pixel_format="nv12")


def test_sides_beyond_24_bits_are_refused():
    wide = np.lib.stride_tricks.as_strided(np.zeros(1, np.uint8), ((1 << 24) + 1, 1), (0, 1))
    with pytest.raises(InvalidInput, match="src: expected sides of at most 16777216"):
        preprocess(wide, OUT[:1].copy(), pixel_format="grey")


def test_positions_on_a_longest_side_are_exact():
    # Positions are products of two sides. The last of 3 outputs lies at 5/6 2^24 - 1/2 = 13981012 + 5/6.
    tall = np.zeros((1 << 24, 1), dtype=np.uint8)
    tall[13981013] = 240
    assert levels(tall, 3, 1, pixel_format="grey").ravel().tolist() == pytest.approx([0, 0, 200], abs=0.02)
    tall[-1] = 7
    crop = ((1 << 24) - 2, 0, 2, 1)
    assert levels(tall, 2, 1, pixel_format="grey", crop=crop).ravel().tolist() == [0, 7]
