"""DICOM objects to a storage peer: C-ECHO before the work, C-STORE after it (PS3.7, 9.1.1 and 9.1.5)."""

from __future__ import annotations

import io
import re
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trocar.planners.io.dicom import RT_DOSE, RT_PLAN, RT_STRUCTURE_SET, text
from trocar.planners.io.dicom_write import EXPLICIT_LITTLE, IMPLICIT_LITTLE
from trocar.planners.types import require
from trocar.runtime.errors import Unavailable

if TYPE_CHECKING:
    from pynetdicom.association import Association

VERIFICATION = "1.2.840.10008.1.1"
STORED = {RT_STRUCTURE_SET: "RTSTRUCT", RT_PLAN: "RTPLAN", RT_DOSE: "RTDOSE"}
SUCCESS = 0x0000
# Stored, though something was coerced or dropped (PS3.4, B.2.3).
WARNINGS = (0xB000, 0xB006, 0xB007)
# PS3.4, B.2.3: the first digits of a failure.
FAILURES = {
    0x0122: "SOP class not supported",
    0x0124: "not authorised",
    0xA700: "out of resources",
    0xA900: "not of its SOP class",
    0xC000: "cannot understand",
}
CONNECT_S = 10.0


@dataclass(frozen=True, slots=True)
class Peer:
    """A storage SCP, and what we call it and ourselves.

    Parameters
    ----------
    called, calling : AE titles, theirs and ours.
    timeout_s : of one exchange, whatever its parts take.
    """

    host: str
    port: int
    called: str
    calling: str
    timeout_s: float

    def __str__(self) -> str:
        return f"{self.called}@{self.host}:{self.port}"


def parse_peer(text: str, *, called: str, calling: str, timeout_s: float) -> Peer:
    """Read HOST:PORT and the AE titles.

    Raises
    ------
    InvalidInput
        They cannot be meant.
    """
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    require(bool(host), f"--send: expected HOST:PORT, got {text!r}")
    require(
        port.isascii() and port.isdigit() and 0 < int(port) < 65_536,
        f"--send: expected a port from 1 to 65535, got {port!r}",
    )
    for option, title in (("--aec", called), ("--aet", calling)):
        # PS3.5, 6.2: 16 characters of the default repertoire, no backslash, not spaces alone.
        require(
            bool(re.fullmatch(r"[ -\[\]-~]{1,16}", title)) and bool(title.strip()),
            f"{option}: expected an AE title of 1 to 16 characters, got {title!r}",
        )
    require(0 < timeout_s <= 3600, f"--send-timeout-s: expected 0 to 3600 s, got {timeout_s:g}")
    return Peer(host, int(port), called, calling, timeout_s)


def check_peer(peer: Peer) -> None:
    """Ask the peer whether it is there and takes our objects, before anything is computed.

    Raises
    ------
    Unavailable
        Nobody answers, it refuses the association or a kind of object, or does not echo.
    """
    with _associated(peer) as association:
        status = association.send_c_echo()
        if _code(status) != SUCCESS:
            raise Unavailable(f"{peer}: expected its C-ECHO to succeed, got {_said(status)}")


def send(
    peer: Peer, files: Mapping[str, bytes], *, progress: Callable[[str], None] | None = None
) -> tuple[str, ...]:
    """Send DICOM files in their order, and stop at the first that is not taken.

    Parameters
    ----------
    files : name to content.
    progress : told a line of each file that was taken.

    Returns
    -------
    One sentence of each file that was taken with a warning.

    Raises
    ------
    Unavailable
        As for `check_peer`, or a file was not taken; the message says which were.
    """
    from pydicom import dcmread

    taken: list[str] = []
    warned: list[str] = []
    try:
        with _associated(peer) as association:
            for name, content in files.items():
                status = association.send_c_store(dcmread(io.BytesIO(content)))
                code = _code(status)
                if code != SUCCESS and code not in WARNINGS:
                    raise Unavailable(f"{peer}: {name} was not stored: {_said(status)}")
                taken.append(name)
                if code != SUCCESS:
                    warned.append(f"{name}: stored, with {_said(status)}")
                if progress is not None:
                    progress(f"{name}: stored by {peer} ({len(content)} bytes)")
    except Unavailable as error:
        left = [name for name in files if name not in taken]
        raise Unavailable(f"{error}; stored: {_listed(taken)}; not stored: {_listed(left)}") from error
    return tuple(warned)


@contextmanager
def _associated(peer: Peer) -> Iterator[Association]:
    """Hold an association, all contexts accepted, that ends when the time is up, whatever the peer does."""
    from pynetdicom import AE, evt

    connections: list[socket.socket] = []

    def connected(event: Any) -> None:
        connections.append(event.assoc.dul.socket.socket)

    entity = AE(ae_title=peer.calling)
    entity.connection_timeout = min(CONNECT_S, peer.timeout_s)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = peer.timeout_s
    for sop_class in (VERIFICATION, *STORED):
        entity.add_requested_context(sop_class, [EXPLICIT_LITTLE, IMPLICIT_LITTLE])
    late = threading.Event()

    def give_up() -> None:
        # pynetdicom's own limits leave out a peer that does not read: it would wait for ever.
        late.set()
        _shut(connections)

    timer = threading.Timer(peer.timeout_s, give_up)
    timer.daemon = True
    timer.start()
    try:
        association = entity.associate(
            peer.host, peer.port, ae_title=peer.called, evt_handlers=[(evt.EVT_CONN_OPEN, connected)]
        )
        try:
            _require_accepted(association, peer, connected=bool(connections))
            yield association
        finally:
            association.release()
    except (OSError, RuntimeError, ValueError) as error:
        # pynetdicom's own, for a name that is none or a connection that is gone.
        raise Unavailable(f"{peer}: {_ended(late, peer) or error}") from error
    except Unavailable as error:
        raise (Unavailable(f"{peer}: {_ended(late, peer)}") if late.is_set() else error) from error
    finally:
        timer.cancel()
        _shut(connections)


def _require_accepted(association: Association, peer: Peer, *, connected: bool) -> None:
    """Say why there is no association, or which kinds of object it refuses."""
    refused = [context.abstract_syntax for context in association.rejected_contexts]
    if refused:
        kinds = [STORED.get(str(one), "C-ECHO") for one in refused]
        raise Unavailable(f"{peer} takes no {_listed(kinds)}: it refused the presentation context")
    if association.is_established:
        return
    if not connected:
        raise Unavailable(f"no DICOM node at {peer.host}:{peer.port}: {_unreachable(peer)}")
    if association.is_rejected:
        answer = association.acceptor.primitive
        reason = f"{answer.result_str}, {answer.reason_str}" if answer else "no reason given"
        raise Unavailable(
            f'{peer} rejected the association of "{peer.calling}": {" ".join(reason.split()).lower()}'
        )
    raise Unavailable(f"{peer} aborted the association, or is no DICOM node")


def _unreachable(peer: Peer) -> str:
    """Ask once more for the reason, which pynetdicom keeps to itself."""
    try:
        socket.create_connection((peer.host, peer.port), min(CONNECT_S, peer.timeout_s)).close()
    except OSError as error:
        return (error.strerror or str(error)).lower()
    return "it closed the connection"


def _ended(late: threading.Event, peer: Peer) -> str:
    return f"the exchange did not end within {peer.timeout_s:g} s" if late.is_set() else ""


def _shut(connections: list[socket.socket]) -> None:
    """End connections under whoever waits for them."""
    for one in connections:
        with suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)


def _code(status: Any) -> int | None:
    """Return the answer's status; None where there was no answer."""
    return int(status.Status) if "Status" in status else None


def _said(status: Any) -> str:
    """Say the answer in words: its code, what it stands for, and the peer's own comment."""
    code = _code(status)
    if code is None:
        return "it aborted the association, or the connection was lost"
    kinds = (FAILURES.get(code), FAILURES.get(code & 0xFF00), FAILURES.get(code & 0xF000))
    words = [f"status 0x{code:04X}", next(filter(None, kinds), ""), text(status, "ErrorComment")]
    return ", ".join(filter(None, words))


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"
