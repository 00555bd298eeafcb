import gzip
import itertools
import time
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trocar.planners.io.nrrd import MAX_DATA_BYTES, read_label_volume
from trocar.runtime.errors import InvalidInput

AXES = list(itertools.permutations(range(3)))
FLIPS = list(itertools.product((1, -1), repeat=3))
SPACES = ("left-posterior-superior", "right-anterior-superior", "left-anterior-superior", "LPS", "RAS", "LAS")


def numbered():
    """A volume whose voxels all differ, on a grid whose spacings and origin do."""
    return np.arange(2 * 3 * 4 * 5, dtype=np.int16).reshape(2, 3, 4, 5)


PLACE = {"spacing_zyx": (5.0, 0.75, 1.25), "origin_xyz": (-7.5, 3.25, 40.0)}


def same_volume(volume, layers):
    np.testing.assert_array_equal(volume.layers_lzyx, layers)
    assert volume.z_mm.tolist() == [40.0, 45.0, 50.0]
    assert volume.origin_xy_mm == (-7.5, 3.25)
    assert volume.spacing_yx_mm == (0.75, 1.25)
    assert volume.pitch_z_mm == 5.0


@settings(max_examples=80, deadline=None)
@given(
    axes=st.sampled_from(AXES),
    flips=st.sampled_from(FLIPS),
    space=st.sampled_from(SPACES),
    list_axis=st.integers(0, 3),
    encoding=st.sampled_from(["raw", "gzip", "bzip2"]),
)
def test_every_orientation_is_the_same_volume(make_nrrd, axes, flips, space, list_axis, encoding):
    layers = numbered()
    data = make_nrrd(
        layers, [], axes=axes, flips=flips, space=space, list_axis=list_axis, encoding=encoding, **PLACE
    )
    same_volume(read_label_volume(data), layers)


def test_three_dimensions_and_pynrrd_agree(make_nrrd, tmp_path):
    import nrrd

    layers = numbered()[:1]
    data = make_nrrd(layers, [], list_axis=None, **PLACE)
    same_volume(read_label_volume(data), layers)
    (tmp_path / "x.nrrd").write_bytes(data)
    values, header = nrrd.read(str(tmp_path / "x.nrrd"))
    np.testing.assert_array_equal(values.transpose(2, 1, 0), layers[0])
    assert header["space origin"].tolist() == [-7.5, 3.25, 40.0]


def test_big_endian(make_nrrd):
    layers = numbered()[:1]
    data = make_nrrd(layers.astype("<i2"), [], list_axis=None, encoding="raw", **PLACE)
    head, body = data.split(b"\n\n", 1)
    swapped = np.frombuffer(body, "<i2").astype(">i2").tobytes()
    same_volume(
        read_label_volume(head.replace(b"endian: little", b"endian: big") + b"\n\n" + swapped), layers
    )


def test_windows_line_ends(make_nrrd):
    layers = numbered()[:1]
    head, body = make_nrrd(layers, [], list_axis=None, **PLACE).split(b"\n\n", 1)
    same_volume(read_label_volume(head.replace(b"\n", b"\r\n") + b"\r\n\r\n" + body), layers)


def test_the_older_slicer_form():
    """Four space axes, RAS unsaid, the reference image's origin: the block begins at index (10, 20, -2)."""
    block = np.zeros((3, 4, 5), np.uint8)
    block[1, 2, 3] = 1
    lines = [
        "NRRD0004",
        "type: unsigned char",
        "dimension: 4",
        "space dimension: 4",
        "sizes: 5 4 3 1",
        "space directions: (-1,0,0,0) (0,-2,0,0) (0,0,2.5,0) (0,0,0,1)",
        "kinds: domain domain domain domain",
        "encoding: gzip",
        "space origin: (250,240,-120,0)",
        "Segment0_ID:=r",
        "Segment0_Extent:=10 14 20 23 -2 0",
        "Segmentation_Extent:=10 14 20 23 -2 0",
    ]
    volume = read_label_volume("\n".join(lines).encode() + b"\n\n" + gzip.compress(block.tobytes()))
    assert volume.layers_lzyx.shape == (1, 3, 4, 5)
    # Index (3, 2, 1) of the block is (13, 22, -1): RAS (237, 196, -122.5), LPS (-237, -196, -122.5).
    _, z, y, x = (int(i) for i in np.argwhere(volume.layers_lzyx)[0])
    assert volume.z_mm[z] == -122.5
    assert volume.origin_xy_mm[0] + volume.spacing_yx_mm[1] * x == -237
    assert volume.origin_xy_mm[1] + volume.spacing_yx_mm[0] * y == -196


HOSTILE = {
    "10^12 voxels": ({"sizes": "2 1000000 1000 1000"}, r"claims 2000000000000 voxels .* more than the limit"),
    "more than numpy can count": (
        {"sizes": "2 99999999999999999999 5 3"},
        "claims 2999999999999999999970 voxels",
    ),
    "negative size": ({"sizes": "2 -5 4 3"}, "sizes must be positive, got 2, -5, 4, 3"),
    "zero size": ({"sizes": "2 0 4 3"}, "sizes must be positive"),
    "sizes and dimension": ({"sizes": "5 4 3"}, "dimension is 4 but sizes has 3"),
    "sizes not figures": ({"sizes": "a b c d"}, "header cannot be parsed"),
    "no sizes": ({"sizes": None}, "expected one line of sizes, got 0"),
    "half a voxel": ({"sizes": "2 5 4 2.5"}, "header cannot be parsed"),
    "empty sizes": ({"sizes": ""}, "dimension is 4 but sizes has 0"),
    "two dimensions": ({"dimension": "2"}, "expected 3 dimensions, or 4 with layers, got 2"),
    "dimension not a figure": ({"dimension": "many"}, "header cannot be parsed"),
    "zero spacing": ({"space directions": "none (1,0,0) (0,0,0) (0,0,5)"}, "voxel spacing must be > 0"),
    "NaN spacing": (
        {"space directions": "none (1,0,0) (0,nan,0) (0,0,5)"},
        "a space direction is not finite",
    ),
    "all NaN": (
        {"space directions": "none (1,0,0) (nan,nan,nan) (0,0,5)"},
        "expected 1 axes without a direction",
    ),
    "infinite spacing": ({"space directions": "none (1,0,0) (0,inf,0) (0,0,5)"}, "not finite"),
    "huge spacing": ({"space directions": "none (1,0,0) (0,1e9,0) (0,0,5)"}, "not a patient's"),
    "oblique": (
        {"space directions": "none (0.866,0.5,0) (-0.5,0.866,0) (0,0,5)"},
        r"oblique: an axis is 30.0 degrees off .* resample",
    ),
    "singular": ({"space directions": "none (1,0,0) (1,0,0) (0,0,5)"}, "oblique"),
    "short directions": ({"space directions": "none (1,0) (0,1) (0,0)"}, "must have 3 figures"),
    "directions missing": ({"space directions": None}, "no space directions"),
    "directions garbled": ({"space directions": "none 1,0,0 (0,1,0"}, "header cannot be parsed"),
    "origin missing": ({"space origin": None}, "no space origin"),
    "origin NaN": ({"space origin": "(nan,0,0)"}, "space origin is not finite"),
    "origin short": ({"space origin": "(0,0)"}, "space origin must have 3 figures, got 2"),
    "space missing": ({"space": None}, 'got "not given"'),
    "space unknown": ({"space": "scanner-xyz"}, 'got "scanner-xyz"'),
    "detached": ({"data file": "/etc/passwd"}, "detached header"),
    "detached, other spelling": ({"datafile": "x.raw"}, "detached header"),
    "skips bytes": ({"byte skip": "-1"}, "byte skip is not supported"),
    "floats": ({"type": "float"}, 'got type "float"'),
    "blocks": ({"type": "block"}, 'got type "block"'),
    "no type": ({"type": None}, "got type"),
    "text": ({"encoding": "ascii"}, 'must be raw, gzip or bzip2, got "ascii"'),
    "no encoding": ({"encoding": None}, "must be raw, gzip or bzip2"),
    "no endian": ({"endian": None}, "expected endian little or big"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_headers(make_nrrd, name):
    fields, message = HOSTILE[name]
    fields = dict(fields)
    encoding = fields.pop("encoding", "gzip")
    data = make_nrrd(numbered(), [], fields=fields, **PLACE)
    if encoding != "gzip":
        data = data.replace(b"encoding: gzip\n", f"encoding: {encoding}\n".encode() if encoding else b"")
    with pytest.raises(InvalidInput, match=message) as caught:
        read_label_volume(data)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_a_tenth_of_a_degree_is_not_oblique(make_nrrd):
    fields = {"space directions": "none (1.25,0.001,0) (0,0.75,0) (0,0,5)"}
    read_label_volume(make_nrrd(numbered(), [], fields=fields, **PLACE))


@pytest.mark.parametrize("encoding", ["raw", "gzip", "bzip2"])
def test_truncated_data(make_nrrd, encoding):
    data = make_nrrd(numbered(), [], encoding=encoding, **PLACE)
    for cut in (1, 10, len(data.split(b"\n\n", 1)[1])):
        with pytest.raises(InvalidInput, match=r"truncated: the header claims 240 bytes|corrupt"):
            read_label_volume(data[:-cut] if encoding == "raw" or cut > 10 else data[: -cut - 60])


@pytest.mark.parametrize("encoding", ["gzip", "bzip2"])
def test_corrupt_and_overlong_data(make_nrrd, encoding):
    data = make_nrrd(numbered(), [], encoding=encoding, **PLACE)
    head = data.split(b"\n\n", 1)[0]
    with pytest.raises(InvalidInput, match=f"the {encoding} data is corrupt"):
        read_label_volume(head + b"\n\n" + b"garbage" * 40)
    longer = np.zeros((2, 3, 4, 6), np.int16)
    data = make_nrrd(longer, [], encoding=encoding, fields={"sizes": "2 5 4 3"}, **PLACE)
    with pytest.raises(InvalidInput, match="holds more than the 240 bytes"):
        read_label_volume(data)


def test_a_bomb_is_not_inflated(make_nrrd):
    """64 MB of zeros behind a claim of 240 bytes: refused after a few hundred."""
    import tracemalloc

    packer = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS | 16)
    bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(64)) + packer.flush()
    head = make_nrrd(numbered(), [], **PLACE).split(b"\n\n", 1)[0]
    data = head + b"\n\n" + bomb
    tracemalloc.start()
    with pytest.raises(InvalidInput, match="holds more than the 240 bytes"):
        read_label_volume(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000
    assert MAX_DATA_BYTES <= 512 * 1024 * 1024


def test_headers_without_end_or_beginning():
    for data in (b"", b"NRRD", b"NRRD0005\ntype: uchar\n", b"PNG\n\n", b"NRRD0009\n\n", b"NRRDxxxx\n\nabc"):
        with pytest.raises(InvalidInput, match=r"^NRRD: "):
            read_label_volume(data)
    start = time.perf_counter()
    with pytest.raises(InvalidInput, match=r"no end within 1048576 bytes"):
        read_label_volume(b"NRRD0005\n" + b"# padding\n" * 2_000_000)
    assert time.perf_counter() - start < 2.0


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_damaged_file_is_refused_or_read_never_worse(make_nrrd, data):
    whole = bytearray(make_nrrd(numbered(), [{"ID": "a", "Name": "CTV"}], **PLACE))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(whole) - 1))
        whole[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(whole)))
    message = ""
    try:
        volume = read_label_volume(bytes(whole[:cut]) if data.draw(st.booleans()) else bytes(whole))
    except InvalidInput as error:
        message = str(error)
    else:
        assert volume.layers_lzyx.ndim == 4
        assert np.isfinite(volume.z_mm).all()
    assert "\n" not in message
