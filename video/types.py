"""The classes that a frame's pixels may have, and the colours they are shown in; no NumPy."""

from __future__ import annotations

from enum import IntEnum
from types import MappingProxyType


class PixelClass(IntEnum):
    """What a pixel of a frame shows.

    Background is what lies outside the endoscope's picture: its black surround, bars and insets.
    """

    BACKGROUND = 0
    TISSUE = 1
    SHAFT = 2
    WRIST = 3
    CLASPER = 4


CLASSES = tuple(each.name.lower() for each in PixelClass)
INSTRUMENT = (PixelClass.SHAFT, PixelClass.WRIST, PixelClass.CLASPER)
POLYP_CLASSES = ("other", "polyp")

# Okabe and Ito's colours, told apart by the colour-blind; background and tissue stay clear.
PALETTE_RGB = MappingProxyType(
    {
        PixelClass.BACKGROUND: (0, 0, 0),
        PixelClass.TISSUE: (0, 0, 0),
        PixelClass.SHAFT: (86, 180, 233),
        PixelClass.WRIST: (240, 228, 66),
        PixelClass.CLASPER: (0, 158, 115),
    }
)

# The network's picture.
HEIGHT, WIDTH = 256, 448
TIPS_HEIGHT, TIPS_WIDTH = 64, 112
