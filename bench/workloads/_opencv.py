"""What a good user of NumPy and OpenCV does after a network, to compare with: buffers are made once."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]
Colours = dict[int, tuple[int, int, int]]


class Chain:
    """Logits to labels, confidence, areas and boxes; then colours and contour lines over the frame.

    Parameters
    ----------
    logits : (channels, h, w) float32.
    height, width : the frame's.
    colours, alpha, contour : what is drawn, as for the kernel.
    """

    def __init__(
        self,
        logits: npt.NDArray[np.float32],
        height: int,
        width: int,
        colours: Colours,
        alpha: float,
        contour: int,
    ) -> None:
        self.logits = logits
        self.size = (width, height)
        self.colours, self.alpha, self.contour = colours, alpha, contour
        self.labels = np.empty((height, width), np.uint8)
        self.confidence = np.empty((height, width), np.uint8)
        self.areas = np.zeros(len(logits), np.int64)
        self.boxes: list[Any] = [(0, 0, 0, 0)] * len(logits)
        self._mask = np.empty((height, width), np.uint8)

    def upsample(self, small: Image, out: Image) -> None:
        """Nearest neighbour by pixel centres."""
        cv2.resize(small, self.size, out, interpolation=cv2.INTER_NEAREST_EXACT)

    def trace(self, frame: Image, mask: Image, colour: tuple[int, int, int]) -> None:
        """Draw the outlines of a mask."""
        outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        cv2.drawContours(frame, outlines, -1, colour, self.contour)


class Plain(Chain):
    """The usual calls: argmax, exp, resize, bincount, boundingRect; LUT, addWeighted, copyTo."""

    def postprocess(self) -> None:
        """Decide, and count on the frame."""
        labels = np.argmax(self.logits, axis=0).astype(np.uint8)
        powers = np.exp(self.logits - self.logits.max(axis=0))
        confidence = powers.max(axis=0) / powers.sum(axis=0)
        self.upsample(labels, self.labels)
        self.upsample((confidence * 255 + 0.5).astype(np.uint8), self.confidence)
        self.areas = np.bincount(self.labels.ravel(), minlength=len(self.logits))
        self.boxes = [
            cv2.boundingRect((self.labels == label).view(np.uint8)) for label in range(len(self.logits))
        ]

    def overlay(self, frame: Image) -> None:
        """Paint through a table of colours."""
        table = np.zeros((1, 256, 3), np.uint8)
        for label, colour in self.colours.items():
            table[0, label] = colour
        colours = cv2.LUT(cv2.merge([self.labels] * 3), table)
        blended = cv2.addWeighted(frame, 1 - self.alpha, colours, self.alpha, 0)
        drawn = np.isin(self.labels, list(self.colours)).view(np.uint8)
        cv2.copyTo(blended, drawn, frame)
        for label, colour in self.colours.items():
            self.trace(frame, (self.labels == label).view(np.uint8), colour)


class Tuned(Chain):
    """The fastest calls found: no temporaries, bytes where they do, rows repeated, each class in its box."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        channels, rows, columns = self.logits.shape
        width, height = self.size
        self._best = np.empty((rows, columns), np.float32)
        self._greater = np.empty((rows, columns), bool)
        self._label = np.empty((rows, columns), np.uint8)
        self._classes = [np.full((rows, columns), label, np.uint8) for label in range(channels)]
        self._powers = np.empty_like(self.logits)
        self._wide = np.empty((rows, width), np.uint8)
        self._row_of = ((2 * np.arange(height) + 1) * rows // (2 * height)).astype(np.intp)
        self._paint = {
            label: np.full((height, width, 3), colour, np.uint8) for label, colour in self.colours.items()
        }
        self._blended = np.empty((height, width, 3), np.uint8)

    def upsample(self, small: Image, out: Image) -> None:
        """Columns by OpenCV, rows by copying."""
        cv2.resize(small, (self.size[0], len(small)), self._wide, interpolation=cv2.INTER_NEAREST_EXACT)
        np.take(self._wide, self._row_of, axis=0, out=out, mode="clip")

    def postprocess(self) -> None:
        """Decide a channel at a time; count with a histogram and a mask a class."""
        np.copyto(self._best, self.logits[0])
        self._label.fill(0)
        for channel in range(1, len(self.logits)):
            np.greater(self.logits[channel], self._best, out=self._greater)
            np.maximum(self._best, self.logits[channel], out=self._best)
            cv2.copyTo(self._classes[channel], self._greater.view(np.uint8), self._label)
        np.subtract(self.logits, self._best, out=self._powers)
        flat = self._powers.reshape(len(self.logits), -1)
        cv2.exp(flat, flat)
        confidence = cv2.convertScaleAbs(255 / self._powers.sum(axis=0))
        self.upsample(self._label, self.labels)
        self.upsample(confidence, self.confidence)
        histogram = cv2.calcHist([self.labels], [0], None, [len(self.logits)], [0, len(self.logits)])
        self.areas = np.ravel(histogram).astype(np.int64)
        for label in range(len(self.logits)):
            cv2.inRange(self.labels, label, label, self._mask)
            self.boxes[label] = cv2.boundingRect(self._mask)

    def overlay(self, frame: Image) -> None:
        """Paint each class inside the box that `postprocess` found."""
        for label, colour in self.colours.items():
            left, top, width, height = self.boxes[label]
            if not width:
                continue
            box = np.s_[top : top + height, left : left + width]
            part, mask, blended = frame[box], self._mask[box], self._blended[box]
            cv2.inRange(self.labels[box], label, label, mask)
            cv2.addWeighted(part, 1 - self.alpha, self._paint[label][box], self.alpha, 0, blended)
            cv2.copyTo(blended, mask, part)
            self.trace(part, mask, colour)
