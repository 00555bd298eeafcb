import argparse

import av
import numpy as np
import pytest

from trocar.bench.workloads import video


@pytest.fixture
def clip(tmp_path):
    """Half a second of a moving square."""
    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=20)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for number in range(10):
            picture = np.full((240, 320, 3), 90, np.uint8)
            picture[80:160, 20 * number : 20 * number + 60] = 200
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="bgr24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def test_a_clip_is_played_offline_and_live_with_its_floor(clip):
    parser = argparse.ArgumentParser()
    video.add_arguments(parser)
    found = video.run(parser.parse_args(["--clip", str(clip), "--threads", "1"]))
    rows = found["tables"]["clips"]
    assert [(row["clip"], row["way"], row["frames"]) for row in rows] == [
        ("clip.mp4", "live", 10),
        ("clip.mp4", "offline", 10),
    ]
    stages = found["results"]["clip.mp4 offline"]
    # Every frame of a clip that is not live gets its overlay; its total is the queue's, and left out.
    assert {name: timing["samples"] for name, timing in stages.items()} == dict.fromkeys(
        ("preprocess", "model", "postprocess", "overlay"), 10
    )
    assert stages["model"]["over_floor"] > 0
    assert [row for row in found["tables"]["latency"] if row["way"] == "offline" and row["stage"] == "model"]
