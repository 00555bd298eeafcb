"""Storing at peers that take everything, refuse, stall, leave, or are not there."""

import io
import socket
import threading
import time
from contextlib import contextmanager
from dataclasses import replace

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, evt

from trocar.planners import intake, pipeline
from trocar.planners.io.dicom import RT_DOSE, RT_PLAN
from trocar.planners.io.dicom_send import Peer, check_peer, parse_peer, send
from trocar.planners.io.rtstruct import RT_STRUCTURE_SET
from trocar.planners.report import render_artifacts
from trocar.planners.requests import DICOM_OUTPUTS, CaseInput, Search, Settings
from trocar.runtime.errors import InvalidInput, Unavailable

VERIFICATION = "1.2.840.10008.1.1"
ALL = (VERIFICATION, RT_STRUCTURE_SET, RT_PLAN, RT_DOSE)


@pytest.fixture(scope="module")
def files():
    request = intake.plan_request(Settings(), Search(moves=500, chains=1, start="random"))
    result = pipeline.plan_case(intake.read_case(CaseInput(phantom_seed=4)), request)
    return render_artifacts(result, DICOM_OUTPUTS)


@contextmanager
def storage(*, classes=ALL, syntaxes=(ExplicitVRLittleEndian, ImplicitVRLittleEndian), title="", **handlers):
    """A storage SCP on a free port of the loopback; yields how to reach it and what it was given."""
    taken = []

    def store(event):
        taken.append(event.dataset)
        return 0x0000

    entity = AE(ae_title="ARCHIVE")
    if title:
        entity.require_called_aet = True
    for one in classes:
        entity.add_supported_context(one, list(syntaxes))
    given = {"c_store": store} | handlers
    events = [(getattr(evt, f"EVT_{name.upper()}"), handler) for name, handler in given.items()]
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=events)
    try:
        yield Peer("127.0.0.1", server.socket.getsockname()[1], title or "ANY-SCP", "TROCAR", 120.0), taken
    finally:
        server.shutdown()


@contextmanager
def listener(serve):
    """A peer that is no DICOM node: `serve` gets each connection."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def accept():
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection:
                    serve(connection)

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield Peer("127.0.0.1", listening.getsockname()[1], "ANY-SCP", "TROCAR", 120.0)
        listening.shutdown(socket.SHUT_RDWR)
    thread.join(10)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_a_peer_gets_what_was_written(files, syntax):
    lines = []
    with storage(syntaxes=[syntax]) as (peer, taken):
        check_peer(peer)
        assert taken == []
        assert send(peer, files, progress=lines.append) == ()
    assert [name for line in lines for name in files if line.startswith(name)] == list(files)
    for found, content in zip(taken, files.values(), strict=True):
        written = dcmread(io.BytesIO(content))
        # Implicit encoding does not say what a private element is: its bytes arrive, and no type.
        private = [[element.value for element in one if element.tag.is_private] for one in (found, written)]
        assert [_as_bytes(value) for value in private[0]] == [_as_bytes(value) for value in private[1]]
        for one in (found, written):
            one.remove_private_tags()
        assert found == written


def _as_bytes(value):
    return value if isinstance(value, bytes) else value.encode() + b" " * (len(value.encode()) % 2)


def refused(peer, message, files=None):
    with pytest.raises(Unavailable, match=message) as caught:
        send(peer, files) if files else check_peer(peer)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_nobody_there():
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    peer = Peer("127.0.0.1", port, "ANY-SCP", "TROCAR", 120.0)
    refused(peer, f"no DICOM node at 127.0.0.1:{port}: connection refused")
    refused(replace(peer, host="no-such-host.invalid"), "no-such-host")


def test_a_rejected_association():
    with storage(title="ARCHIVE") as (peer, _):
        check_peer(peer)
        refused(replace(peer, called="OTHER"), 'rejected the association of "TROCAR".*called ae title')


def test_a_refused_presentation_context(files):
    with storage(classes=(VERIFICATION, RT_STRUCTURE_SET, RT_PLAN)) as (peer, taken):
        refused(peer, "takes no RTDOSE")
        refused(peer, "stored: none; not stored: structures.dcm, plan.dcm, dose.dcm$", files)
        assert taken == []
    with storage(classes=("1.2.840.10008.5.1.4.1.1.2",)) as (peer, _):
        refused(peer, "takes no C-ECHO, RTSTRUCT, RTPLAN, RTDOSE")


def test_an_echo_that_fails():
    with storage(c_echo=lambda _: 0x0122) as (peer, _):
        refused(peer, "expected its C-ECHO to succeed, got status 0x0122, SOP class not supported")


def _with(status, comment=""):
    answer = Dataset()
    answer.Status = status
    if comment:
        answer.ErrorComment = comment
    return answer


@pytest.mark.parametrize(
    ("status", "words"),
    [(0xA700, "out of resources"), (0xA901, "not of its SOP class"), (0xC123, "cannot understand")],
)
def test_a_failed_store_says_what_was_stored(files, status, words):
    def store(event):
        plan = event.dataset.SOPClassUID == RT_PLAN
        return _with(status, "no\x07 room") if plan else 0x0000

    with storage(c_store=store) as (peer, _):
        said = refused(peer, f"plan.dcm was not stored: status 0x{status:04X}, {words}, no", files)
    assert said.endswith("stored: structures.dcm; not stored: plan.dcm, dose.dcm")


def test_a_warning_is_stored_and_said(files):
    with storage(c_store=lambda _: 0xB000) as (peer, _):
        assert [one.split(":")[0] for one in send(peer, files)] == list(files)


def test_a_peer_that_aborts(files):
    def store(event):
        if event.dataset.SOPClassUID == RT_DOSE:
            event.assoc.abort()
        return 0x0000

    with storage(c_store=store) as (peer, _):
        said = refused(peer, "dose.dcm was not stored: it aborted the association", files)
    assert said.endswith("stored: structures.dcm, plan.dcm; not stored: dose.dcm")


def test_a_peer_that_is_no_dicom_node():
    with listener(lambda connection: connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as peer:
        refused(peer, "aborted the association, or is no DICOM node|connection")


def test_the_time_bounds_a_peer_that_answers_nothing():
    stop = threading.Event()
    with listener(lambda _: stop.wait(60)) as peer:
        refused(replace(peer, timeout_s=1.0), "did not end within 1 s")
        stop.set()


def test_the_time_bounds_a_peer_that_stalls_in_the_middle(files):
    stop = threading.Event()

    def store(_):
        stop.wait(60)
        return 0x0000

    with storage(c_store=store) as (peer, _):
        said = refused(replace(peer, timeout_s=2.0), "did not end within 2 s", files)
        stop.set()
    assert said.endswith("stored: none; not stored: structures.dcm, plan.dcm, dose.dcm")


def test_the_time_bounds_a_peer_that_stops_reading(files):
    """More than any socket's buffers hold: the sender itself is stuck."""
    from pynetdicom.pdu import P_DATA_TF

    stop = threading.Event()

    def stall(event):
        if isinstance(event.pdu, P_DATA_TF):
            stop.wait(60)

    dose = dcmread(io.BytesIO(files["dose.dcm"]))
    dose.PixelData = bytes(40 << 20)
    large = io.BytesIO()
    dose.save_as(large)
    with storage(pdu_recv=stall) as (peer, _):
        said = refused(replace(peer, timeout_s=2.0), "did not end within 2 s", {"large": large.getvalue()})
        stop.set()
    assert said.endswith("stored: none; not stored: large")


def test_no_thread_is_left_behind():
    """A thread of pynetdicom's that waits would keep the command from ending."""
    stop = threading.Event()
    with listener(lambda _: stop.wait(60)) as peer:
        before = set(threading.enumerate())
        refused(replace(peer, timeout_s=1.0), "did not end")
        until = time.monotonic() + 30
        while [one for one in threading.enumerate() if one not in before and not one.daemon]:
            assert time.monotonic() < until
            time.sleep(0.05)
        stop.set()


@pytest.mark.parametrize(
    ("text", "more", "message"),
    [
        ("archive", {}, "expected HOST:PORT, got 'archive'"),
        (":104", {}, "expected HOST:PORT"),
        ("a:b", {}, "expected a port from 1 to 65535, got 'b'"),
        ("a:0", {}, "port"),
        ("a:70000", {}, "port"),
        ("a:104", {"called": "seventeen letters"}, "--aec: expected an AE title of 1 to 16"),
        ("a:104", {"calling": "a\\b"}, "--aet"),
        ("a:104", {"calling": " "}, "--aet"),
        ("a:104", {"timeout_s": 0.0}, "--send-timeout-s"),
        ("a:104", {"timeout_s": float("nan")}, "--send-timeout-s"),
    ],
)
def test_what_cannot_be_a_peer(text, more, message):
    with pytest.raises(InvalidInput, match=message):
        parse_peer(text, **({"called": "ANY-SCP", "calling": "TROCAR", "timeout_s": 60.0} | more))


def test_a_peer_by_its_address():
    peer = parse_peer("[::1]:11112", called="PACS", calling="TROCAR", timeout_s=5.0)
    assert (peer.host, peer.port, str(peer)) == ("::1", 11112, "PACS@::1:11112")
