"""The process that runs the model: whatever happens to it, the picture is somebody else's.

Started by `trocar.video.remote` as `python -m trocar.video.worker SOCKET PARENT`: an inherited descriptor and
a process id. The first message says what to run. A message with a descriptor brings new frame memory; each
other one names a frame in it, and is answered in order.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import signal
import socket
import sys
from typing import Any, Protocol

from trocar.runtime.errors import TrocarError
from trocar.runtime.process import begin
from trocar.video.frames import Annotation, Frame, UInt8Array
from trocar.video.messages import Inbox, annotation_document, decode, encode
from trocar.video.ring import Geometry, Ring

_PR_SET_PDEATHSIG = 1
# An error's line must fit a datagram.
_LONGEST_LINE = 1000


class Annotator(Protocol):
    """What a worker runs. Any `module:function` that returns one can be named in `WorkerSpec.factory`."""

    @property
    def device(self) -> str:
        """Where it runs and why, in one line."""

    def annotate(self, frame: Frame, labels: UInt8Array) -> Annotation:
        """Annotate one frame.

        Parameters
        ----------
        frame : its image is not to be written.
        labels : (height, width) uint8, the caller's; every pixel is to be written.

        Raises
        ------
        TrocarError
            This frame cannot be annotated; the next one may.
        """


def main(arguments: list[str]) -> int:
    """Serve frames until the other side closes its end."""
    _end_with_parent(int(arguments[1]))
    link = begin(arguments)
    try:
        _serve(link)
    except (BrokenPipeError, ConnectionResetError):
        return 0
    return 0


def _serve(link: socket.socket) -> None:
    inbox = Inbox()
    first = decode(inbox.receive(link)[0])
    try:
        annotator = _open(first)
    except TrocarError as error:
        link.send(encode({"failed": _line(error)}))
        return
    link.send(encode({"ready": annotator.device}))
    ring: Ring | None = None
    while True:
        data, descriptors = inbox.receive(link)
        if not data:
            return
        request = decode(data)
        if descriptors:
            ring = Ring(descriptors[0], Geometry(**request["ring"]))
        else:
            assert ring is not None, "the memory comes before the first frame"
            link.send(encode(_answer(annotator, ring, request)))


def _answer(annotator: Annotator, ring: Ring, request: dict[str, Any]) -> dict[str, Any]:
    slot = ring.slot(request["slot"])
    frame = Frame(request["frame"], request["pts_s"], request["captured_at_s"], slot.image_bgr)
    try:
        annotation = annotator.annotate(frame, slot.labels)
        return {"frame": frame.index, **annotation_document(annotation)}
    except TrocarError as error:
        return {"frame": frame.index, "error": _line(error)}


def _open(first: dict[str, Any]) -> Annotator:
    module, _, function = str(first["factory"]).partition(":")
    annotator: Annotator = getattr(importlib.import_module(module), function)(**first["arguments"])
    return annotator


def _line(error: TrocarError) -> str:
    return str(error).partition("\n")[0][:_LONGEST_LINE]


def _end_with_parent(parent: int) -> None:
    """Have the kernel end this process with the thread that started it, which is the watchdog's.

    The end of the socket is seen between frames only: a model that hangs would outlive a killed parent.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before it could be asked for
        os._exit(0)


if __name__ == "__main__":
    if not os.environ.get("TROCAR_DEBUG"):
        # The pipeline says in one line that a worker ended; a traceback would hide it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
    sys.exit(main(sys.argv[1:]))
