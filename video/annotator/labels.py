"""What a label map may hold beside the classes, and tips as a map."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

# A data set that marks instruments but not their parts; the loss takes any part for right.
ANY_INSTRUMENT = 254
# Not labelled: counts for nothing.
IGNORE = 255
_SIGMA_CELLS = 1.2


def tip_bells(
    tips_xy: npt.NDArray[np.float64], shape: tuple[int, int], stride: int = 4
) -> npt.NDArray[np.float32]:
    """A bell of height 1 at each tip's cell; where bells meet, the higher.

    Parameters
    ----------
    tips_xy : (n, 2) px in the frame.
    shape : the frame's.
    stride : pixels a cell.
    """
    rows, columns = shape[0] // stride, shape[1] // stride
    bells = np.zeros((rows, columns), dtype=np.float32)
    y, x = np.arange(rows)[:, None], np.arange(columns)[None, :]
    for tip in tips_xy:
        column, row = (int(value) for value in np.floor(np.asarray(tip) / stride))
        if 0 <= row < rows and 0 <= column < columns:
            square: Any = (x - column) ** 2 + (y - row) ** 2
            np.maximum(bells, np.exp(square / (-2 * _SIGMA_CELLS**2)), out=bells)
    return bells
