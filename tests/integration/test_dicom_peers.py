"""Every DICOM file we write, as other people's tools see it: dciodvfy, dcmdump, storescp, Orthanc."""

import io
import json
import re
import shutil
import socket
import subprocess
import threading
import time
import urllib.request
from contextlib import contextmanager

import numpy as np
import pydicom
import pytest

from trocar.planners import local
from trocar.planners.files import write_all
from trocar.planners.io.rtplan import read_rtplan
from trocar.planners.requests import CaseInput, Search, Settings

QUICK = ("--moves", "2000", "--chains", "1", "--start", "random")
RT = ("structures.dcm", "plan.dcm", "dose.dcm")


def needs(tool, package):
    """Return where a tool is, or skip, which pytest's summary shows."""
    path = shutil.which(tool) or shutil.which(tool, path="/usr/sbin:/usr/bin")
    if path is None:
        pytest.skip(f"{tool} (Debian {package}) is not installed: tools/dicomtools.sh")
    return path


@pytest.fixture(scope="module")
def folders(rtstruct_file, tmp_path_factory):
    """What is written for a phantom and for a patient."""
    root = tmp_path_factory.mktemp("written")
    search = Search(moves=2000, chains=1, start="random")
    for case in (
        CaseInput(name="phantom", phantom_seed=4),
        CaseInput(name="patient", rtstruct=rtstruct_file.read_bytes()),
    ):
        _, files = local.plan(case, Settings(), search, artifacts=("plan.json", *RT))
        write_all(root / case.name, files)
        assert all((root / case.name / one).exists() for one in RT)
    return root


@pytest.fixture(scope="module")
def segmentations(tmp_path_factory):
    """The video sink's images and segmentations, of hand-made frames."""
    from trocar.video.frames import Annotation, Frame, Instance, Quality, Shown
    from trocar.video.sinks.base import Stream
    from trocar.video.sinks.dicom_seg import DicomSegSink

    image = np.random.default_rng(1).integers(0, 255, (60, 80, 3)).astype(np.uint8)
    labels = np.ones((60, 80), np.uint8)
    labels[20:40, 30:50] = 2
    one = Instance("instrument", (30, 20, 50, 40), 400, 0.75, (40.0, 20.0), 1)
    frame = Frame(0, 0.0, 0.0, image, Quality(smoke=0.25))
    folder = tmp_path_factory.mktemp("video") / "seg"
    sink = DicomSegSink(folder, Stream("clip", 60, 80, 25.0, None, ("instrument",)))
    sink.write(Shown(frame, image, Annotation(0, 0.0, labels, 2, (one,), 0.75), True, "", 0.0, {}))
    sink.close()
    return folder


@pytest.fixture(scope="module")
def every_file(folders, segmentations):
    found = [*sorted(folders.rglob("*.dcm")), *sorted(segmentations.glob("*.dcm"))]
    assert len(found) == 2 * len(RT) + 2
    return found


def test_dciodvfy_finds_no_error_in_any_file(every_file):
    tool = needs("dciodvfy", "dicom3tools")
    kinds = set()
    for path in every_file:
        done = subprocess.run([tool, path], capture_output=True, text=True, timeout=60, check=False)
        said = (done.stdout + done.stderr).splitlines()
        kinds |= {line for line in said if re.fullmatch(r"\w+", line)}
        assert [line for line in said if "Error" in line] == [], path.name
    # It names what it took each file for: it did look.
    assert {"RTStructureSet", "RTPlan", "RTDose", "Segmentation"} <= kinds


def test_dcmdump_reads_every_file(every_file):
    tool = needs("dcmdump", "dcmtk")
    for path in every_file:
        done = subprocess.run([tool, "+L", path], capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stderr) == (0, ""), path.name
        assert str(pydicom.dcmread(path).SOPInstanceUID) in done.stdout


def test_our_reader_finds_the_plans_seeds(folders):
    for folder in (folders / "phantom", folders / "patient"):
        plan = json.loads((folder / "plan.json").read_text())
        wanted = [(n["x_mm"], n["y_mm"], z) for n in plan["needles"] for z in n["seeds_z_mm"]]
        found = read_rtplan((folder / "plan.dcm").read_bytes()).seed_plan(plan["source"])
        np.testing.assert_allclose(found.seeds_xyz_mm, wanted, atol=0.01)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as held:
        return held.getsockname()[1]


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory):
    """An Orthanc of its own: temporary storage, free ports, only the loopback's associations and requests."""
    tool = needs("Orthanc", "orthanc")
    folder = tmp_path_factory.mktemp("orthanc")
    dicom, http = free_port(), free_port()
    config = {
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "index"),
        "DicomPort": dicom,
        "HttpPort": http,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomAlwaysAllowEcho": False,
        "DicomAlwaysAllowStore": False,
        "DicomCheckModalityHost": True,
        "DicomCheckCalledAet": True,
        "DicomModalities": {"t": ["TROCAR", "127.0.0.1", 104], "s": ["STORESCU", "127.0.0.1", 104]},
        "Plugins": [],
    }
    (folder / "config.json").write_text(json.dumps(config))
    log = (folder / "log.txt").open("w")
    process = subprocess.Popen([tool, folder / "config.json"], stdout=log, stderr=log)
    url = f"http://127.0.0.1:{http}"
    until = time.monotonic() + 60
    try:
        while True:
            try:
                urllib.request.urlopen(f"{url}/system", timeout=5).close()
                break
            except OSError:
                assert process.poll() is None, (folder / "log.txt").read_text()
                assert time.monotonic() < until, "Orthanc did not start"
                time.sleep(0.2)
        yield dicom, url
    finally:
        process.terminate()
        process.wait(30)
        log.close()


def stored(url):
    """What Orthanc holds, by SOP instance."""

    def get(path):
        with urllib.request.urlopen(url + path, timeout=30) as reply:
            return reply.read()

    files = [get(f"/instances/{one}/file") for one in json.loads(get("/instances"))]
    return {str(one.SOPInstanceUID): one for one in (pydicom.dcmread(io.BytesIO(data)) for data in files)}


def assert_held(url, paths):
    held = stored(url)
    for path in paths:
        sent = pydicom.dcmread(path)
        found = held[str(sent.SOPInstanceUID)]
        assert found == sent, path.name
        if "PixelData" in sent:
            assert found.PixelData == sent.PixelData


def test_orthanc_stores_what_storescu_sends_and_returns_it(orthanc, every_file):
    tool = needs("storescu", "dcmtk")
    port, url = orthanc
    command = [tool, "-R", "--required", "-aec", "ORTHANC", "127.0.0.1", str(port), *map(str, every_file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert_held(url, every_file)


def test_orthanc_stores_what_the_command_sends_of_a_server(orthanc, trocar, server, rtstruct_file, tmp_path):
    port, url = orthanc
    to = (
        "--send",
        f"127.0.0.1:{port}",
        "--aec",
        "ORTHANC",
        "--aet",
        "TROCAR",
        "--dicom",
        "-o",
        tmp_path / "out",
    )
    done = trocar("plan", rtstruct_file, *QUICK, "--server", server.target, *to, timeout_s=250)
    assert done.returncode in (0, 1), done.stderr
    assert [line.split(": ")[0] for line in done.stderr.splitlines()] == list(RT)
    assert_held(url, [tmp_path / "out" / name for name in RT])


def test_orthanc_refuses_whom_it_does_not_know(orthanc, trocar, tmp_path):
    port, _ = orthanc
    plan = ("plan", "phantom:4", *QUICK, "-o", tmp_path / "out", "--send", f"127.0.0.1:{port}")
    done = trocar(*plan, "--aec", "OTHER")
    assert (done.returncode, done.stdout) == (3, "")
    (line,) = done.stderr.splitlines()
    assert 'rejected the association of "TROCAR"' in line
    # Nothing was computed for a peer that will not have it.
    assert not (tmp_path / "out").exists()


@contextmanager
def storescp(folder):
    """The dcmtk's peer, on the loopback alone: it is handed each connection, as inetd would."""
    tool = needs("storescp", "dcmtk")
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def accept():
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                command = [tool, "--inetd", "--output-directory", str(folder)]
                with connection:
                    subprocess.run(
                        command, stdin=connection, stdout=connection, stderr=subprocess.DEVNULL,
                        timeout=60, check=False,
                    )  # fmt: skip

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield f"127.0.0.1:{listening.getsockname()[1]}"
        listening.shutdown(socket.SHUT_RDWR)
    thread.join(30)


def test_storescp_stores_what_the_command_sends(trocar, tmp_path):
    (tmp_path / "got").mkdir()
    with storescp(tmp_path / "got") as address:
        done = trocar("plan", "phantom:4", *QUICK, "--send", address, "--json", timeout_s=250)
    assert done.returncode in (0, 1), done.stderr
    assert json.loads(done.stdout)["seeds"] > 0
    got = {one.Modality: one for one in map(pydicom.dcmread, (tmp_path / "got").iterdir())}
    assert set(got) == {"RTSTRUCT", "RTPLAN", "RTDOSE"}
    assert got["RTPLAN"].ApprovalStatus == "UNAPPROVED"


def test_a_peer_that_is_gone_when_the_plan_is_there(trocar, tmp_path):
    """It echoes, then refuses: the plan is shown and written, and the exit code says that it was not sent."""
    from pynetdicom import AE, evt

    entity = AE(ae_title="FULL")
    for one in ("1.2.840.10008.1.1", *(f"1.2.840.10008.5.1.4.1.1.481.{kind}" for kind in (2, 3, 5))):
        entity.add_supported_context(one)
    full = entity.start_server(
        ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, lambda _: 0xA700)]
    )
    try:
        address = f"127.0.0.1:{full.socket.getsockname()[1]}"
        done = trocar("plan", "phantom:4", *QUICK, "-o", tmp_path / "out", "--send", address, timeout_s=250)
    finally:
        full.shutdown()
    assert done.returncode == 3
    assert "acceptable" in done.stdout
    assert (tmp_path / "out" / "plan.json").exists()
    # Sent, not asked to be written.
    assert not (tmp_path / "out" / "plan.dcm").exists()
    (line,) = done.stderr.splitlines()
    assert "structures.dcm was not stored: status 0xA700, out of resources" in line
    assert line.endswith("stored: none; not stored: structures.dcm, plan.dcm, dose.dcm")


def test_a_real_case(shared_dir, tmp_path):
    """The Vitesse phantom's structure set: a PTV is derived; dciodvfy takes what comes of it."""
    tool = needs("dciodvfy", "dicom3tools")
    path = shared_dir / "cases/hdr_phantom/SS001.dcm"
    search = Search(moves=2000, chains=1, start="random")
    _, files = local.plan(CaseInput(rtstruct=path.read_bytes()), Settings(), search, artifacts=RT)
    for file in write_all(tmp_path / "out", files):
        done = subprocess.run([tool, file], capture_output=True, text=True, timeout=60, check=False)
        assert "Error" not in done.stdout + done.stderr
    given, derived = pydicom.dcmread(path), pydicom.dcmread(tmp_path / "out" / "structures.dcm")
    assert [str(one.ROIName) for one in derived.StructureSetROISequence] == ["PTV (derived)"]
    assert derived.PatientID == given.PatientID
    assert derived.StudyInstanceUID == given.StudyInstanceUID
    frame = given.ReferencedFrameOfReferenceSequence[0].FrameOfReferenceUID
    assert derived.StructureSetROISequence[0].ReferencedFrameOfReferenceUID == frame
