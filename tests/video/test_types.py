from __future__ import annotations

import subprocess
import sys

from trocar.video.types import (
    CLASSES,
    HEIGHT,
    INSTRUMENT,
    PALETTE_RGB,
    TIPS_HEIGHT,
    TIPS_WIDTH,
    WIDTH,
    PixelClass,
)


def test_classes_stand_in_the_order_of_the_logits():
    assert CLASSES == ("background", "tissue", "shaft", "wrist", "clasper")
    assert [int(each) for each in PixelClass] == [0, 1, 2, 3, 4]
    assert set(INSTRUMENT) == {2, 3, 4}


def test_every_class_has_a_colour_and_instruments_differ():
    assert set(PALETTE_RGB) == set(PixelClass)
    assert len({PALETTE_RGB[each] for each in INSTRUMENT}) == 3


def test_the_map_of_tips_is_a_quarter_of_the_picture():
    assert (TIPS_HEIGHT * 4, TIPS_WIDTH * 4) == (HEIGHT, WIDTH)
    # Five halvings must come out even.
    assert HEIGHT % 32 == 0
    assert WIDTH % 32 == 0


def test_what_commands_load_needs_no_numpy():
    code = (
        "import sys, trocar.video.types, trocar.video.annotator.cli, trocar.runtime.train\n"
        "print(sorted({'numpy', 'cv2', 'torch', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
