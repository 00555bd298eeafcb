"""Annotators that a worker process can be told to run in the place of a model: right, slow, stuck, broken."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np

from trocar.runtime.errors import DeviceError, InvalidInput
from trocar.video.frames import Annotation, Frame, Instance, UInt8Array

TISSUE, SHAFT = 1, 2


class Double:
    """Labels a square that tells the frame: its shade is the picture's first pixel."""

    device = "a stand-in for tests"

    def __init__(
        self, fault: str = "", at: int = 0, flag: str = "", ms: float = 0.0, after: str = ""
    ) -> None:
        self.fault, self.at, self.flag, self.ms, self.after = fault, at, flag, ms, after

    def annotate(self, frame: Frame, labels: UInt8Array) -> Annotation:
        if self.ms:
            time.sleep(self.ms / 1000)
        self._misbehave(frame)
        labels[...] = TISSUE
        labels[: labels.shape[0] // 2, : labels.shape[1] // 2] = SHAFT
        size = labels.shape
        one = Instance("instrument", (0, 0, size[1] // 2, size[0] // 2), int(np.sum(labels == SHAFT)), 0.9)
        return Annotation(frame.index, frame.pts_s, labels, SHAFT, (one,), 0.9, {"model": self.ms})

    def _misbehave(self, frame: Frame) -> None:
        if not self.fault or frame.index < self.at:
            return
        # A fault that waits for a file comes when the test says so, however slow the machine is.
        if self.after and not Path(self.after).exists():
            return
        # A fault that is to happen once leaves a flag behind, for the worker that comes after.
        if self.flag:
            if Path(self.flag).exists():
                return
            Path(self.flag).touch()
        if self.fault == "hang":
            time.sleep(3600)
        if self.fault == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        if self.fault == "raise":
            raise RuntimeError("a fault nobody foresaw")
        if self.fault == "refuse":
            raise DeviceError("the model gave values that are not numbers")


def double(**arguments: object) -> Double:
    return Double(**arguments)  # type: ignore[arg-type]


def missing() -> Double:
    raise InvalidInput("expected a model, got none")


class _Liar(Double):
    def annotate(self, frame: Frame, labels: UInt8Array) -> Annotation:
        answer = super().annotate(frame, labels)
        return Annotation(frame.index, frame.pts_s, labels, SHAFT, answer.instances, 2.0)


def liar() -> Double:
    """Says that it is twice as sure as can be: well formed, and nonsense."""
    return _Liar()
