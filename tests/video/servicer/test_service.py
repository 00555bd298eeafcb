from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import cv2
import pytest

from trocar.runtime.config import Config
from trocar.runtime.server.app import Server
from trocar.video.servicer import add_to_server


@pytest.fixture(autouse=True)
def _other_tests_keep_their_threads() -> Iterator[None]:
    before = cv2.getNumThreads()
    yield
    cv2.setNumThreads(before)


def test_a_server_s_frames_leave_the_other_cores_alone() -> None:
    cv2.setNumThreads(2)
    config = Config()
    Server(replace(config, server=replace(config.server, listen="127.0.0.1:0")), {"video": add_to_server})
    assert cv2.getNumThreads() == 1
