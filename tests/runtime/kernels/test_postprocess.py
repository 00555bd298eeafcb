"""Logits to label map: hand-worked frames, the NumPy specification bit for bit, and hostile arrays."""

from __future__ import annotations

from fractions import Fraction
from math import exp, log

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trocar.runtime.errors import InvalidInput
from trocar.runtime.kernels.postprocess import (
    exp_of_negative,
    nearest_source,
    postprocess,
    postprocess_reference,
)

# The fixture only says where to run.
FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def decide(backend, logits, shape, *, confidence=np.float32, mode="argmax", faults=True, **options):
    """What a backend writes, by name; the reference where the backend is None."""
    classes = logits.shape[0] + (mode == "sigmoid")
    written = {
        "labels": np.full(shape, 99, np.uint8),
        "areas": np.full(classes, -9, np.int32),
        "boxes": np.full((classes, 4), -9, np.int32),
    }
    if confidence is not None:
        written["confidence"] = np.full(shape, 9, confidence)
    if faults:
        written["faults"] = np.full(1, -9, np.int32)
    if backend is None:
        labels = written["labels"]
        others = {name: array for name, array in written.items() if name != "labels"}
        postprocess_reference(logits, labels, **others, mode=mode, **options)
        return written
    arrays = {name: backend.put(array) for name, array in written.items()}
    others = {name: array for name, array in arrays.items() if name != "labels"}
    postprocess(backend.put(logits), arrays["labels"], **others, mode=mode, stream=backend.stream, **options)
    return {name: backend.get(array) for name, array in arrays.items()}


def assert_same_bits(found, expected):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].tobytes() == array.tobytes(), (name, found[name], array)


def scene(channels, rows, columns, seed=3, dtype=np.float32):
    return (np.random.default_rng(seed).normal(size=(channels, rows, columns)) * 4).astype(dtype)


# ---- by hand --------------------------------------------------------------------------------------


def test_hand_worked(backend):
    # Two network pixels over five columns: centres 0.5, 1.5 lie over the first, 2.5 (on the edge) to 4.5 over
    # the second. Odds of 1 to 3 are a probability of 0.75, which is 191.25 of 255; 1 to 1 is a tie.
    logits = np.array([[[0.0, 2.0]], [[log(3.0), 2.0]]], dtype=np.float32)
    found = decide(backend, logits, (2, 5), confidence=np.uint8)
    assert found["labels"].tolist() == [[1, 1, 0, 0, 0]] * 2
    assert found["confidence"].tolist() == [[191, 191, 128, 128, 128]] * 2
    assert found["areas"].tolist() == [6, 4]
    assert found["boxes"].tolist() == [[0, 2, 2, 5], [0, 0, 2, 2]]
    assert found["faults"].tolist() == [0]


def test_the_lowest_of_equal_classes_wins(backend):
    logits = np.array([[[-0.0, 1, 5]], [[0.0, 7, 5]], [[-0.0, 7, 5]]], dtype=np.float32)
    assert decide(backend, logits, (1, 3))["labels"].tolist() == [[0, 1, 0]]


def test_confidence_is_the_softmax_probability(backend):
    logits = scene(5, 9, 17)
    found = decide(backend, logits, (9, 17))
    powers = np.exp(logits.astype(np.float64))
    assert found["confidence"] == pytest.approx(powers.max(axis=0) / powers.sum(axis=0), rel=5e-7)


@pytest.mark.parametrize("size", [1e-30, 100.0, 3e38])
def test_extreme_logits_give_probabilities(backend, size):
    logits = np.array([[[size]], [[-size]]], dtype=np.float32)
    expected = 1 / (1 + exp(-min(2 * size, 700)))
    assert decide(backend, logits, (1, 1))["confidence"][0, 0] == pytest.approx(expected, rel=3e-7)


def test_sigmoid_of_one_channel(backend):
    # 0.5 reaches a threshold of 0.5; the confidence below it is still the sigmoid.
    logits = np.array([[[0.0, log(4.0), -log(4.0), 80.0, -80.0]]], dtype=np.float32)
    found = decide(backend, logits, (1, 5), mode="sigmoid")
    assert found["labels"].tolist() == [[1, 1, 0, 1, 0]]
    assert found["confidence"][0].tolist() == pytest.approx([0.5, 0.8, 0.2, 1.0, exp(-80)], rel=3e-7)
    assert found["areas"].tolist() == [2, 3]
    assert decide(backend, logits, (1, 5), mode="sigmoid", threshold=0.79)["areas"].tolist() == [3, 2]


def test_sigmoid_of_several_channels_names_the_strongest(backend):
    logits = np.array([[[1.0, -1.0, 2.0]], [[3.0, -2.0, 2.0]]], dtype=np.float32)
    found = decide(backend, logits, (1, 3), mode="sigmoid")
    assert found["labels"].tolist() == [[2, 0, 1]]
    assert found["areas"].tolist() == [1, 1, 1]


def test_all_background(backend):
    logits = np.zeros((3, 4, 4), dtype=np.float32)
    logits[0] = 1
    found = decide(backend, logits, (7, 9))
    assert not found["labels"].any()
    assert found["areas"].tolist() == [63, 0, 0]
    assert found["boxes"].tolist() == [[0, 0, 7, 9], [0, 0, 0, 0], [0, 0, 0, 0]]


@pytest.mark.parametrize(
    ("crop", "outside_box"),
    [
        ((0, 0, 4, 6), [0, 0, 0, 0]),
        ((1, 0, 3, 6), [0, 0, 1, 6]),
        ((0, 0, 3, 6), [3, 0, 4, 6]),
        ((0, 2, 4, 4), [0, 0, 4, 2]),
        ((0, 0, 4, 5), [0, 5, 4, 6]),
        ((1, 1, 2, 3), [0, 0, 4, 6]),
        ((0, 1, 4, 2), [0, 0, 4, 6]),
        ((0, 0, 1, 1), [0, 0, 4, 6]),
        ((2, 3, 0, 2), [0, 0, 4, 6]),
        ((4, 6, 0, 0), [0, 0, 4, 6]),
    ],
)
def test_outside_the_field_of_view_is_class_0(backend, crop, outside_box):
    logits = np.array([[[0.0]], [[2.0]]], dtype=np.float32)
    found = decide(backend, logits, (4, 6), crop=crop)
    top, left, height, width = crop
    shown = np.zeros((4, 6), dtype=bool)
    shown[top : top + height, left : left + width] = True
    assert (found["labels"] == shown).all()
    assert ((found["confidence"] > 0.8) == shown).all()
    assert (found["confidence"][~shown] == 0).all()
    assert found["areas"].tolist() == [24 - height * width, height * width]
    box = [top, left, top + height, left + width] if height * width else [0, 0, 0, 0]
    assert found["boxes"].tolist() == [outside_box, box]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("mode", ["argmax", "sigmoid"])
@pytest.mark.parametrize("channel", [0, 2])
def test_a_logit_that_is_not_finite_is_no_class(backend, bad, mode, channel):
    logits = np.full((3, 2, 600), 1.0, dtype=np.float32)
    logits[1] = 5
    logits[channel, 1, 511:513] = bad
    found = decide(backend, logits, (2, 600), mode=mode)
    assert found["faults"].tolist() == [2]
    assert (found["labels"][1, 511:513] == 0).all()
    assert (found["confidence"][1, 511:513] == 0).all()
    assert found["areas"][0] == 2
    if not backend.queue:
        with pytest.raises(
            InvalidInput, match="logits: expected finite values, got NaN or infinite ones in 2"
        ):
            decide(backend, logits, (2, 600), mode=mode, faults=False)


def test_a_fault_that_no_frame_pixel_shows_is_found(backend):
    logits = np.zeros((2, 9, 9), dtype=np.float32)
    logits[0, 0, 0] = np.nan
    assert decide(backend, logits, (1, 1))["faults"].tolist() == [1]
    assert decide(backend, logits, (4, 4), crop=(1, 1, 0, 0))["faults"].tolist() == [1]


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (0, 0)])
def test_an_empty_frame(backend, shape):
    found = decide(backend, scene(2, 3, 3), shape)
    assert found["areas"].tolist() == [0, 0]
    assert found["boxes"].tolist() == [[0] * 4] * 2


def test_an_empty_network_shows_nothing(backend):
    found = decide(backend, np.zeros((2, 0, 7), dtype=np.float32), (3, 3), crop=(1, 1, 0, 0))
    assert found["areas"].tolist() == [9, 0]


def test_rows_around_a_sub_rectangle_stay_as_they_are(backend):
    if backend.queue:
        pytest.skip("the arrays of these tests are dense on a GPU")
    frame, probability = np.full((9, 40), 77, np.uint8), np.full((9, 40), 7, np.float32)
    postprocess(
        scene(3, 4, 30), frame[2:7, 5:33], confidence=probability[2:7, 5:33], areas=np.zeros(3, np.int32)
    )
    expected = decide(None, scene(3, 4, 30), (5, 28))
    assert (frame[2:7, 5:33] == expected["labels"]).all()
    assert (probability[2:7, 5:33] == expected["confidence"]).all()
    frame[2:7, 5:33], probability[2:7, 5:33] = 77, 7
    assert (frame == 77).all()
    assert (probability == 7).all()


def test_as_many_classes_as_labels_can_name(backend):
    logits = np.zeros((256, 1, 2), dtype=np.float32)
    logits[255, 0, 1] = 1
    assert decide(backend, logits, (1, 2))["labels"].tolist() == [[0, 255]]
    found = decide(backend, logits[1:], (1, 2), mode="sigmoid")
    assert found["labels"].tolist() == [[1, 255]]
    assert found["boxes"][255].tolist() == [0, 1, 1, 2]


# ---- against the specification --------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["argmax", "sigmoid"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("confidence", [None, np.uint8, np.float16, np.float32])
@pytest.mark.parametrize(
    ("network", "frame"),
    [((5, 16, 28), (67, 121)), ((3, 7, 513), (9, 600)), ((1, 2, 1030), (3, 500)), ((2, 40, 31), (11, 9))],
)
def test_equals_the_reference_bit_for_bit(backend, mode, dtype, confidence, network, frame):
    logits = scene(*network, dtype=dtype)
    options = {"mode": mode, "confidence": confidence, "crop": (1, 2, frame[0] - 2, frame[1] - 4)}
    assert_same_bits(decide(backend, logits, frame, **options), decide(None, logits, frame, **options))


SIZES = st.one_of(st.integers(1, 9), st.sampled_from([16, 31, 64, 129, 513]))


@FUZZ
@given(data=st.data())
def test_fuzzed_sizes_equal_the_reference(backend, data):
    channels, rows, columns = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 9)), data.draw(SIZES)
    height, width = data.draw(st.integers(0, 12)), data.draw(st.one_of(st.just(0), SIZES))
    top, left = data.draw(st.integers(0, height)), data.draw(st.integers(0, width))
    crop = (top, left, data.draw(st.integers(0, height - top)), data.draw(st.integers(0, width - left)))
    logits = scene(channels, rows, columns, data.draw(st.integers(0, 99)), data.draw(st.sampled_from("fe")))
    logits = logits * logits.dtype.type(data.draw(st.sampled_from([0, 1e-6, 1, 100])))
    if data.draw(st.booleans()):
        logits = np.round(logits)  # ties
    if data.draw(st.booleans()):
        logits[-1, rows // 2, columns // 3] = data.draw(st.sampled_from([np.nan, np.inf, -np.inf]))
    options = {
        "mode": data.draw(st.sampled_from(["argmax", "sigmoid"])),
        "threshold": data.draw(st.floats(1e-3, 1)),
        "confidence": data.draw(st.sampled_from([None, np.uint8, np.float16, np.float32])),
        "crop": data.draw(st.sampled_from([None, crop])),
    }
    assert_same_bits(
        decide(backend, logits, (height, width), **options), decide(None, logits, (height, width), **options)
    )


@FUZZ
@given(
    shape=st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(1, 40)),
    steps=st.tuples(st.integers(0, 5), st.integers(0, 50_000)),
    padding=st.integers(0, 50_000),
)
def test_logits_and_labels_may_have_any_strides_between_rows(shape, steps, padding):
    # Overlapping and repeated rows (a stride of 0) are as good an input as any.
    memory = scene(1, 1, 400_000)[0, 0]
    strides = tuple(4 * step for step in (*steps, 1))
    logits = np.lib.stride_tricks.as_strided(memory, shape, strides)
    wide = np.zeros((5, 64 + padding), dtype=np.uint8)
    postprocess(logits, wide[:, :64])
    expected = np.zeros((5, 64), dtype=np.uint8)
    postprocess_reference(logits.copy(), expected)
    assert (wide[:, :64] == expected).all()


@given(targets=st.integers(1, 3000), sources=st.integers(1, 3000))
def test_nearest_is_the_pixel_under_the_centre(targets, sources):
    found = nearest_source(targets, sources).tolist()
    some = range(0, targets, max(1, targets // 40))
    assert [found[t] for t in some] == [int((t + Fraction(1, 2)) * sources / targets) for t in some]


def test_exp_is_within_two_units_in_the_last_place():
    x = np.concatenate([np.linspace(-87, 0, 200_001), -np.logspace(-9, 0, 1001)]).astype(np.float32)
    exact = np.exp(x.astype(np.float64))
    assert np.abs(exp_of_negative(x) / exact - 1).max() < 2 * np.finfo(np.float32).eps
    assert exp_of_negative(np.float32([0, -0.0])).tolist() == [1, 1]
    assert (
        exp_of_negative(np.float32([-88, -1e30, -np.inf, np.nan])) == exp_of_negative(np.float32([-87]))
    ).all()


# ---- refusals -------------------------------------------------------------------------------------


def arrays(**changed):
    given = {
        "logits": np.zeros((3, 4, 5), np.float32),
        "labels": np.zeros((6, 8), np.uint8),
        "confidence": np.zeros((6, 8), np.float32),
        "areas": np.zeros(3, np.int32),
        "boxes": np.zeros((3, 4), np.int32),
        "faults": np.zeros(1, np.int32),
    }
    return given | changed


def read_only(array):
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("logits", np.zeros((3, 4, 5)), "float32 or float16, got float64"),
        ("logits", np.zeros((3, 4, 5), np.int32), "got int32"),
        ("logits", np.zeros((4, 5), np.float32), r"channels x rows x columns .* got shape \(4, 5\)"),
        ("logits", np.zeros((3, 4, 10), np.float32)[:, :, ::2], "dense"),
        ("logits", np.zeros((3, 4, 5), np.float32)[:, ::-1], "strides of at least 0"),
        ("logits", np.zeros((0, 4, 5), np.float32), "1 to 256 channels"),
        ("logits", np.zeros((257, 1, 1), np.float32), "1 to 256 channels"),
        ("logits", np.zeros((3, 0, 5), np.float32), "at least one row and column"),
        (
            "logits",
            np.broadcast_to(np.zeros(1 << 15, np.float32), (3, 1 << 16, 1 << 15)),
            "at most 1073741824 pixels",
        ),
        ("logits", [[[0.0]]], "DLPack"),
        ("labels", np.zeros((6, 8), np.int8), "uint8, got int8"),
        ("labels", np.zeros((6, 8, 1), np.uint8), "rows x columns"),
        ("labels", np.zeros((6, 16), np.uint8)[:, ::2], "dense"),
        ("labels", np.zeros((6, 8), np.uint8)[::-1], "strides of at least 0"),
        ("labels", read_only(np.zeros((6, 8), np.uint8)), "writable"),
        ("labels", np.lib.stride_tricks.as_strided(np.zeros(99, np.uint8), (6, 8), (4, 1)), "elements apart"),
        ("confidence", np.zeros((6, 8)), "uint8 or float16 or float32, got float64"),
        ("confidence", np.zeros((8, 6), np.float32), r"as labels .* got shape \(8, 6\)"),
        ("areas", np.zeros(3, np.int64), "int32, got int64"),
        ("areas", np.zeros(4, np.int32), r"one a class .*\(3,\), got shape \(4,\)"),
        ("boxes", np.zeros((4, 3), np.int32), r"top, left, bottom, right .* got shape \(4, 3\)"),
        ("boxes", np.zeros((6, 4), np.int32)[::2], "dense"),
        ("faults", np.zeros(2, np.int32), r"one count .* got shape \(2,\)"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_by_name(name, array, message):
    with pytest.raises(InvalidInput, match=f"^{name}: expected .*{message}"):
        postprocess(**arrays(**{name: array}))


def test_outputs_that_overlap_are_refused():
    memory = np.zeros(4096, np.uint8)
    logits = memory[:240].view(np.float32).reshape(3, 4, 5)
    labels = memory[200:248].reshape(6, 8)
    with pytest.raises(InvalidInput, match="labels: expected memory apart from logits"):
        postprocess(**arrays(logits=logits, labels=labels))
    # Two halves of one frame interleave without touching; from first byte to last they overlap.
    frame = np.zeros((6, 16), np.uint8)
    with pytest.raises(InvalidInput, match="confidence: expected memory apart from labels"):
        postprocess(**arrays(labels=frame[:, :8], confidence=frame[:, 8:]))
    table = np.zeros(15, np.int32)
    with pytest.raises(InvalidInput, match="boxes: expected memory apart from areas"):
        postprocess(**arrays(areas=table[:3], boxes=table[2:14].reshape(3, 4)))


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"crop": (0, 0, 7, 8)}, r"crop: expected .* inside the frame of \(6, 8\), got \(0, 0, 7, 8\)"),
        ({"crop": (-1, 0, 2, 2)}, "crop: expected"),
        ({"crop": (0, 0, 2, -2)}, "crop: expected"),
        ({"crop": (2**31 - 1, 0, 2**31 - 1, 2)}, "crop: expected"),
        ({"crop": (2**70, 0, 1, 1)}, "crop: expected values of at most"),
        ({"crop": (0, 0, 2)}, "crop: expected four integers"),
        ({"crop": (0, 0, 2.0, 2)}, "crop: expected four integers"),
        ({"crop": 5}, "crop: expected four integers"),
        ({"mode": "softmax"}, "mode: expected argmax or sigmoid, got 'softmax'"),
        ({"stream": 77}, "stream: expected none for arrays on the CPU"),
    ],
)
def test_options_that_do_not_fit_are_refused(option, message):
    with pytest.raises(InvalidInput, match=message):
        postprocess(**arrays(), **option)


@pytest.mark.parametrize("threshold", [0.0, -0.1, 1.01, np.nan, 1e-60])
def test_a_threshold_that_is_no_probability_is_refused(threshold):
    logits = np.zeros((2, 4, 5), np.float32)
    with pytest.raises(InvalidInput, match="threshold: expected a probability above 0"):
        postprocess(**arrays(logits=logits), mode="sigmoid", threshold=threshold)


def test_torch_tensors_are_written_in_place():
    torch = pytest.importorskip("torch")
    logits, labels = torch.zeros((2, 3, 3)), torch.full((5, 5), 9, dtype=torch.uint8)
    logits[1] = 1
    postprocess(logits, labels)
    assert (labels == 1).all()
