from __future__ import annotations

import cv2
import numpy as np
import pytest

from trocar.runtime.errors import InvalidInput
from trocar.video.annotator.encodings import ENCODINGS
from trocar.video.annotator.labels import ANY_INSTRUMENT, IGNORE
from trocar.video.annotator.loaders import (
    blobs,
    decode_mask,
    encoding_of,
    find_pairs,
    instrument_mask,
    load_frames,
    surround,
)

BACK, TISSUE, SHAFT, WRIST, CLASPER = range(5)
GREY = np.full((4, 8, 3), 120, dtype=np.uint8)
# What each grey value of a data set means, written out here from the data sets' papers.
MEANINGS = {
    "endovis17": {0: TISSUE, 10: SHAFT, 20: WRIST, 30: CLASPER},
    "cholecseg8k": {
        50: BACK, 11: TISSUE, 21: TISSUE, 13: TISSUE, 12: TISSUE, 31: ANY_INSTRUMENT, 23: TISSUE, 24: TISSUE,
        25: TISSUE, 32: ANY_INSTRUMENT, 22: TISSUE, 33: TISSUE, 5: TISSUE, 255: IGNORE, 0: IGNORE,
    },
    "sar-rarp50": {0: TISSUE, 1: CLASPER, 2: WRIST, 3: SHAFT, 4: TISSUE, 5: TISSUE, 6: ANY_INSTRUMENT},
    "autolaparo": {0: TISSUE, 20: ANY_INSTRUMENT, 40: SHAFT, 160: SHAFT, 180: TISSUE},
    "artnet": {0: TISSUE, 127: TISSUE, 128: ANY_INSTRUMENT, 255: ANY_INSTRUMENT},
    "cholecseg8k-instrument": {0: TISSUE, 255: ANY_INSTRUMENT},
    "kvasir-seg": {0: 0, 3: 0, 127: 0, 128: 1, 252: 1, 255: 1},
    "cvc-612": {0: 0, 127: 0, 128: 1, 255: 1},
}  # fmt: skip


def write(folder, name, array):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), array)


@pytest.mark.parametrize("name", MEANINGS)
def test_every_value_of_a_data_set_becomes_its_class(name):
    values = MEANINGS[name]
    mask = np.array([list(values)], dtype=np.uint8)
    assert decode_mask(mask, ENCODINGS[name], "m.png")[0].tolist() == list(values.values())


def test_the_colours_of_endovis18_become_classes():
    colours = {
        (0, 0, 0): TISSUE,
        (0, 255, 0): SHAFT,
        (0, 255, 255): CLASPER,
        (125, 255, 12): WRIST,
        (255, 55, 0): TISSUE,
        (123, 15, 175): ANY_INSTRUMENT,
        (187, 155, 25): TISSUE,
    }
    mask = np.array([list(colours)], dtype=np.uint8)
    assert decode_mask(mask, ENCODINGS["endovis18"], "m.png")[0].tolist() == list(colours.values())


def test_every_encoding_is_tested():
    assert {*MEANINGS, "endovis18"} == set(ENCODINGS)


@pytest.mark.parametrize("name", ["endovis17", "endovis18", "cholecseg8k", "sar-rarp50", "autolaparo"])
def test_a_mask_of_another_data_set_is_refused(name):
    shape = (6, 6, 3) if ENCODINGS[name].colours else (6, 6)
    with pytest.raises(InvalidInput, match=r"m.png: expected the data set's own values, 100 % are others"):
        decode_mask(np.full(shape, 77, dtype=np.uint8), ENCODINGS[name], "m.png")


# Frame and mask as each data set lays them out.
LAYOUTS = {
    "endovis17": ("set_1/left_frames/frame000.png", "set_1/ground_truth/Left_labels/frame000.png"),
    "endovis18": ("seq_2/left_frames/frame000.png", "seq_2/labels/frame000.png"),
    "cholecseg8k": ("video01/frame_80_endo.png", "video01/frame_80_endo_watershed_mask.png"),
    "cholecseg8k-instrument": ("frames/a.png", "masks/a.png"),
    "sar-rarp50": ("video_1/rgb/000000000.png", "video_1/segmentation/000000000.png"),
    "autolaparo": ("imgs/01_001.jpg", "masks/01_001.png"),
    "artnet": ("images/image1.png", "toolmask/image1.png"),
    "kvasir-seg": ("images/cju0.jpg", "masks/cju0.jpg"),
    "cvc-612": ("Original/1.tif", "Ground Truth/1.tif"),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_data_set_is_read_in_its_own_layout(tmp_path, name):
    frame, mask = LAYOUTS[name]
    encoding = ENCODINGS[name]
    write(tmp_path, frame, GREY)
    value = np.zeros((4, 8, 3) if encoding.colours else (4, 8), dtype=np.uint8)
    write(tmp_path, mask, value if name != "cholecseg8k" else value + 11)
    (found,) = load_frames(tmp_path, name)
    assert found.name == frame
    assert found.image_rgb.shape == (4, 8, 3)
    assert set(np.unique(found.labels)) == {0 if encoding.polyps else TISSUE}


def test_colours_are_rgb_in_memory(tmp_path):
    write(tmp_path, "images/a.png", np.full((4, 4, 3), (10, 20, 200), dtype=np.uint8))  # OpenCV writes BGR
    write(tmp_path, "masks/a.png", np.zeros((4, 4), dtype=np.uint8))
    (found,) = load_frames(tmp_path, "kvasir-seg")
    assert found.image_rgb[0, 0].tolist() == [200, 20, 10]


def test_endovis17_is_background_outside_its_view(tmp_path):
    write(tmp_path, "frames/a.png", np.full((1080, 1920, 3), 90, dtype=np.uint8))
    mask = np.zeros((1080, 1920), dtype=np.uint8)
    mask[500:600, 1500:1920] = 10
    write(tmp_path, "masks/a.png", mask)
    (found,) = load_frames(tmp_path, "endovis17")
    inside = found.labels[28 : 28 + 1024, 320 : 320 + 1280]
    assert (found.labels == BACK).sum() == 1080 * 1920 - 1024 * 1280
    assert not (inside == BACK).any()
    assert found.labels[550, 1599] == SHAFT
    assert found.labels[550, 1600] == BACK


def test_a_black_surround_is_background_and_dark_inside_is_not():
    image = np.full((60, 80, 3), 100, dtype=np.uint8)
    image[:, :10] = 3
    image[30:40, 40:50] = 3
    outside = surround(image)
    assert outside[:, :8].all()
    assert not outside[:, 12:].any()


def test_tips_are_the_centres_of_blobs(tmp_path):
    grey = np.zeros((20, 30), dtype=np.uint8)
    grey[4:7, 9:12] = 255
    grey[15, 20] = 200
    assert sorted(blobs(grey).tolist()) == [[10.5, 5.5], [20.5, 15.5]]
    write(tmp_path, "images/a.png", np.full((20, 30, 3), 99, dtype=np.uint8))
    write(tmp_path, "toolmask/a.png", grey)
    (without,) = load_frames(tmp_path, "artnet")
    assert without.tips_xy is None
    write(tmp_path, "tooltip/a.png", grey)
    (found,) = load_frames(tmp_path, "artnet")
    assert len(found.tips_xy) == 2


def test_hostile_folders_are_refused_in_one_line(tmp_path):
    with pytest.raises(InvalidInput, match=r"expected a folder of frames and masks"):
        find_pairs(tmp_path / "none", ENCODINGS["endovis17"])
    write(tmp_path, "frames/a.png", GREY)
    with pytest.raises(InvalidInput, match=r"with masks of the same names in masks or .*found none"):
        find_pairs(tmp_path, ENCODINGS["endovis17"])
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks/a.png").write_bytes(b"not a picture")
    with pytest.raises(InvalidInput, match=r"a.png: expected a picture, got 13 bytes that are none"):
        list(load_frames(tmp_path, "endovis17"))
    (tmp_path / "masks/a.png").write_bytes(b"")
    with pytest.raises(InvalidInput, match=r"a.png: expected a picture, got 0 bytes"):
        list(load_frames(tmp_path, "endovis17"))
    write(tmp_path, "masks/a.png", np.zeros((5, 8), dtype=np.uint8))
    with pytest.raises(InvalidInput, match=r"a.png: expected the frame's 8 x 4 px, got 8 x 5"):
        list(load_frames(tmp_path, "endovis17"))
    with pytest.raises(InvalidInput, match=r"data set: expected one of endovis17.*got 'mine'"):
        encoding_of("mine")


REAL = {
    "endovis17": ("endovis17", 3, (0.05, 0.30)),
    "cholecseg8k_instrument": ("cholecseg8k-instrument", 5, (0.0, 0.15)),
    "artnet_tool_tip": ("artnet", 2, (0.01, 0.10)),
    "kvasir_seg": ("kvasir-seg", 2, (0.1, 0.6)),
    "cvc612": ("cvc-612", 6, (0.1, 0.5)),
}


@pytest.mark.parametrize("folder", REAL)
def test_real_frames_are_read(shared_dir, folder):
    name, count, (low, high) = REAL[folder]
    frames = list(load_frames(shared_dir / "video" / folder, name))
    assert len(frames) == count
    for frame in frames:
        marked = frame.labels == 1 if ENCODINGS[name].polyps else instrument_mask(frame.labels)
        assert low <= marked.mean() <= high
    if name == "artnet":
        # The tip lies at the end of the tool's mask, which comes from the right.
        for frame in frames:
            ((x, _),) = frame.tips_xy
            assert abs(x - np.nonzero(instrument_mask(frame.labels))[1].min()) < 0.11 * frame.labels.shape[1]
