"""Approval from the command line: what is written, what is refused, what is on record."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from trocar.planners.io import sealed
from trocar.planners.io.dicom_out import encoded
from trocar.planners.io.plans import plan_sha256, read_plan
from trocar.planners.io.rtplan import read_rtplan
from trocar.planners.protocol import load_protocol
from trocar.runtime.audit import AuditLog
from trocar.runtime.errors import InvalidInput
from trocar.runtime.repository.store import shipped

BY = ("--by", "Curie^Marie")
Run = Callable[..., tuple[int, Any, str]]


def _load(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "plan.json").read_text())


def _save(folder: Path, document: dict[str, Any], *, digest: bool = False) -> None:
    if digest:
        document["provenance"]["plan_sha256"] = plan_sha256(document)
    (folder / "plan.json").write_text(json.dumps(document))


def _dicom(path: Path) -> Any:
    return pydicom.dcmread(path)


def test_a_good_plan_is_approved(good: Path, run: Run, log_path: Path) -> None:
    original = _load(good)
    code, answer, _ = run("approve", good, *BY, "--json")
    assert code == 0
    assert answer["approved"] is True
    copies = good / "approved"
    assert answer["files"] == [str(copies / "plan.json"), str(copies / "plan.dcm")]
    (entry,) = AuditLog(log_path).verify().entries
    said = entry.document
    assert (said["action"], said["by"], said["override"], said["failed"]) == (
        "approve",
        "Curie^Marie",
        "",
        [],
    )
    assert said["plan_sha256"] == original["provenance"]["plan_sha256"]
    for key in ("input_sha256", "model", "model_sha256", "protocol"):
        assert said[key] == original["provenance"][key] != ""
    approved = _load(copies)
    approval = approved.pop("approval")
    assert approved == original
    assert approval["status"] == "APPROVED"
    assert approval["audit"] == {"number": 1, "sha256": entry.sha256}
    assert answer["audit"]["sha256"] == entry.sha256
    assert (approval["by"], approval["at"]) == (said["by"], said["at"])


def test_the_approved_rtplan_is_a_new_instance_that_names_the_one_it_follows(
    good: Path, run: Run, log_path: Path
) -> None:
    assert run("approve", good, *BY)[0] == 0
    before, after = _dicom(good / "plan.dcm"), _dicom(good / "approved" / "plan.dcm")
    assert (after.ApprovalStatus, str(after.ReviewerName)) == ("APPROVED", "Curie^Marie")
    (entry,) = AuditLog(log_path).verify().entries
    assert f"{after.ReviewDate}{after.ReviewTime}" == entry.document["at"][:19].translate(
        str.maketrans("", "", "-:T")
    )
    assert (
        after.SOPInstanceUID == after.file_meta.MediaStorageSOPInstanceUID == entry.document["approved_uid"]
    )
    assert after.SOPInstanceUID != before.SOPInstanceUID == entry.document["plan_uid"]
    (followed,) = after.ReferencedRTPlanSequence
    assert (followed.ReferencedSOPInstanceUID, followed.RTPlanRelationship) == (
        before.SOPInstanceUID,
        "PREDECESSOR",
    )
    assert before.ApprovalStatus == "UNAPPROVED"
    assert "; not approved." in before.RTPlanDescription
    assert "acceptable by ldr-i125-145; approved." in after.RTPlanDescription
    changed = {
        "SOPInstanceUID",
        "InstanceCreationDate",
        "InstanceCreationTime",
        "TimezoneOffsetFromUTC",
        "ApprovalStatus",
        "ReviewDate",
        "ReviewTime",
        "ReviewerName",
        "RTPlanDescription",
        "ReferencedRTPlanSequence",
        "",
    }
    assert {one.keyword for one in after if one.keyword not in changed} == {
        one.keyword for one in before if one.keyword not in changed
    }
    assert all(after[one.tag] == one for one in before if one.keyword not in changed)


def test_our_reader_finds_the_same_seeds_in_both_copies(good: Path, run: Run) -> None:
    assert run("approve", good, *BY)[0] == 0
    plan = read_plan(good / "plan.json")
    assert read_plan(good / "approved" / "plan.json") == plan
    found = read_rtplan((good / "approved" / "plan.dcm").read_bytes()).seed_plan(plan.source)
    np.testing.assert_allclose(found.seeds_xyz_mm, plan.seeds_xyz_mm, atol=0.01)
    assert run("evaluate", good.parent / "Doe-John.seg.nrrd", good / "approved" / "plan.dcm")[0] == 0


@pytest.mark.parametrize("reason", [None, "in the patient's interest \u00e0 la carte"])
def test_dciodvfy_finds_no_error_in_an_approved_copy(
    reason: str | None, good: Path, poor: Path, run: Run
) -> None:
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy (Debian dicom3tools) is not installed")
    folder = good if reason is None else poor
    assert run("approve", folder, *BY, *(("--override", reason) if reason else ()))[0] == 0
    path = str(folder / "approved" / "plan.dcm")
    done = subprocess.run(["dciodvfy", path], capture_output=True, text=True, timeout=60, check=False)
    said = (done.stdout + done.stderr).splitlines()
    assert "RTPlan" in said
    assert not [line for line in said if line.startswith("Error")]


@pytest.mark.parametrize(
    ("plan", "files"), [("plan.json", ["plan.json"]), ("plan.dcm", ["plan.dcm", "plan.json"])]
)
def test_either_file_alone_will_do(plan: str, files: list[str], good: Path, run: Run, tmp_path: Path) -> None:
    assert run("approve", good / plan, *BY, "-o", tmp_path / "here")[0] == 0
    assert sorted(path.name for path in (tmp_path / "here").iterdir()) == files
    assert read_plan(tmp_path / "here" / "plan.json") == read_plan(good / "plan.json")
    assert run("audit", "verify", "--plan", tmp_path / "here")[0] == 0


def test_a_phantom_is_its_number(run: Run, tmp_path: Path) -> None:
    plan = ("plan", "phantom:4", "--moves", "10000", "--chains", "2", "-o", tmp_path / "out")
    assert run(*plan)[0] == 0
    code, _, error = run("approve", tmp_path / "out", *BY, "--case", "phantom:5")
    assert code == 2
    assert "input: expected another phantom, got phantom 5" in error
    assert run("approve", tmp_path / "out", *BY)[0] == 0


# What is changed, which file it is, and what the log calls it.


def _seed(folder: Path) -> None:
    document = _load(folder)
    document["needles"][0]["seeds_z_mm"][0] += 5.0
    _save(folder, document)


def _cost(folder: Path) -> None:
    document = _load(folder)
    document["provenance"]["cost"] = 0
    _save(folder, document)


def _no_digest(folder: Path) -> None:
    document = _load(folder)
    del document["provenance"]["plan_sha256"]
    _save(folder, document)


def _roles(folder: Path) -> None:
    document = _load(folder)
    document["provenance"]["roles"] = {"rectum": "none"}
    _save(folder, document)


def _other_plan(folder: Path) -> None:
    """A plan.json that is whole, beside the plan.dcm of another plan."""
    document = _load(folder)
    document["needles"].pop()
    _save(folder, document, digest=True)


def _dicom_byte(folder: Path) -> None:
    data = bytearray((folder / "plan.dcm").read_bytes())
    at = data.index(b"AIR_KERMA_RATE")
    data[at] ^= 1
    (folder / "plan.dcm").write_bytes(data)


def _dicom_seed(folder: Path) -> None:
    """A seed of the RT Plan moved, and the file sealed again."""
    dataset = _dicom(folder / "plan.dcm")
    point = dataset.ApplicationSetupSequence[0].ChannelSequence[0].BrachyControlPointSequence[0]
    point.ControlPoint3DPosition = [point.ControlPoint3DPosition[0], point.ControlPoint3DPosition[1], "3.0"]
    dataset.private_block(sealed.GROUP, sealed.CREATOR)[0x02].value = "0" * 64
    (folder / "plan.dcm").write_bytes(sealed.seal(encoded(dataset)))


def _dicom_strength(folder: Path) -> None:
    dataset = _dicom(folder / "plan.dcm")
    dataset.SourceSequence[0].ReferenceAirKermaRate = "0.43"
    dataset.private_block(sealed.GROUP, sealed.CREATOR)[0x02].value = "0" * 64
    (folder / "plan.dcm").write_bytes(sealed.seal(encoded(dataset)))


def _input(folder: Path) -> None:
    path = folder.parent / "Doe-John.seg.nrrd"
    path.write_bytes(path.read_bytes().replace(b"NRRD0005\n", b"NRRD0005\n# edited\n", 1))


CHANGES = {
    "a seed": (_seed, "plan"),
    "a note": (_cost, "plan"),
    "no digest": (_no_digest, "plan"),
    "the roles": (_roles, "plan"),
    "the input": (_input, "input"),
    "another plan": (_other_plan, "plan.dcm"),
    "a byte of the RT Plan": (_dicom_byte, "plan.dcm"),
    "a seed of the RT Plan": (_dicom_seed, "plan.dcm"),
    "the strength of the RT Plan": (_dicom_strength, "plan.dcm"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_changed_is_refused_even_with_an_override(
    name: str, good: Path, run: Run, log_path: Path
) -> None:
    change, what = CHANGES[name]
    change(good)
    code, out, error = run("approve", good, *BY, "--override", "it must be")
    assert code == 2
    assert out == ""
    assert error.startswith(f"trocar: error: not approved: {what}: expected ")
    assert error.count("\n") == 1
    assert not (good / "approved").exists()
    (entry,) = AuditLog(log_path).verify().entries
    assert entry.document["action"] == "refuse"
    assert entry.document["override"] == ""
    assert what in entry.document["changed"]


def test_another_case_is_refused(good: Path, run: Run, tmp_path: Path) -> None:
    assert run("phantom", 5, "-o", tmp_path / "other.seg.nrrd")[0] == 0
    code, _, error = run("approve", good, *BY, "--case", tmp_path / "other.seg.nrrd")
    assert code == 2
    assert "not approved: input: expected" in error
    code, _, error = run("approve", good, *BY, "--case", "phantom:4")
    assert code == 2
    assert "got phantom 4" in error


def test_a_case_that_is_nowhere_is_asked_for(good: Path, run: Run, log_path: Path, tmp_path: Path) -> None:
    (good.parent / "Doe-John.seg.nrrd").rename(tmp_path / "moved.seg.nrrd")
    code, _, error = run("approve", good, *BY)
    assert code == 2
    assert "say where it is with --case" in error
    assert not log_path.exists()
    assert run("approve", good, *BY, "--case", tmp_path / "moved.seg.nrrd")[0] == 0


def test_another_model_is_refused(good: Path, run: Run, tmp_path: Path) -> None:
    models = tmp_path / "models"
    shutil.copytree(shipped().root, models)
    assert run("approve", good, *BY, "--repository", models, "-o", tmp_path / "first")[0] == 0
    card = models / "tpgan" / "1" / "card.md"
    card.write_text(card.read_text() + "\nedited\n")
    code, _, error = run("approve", good, *BY, "--repository", models)
    assert code == 2
    assert "not approved: model: expected tpgan/1" in error
    shutil.rmtree(models / "tpgan")
    assert "not approved: model" in run("approve", good, *BY, "--repository", models)[2]
    manifest = json.loads((shipped().root / "tpgan" / "1" / "manifest.json").read_text())
    document = _load(good)
    document["provenance"]["model_sha256"] = "0" * 64
    _save(good, document, digest=True)
    error = run("approve", good / "plan.json", *BY)[2]
    assert f"model: expected {'0' * 64}, got {manifest['files']['model.onnx']}" in error


def test_a_plan_that_fails_is_refused_without_a_reason(poor: Path, run: Run, log_path: Path) -> None:
    code, answer, error = run("approve", poor, *BY, "--json")
    assert (code, error) == (1, "")
    assert answer["approved"] is False
    assert answer["files"] == []
    assert not (poor / "approved").exists()
    (entry,) = AuditLog(log_path).verify().entries
    assert entry.document["action"] == "refuse"
    failed = [one["rule"] for one in answer["validity"]["findings"] if one["severity"] == "fail"]
    assert [one["rule"] for one in entry.document["failed"]] == failed != []
    assert "NOT approved: a rule fails" in run("approve", poor, *BY)[1]


def test_a_plan_that_fails_is_approved_for_a_reason_and_that_is_said(
    poor: Path, run: Run, log_path: Path
) -> None:
    reason = "salvage after failure, discussed"
    code, answer, _ = run("approve", poor, *BY, "--override", f" {reason} ", "--json")
    assert code == 0
    assert answer["validity"]["acceptable"] is False
    (entry,) = AuditLog(log_path).verify().entries
    assert (entry.document["action"], entry.document["override"]) == ("override", reason)
    approval = _load(poor / "approved")["approval"]
    assert approval["override"] == reason
    assert approval["failed"] == entry.document["failed"] != []
    described = _dicom(poor / "approved" / "plan.dcm").RTPlanDescription
    assert f"NOT ACCEPTABLE by ldr-i125-145; approved in spite of failures: {reason}." in described
    assert f"fail {approval['failed'][0]['rule']}" in described


def test_a_reason_that_was_not_needed_is_no_override(good: Path, run: Run, log_path: Path) -> None:
    assert run("approve", good, *BY, "--override", "just in case")[0] == 0
    (entry,) = AuditLog(log_path).verify().entries
    assert (entry.document["action"], entry.document["override"]) == ("approve", "")


def test_what_the_plan_says_of_itself_does_not_count(good: Path, run: Run) -> None:
    """Half of the needles taken out, every digest mended: the rules are checked anew."""
    document = _load(good)
    del document["needles"][::2]
    _save(good, document, digest=True)
    code, answer, _ = run("approve", good / "plan.json", *BY, "--json")
    assert code == 1
    assert "ctv_v100" in {one["rule"] for one in answer["entry"]["failed"]}


def test_the_case_is_read_as_it_was_for_the_plan(good: Path, run: Run, tmp_path: Path) -> None:
    case = good.parent / "Doe-John.seg.nrrd"
    search = ("--moves", "10000", "--chains", "2", "--role", "rectum=none", "-o", tmp_path / "out", "--json")
    code, planned, _ = run("plan", case, *search)
    assert code == 0
    code, answer, _ = run("approve", tmp_path / "out", *BY, "--case", case, "--json")
    assert code == 0
    assert answer["metrics"].keys() == planned["metrics"].keys() == {"ctv", "ptv", "urethra", "bladder"}
    assert answer["metrics"]["ctv"] == pytest.approx(planned["metrics"]["ctv"], rel=1e-6)


def test_a_protocol_of_ones_own_must_be_given_and_the_same(good: Path, run: Run, tmp_path: Path) -> None:
    text = (Path(load_protocol.__code__.co_filename).parent / "protocols" / "ldr-i125-145.toml").read_text()
    ours, lax = tmp_path / "ours.toml", tmp_path / "lax.toml"
    ours.write_text(text.replace('"ldr-i125-145"', '"ours"'))
    lax.write_text(ours.read_text().replace("max_needles = 34", "max_needles = 90"))
    assert lax.read_text() != ours.read_text() != text
    case = good.parent / "Doe-John.seg.nrrd"
    search = ("--moves", "10000", "--chains", "2", "--protocol", ours, "-o", tmp_path / "out")
    assert run("plan", case, *search)[0] == 0
    approve = ("approve", tmp_path / "out", *BY, "--case", case)
    code, _, error = run(*approve)
    assert code == 2
    assert 'made under "ours"' in error
    code, _, error = run(*approve, "--protocol", lax)
    assert code == 2
    assert "not approved: protocol: expected" in error
    assert run(*approve, "--protocol", ours)[0] == 0
    assert "not approved: protocol" in run("approve", good, *BY, "--protocol", ours)[2]


def test_the_log_names_no_patient_and_no_file(good: Path, run: Run, log_path: Path, tmp_path: Path) -> None:
    dataset = _dicom(good / "plan.dcm")
    dataset.PatientName = "Doe^John"
    dataset.private_block(sealed.GROUP, sealed.CREATOR)[0x02].value = "0" * 64
    (good / "plan.dcm").write_bytes(sealed.seal(encoded(dataset)))
    assert run("approve", good, *BY, "-o", tmp_path / "Doe-copy")[0] == 0
    _input(good)
    assert run("approve", good, *BY)[0] == 2
    assert run("approve", good, *BY, "--case", "phantom:7")[0] == 2
    assert len(AuditLog(log_path).verify().entries) == 3
    assert b"Doe" not in log_path.read_bytes()
    assert b"John" not in log_path.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "--by"),
        (("--by", " "), "--by: expected a name"),
        (("--by", "a\nb"), "--by: expected a name"),
        (("--by", "a\\b"), "--by: expected a name without"),
        (("--by", "x" * 65), "--by: expected a name"),
        ((*BY, "--override", " "), "--override: expected a reason"),
        ((*BY, "--override", "x" * 201), "--override: expected a reason"),
        ((*BY, "--case", "nowhere.nrrd"), "cannot read nowhere.nrrd"),
        ((*BY, "--repository", "nowhere"), "nowhere"),
        ((*BY, "-o", "{good}"), "expected a new or empty folder"),
        ((*BY, "--audit", "{good}/plan.json/audit.sqlite"), "audit log: cannot open"),
        ((*BY, "--audit", "{good}/plan.json"), "audit log"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    arguments: tuple[str, ...], says: str, good: Path, run: Run, log_path: Path
) -> None:
    before = {path: path.read_bytes() for path in good.iterdir()}
    code, out, error = run("approve", good, *(text.format(good=good) for text in arguments))
    assert (code, out) == (2, "")
    assert error.startswith("trocar: error: ")
    assert says in error
    assert error.count("\n") == 1
    assert {path: path.read_bytes() for path in good.iterdir()} == before
    assert says == "nowhere" or not log_path.exists()


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"{}", b'{"schema": "trocar.plan/1"}', b"\0" * 128 + b"DICM"]
)
def test_no_plan_is_not_approved(content: bytes, run: Run, tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_bytes(content)
    code, _, error = run("approve", tmp_path / "plan.json", *BY, "--case", "phantom:4")
    assert code == 2
    assert error.count("\n") == 1


def test_an_rtplan_of_another_system_is_not_approved(good: Path, run: Run) -> None:
    dataset = _dicom(good / "plan.dcm")
    for tag in [one.tag for one in dataset if one.tag.is_private]:
        del dataset[tag]
    (good / "plan.dcm").write_bytes(encoded(dataset))
    code, _, error = run("approve", good / "plan.dcm", *BY)
    assert code == 2
    assert "expected one that `trocar plan --dicom` wrote" in error


def test_an_approved_copy_is_not_approved_again(good: Path, run: Run, tmp_path: Path) -> None:
    assert run("approve", good, *BY)[0] == 0
    for name in ("", "plan.json", "plan.dcm"):
        code, _, error = run("approve", good / "approved" / name, *BY, "-o", tmp_path / "again")
        assert code == 2
        assert "got an approved copy" in error


def test_a_log_that_was_changed_takes_no_approval(
    good: Path, run: Run, log_path: Path, tmp_path: Path
) -> None:
    assert run("approve", good, *BY, "-o", tmp_path / "one")[0] == 0
    data = bytearray(log_path.read_bytes())
    data[data.index(b"Curie")] ^= 1
    log_path.write_bytes(data)
    code, _, error = run("approve", good, *BY, "-o", tmp_path / "two")
    assert code == 2
    assert "entry 1 was changed" in error
    assert not (tmp_path / "two").exists()


def test_a_plan_from_a_server_states_its_digest_too(run: Run, server: Any, tmp_path: Path) -> None:
    """Also the alternatives, which travel as protobuf and not as a file."""
    search = ("--moves", "10000", "--chains", "3", "--alternatives", "1", "-o", tmp_path / "out", "--dicom")
    assert run("plan", "phantom:4", *search, "--server", server.target)[0] in (0, 1)
    for name in ("plan.json", "plan-2.json"):
        document = json.loads((tmp_path / "out" / name).read_text())
        assert plan_sha256(document) == document["provenance"]["plan_sha256"]
    assert sealed.read_sealed((tmp_path / "out" / "plan.dcm").read_bytes()).whole


def test_an_edited_byte_of_a_sealed_file_is_seen(good: Path) -> None:
    data = (good / "plan.dcm").read_bytes()
    start = int(pydicom.dcmread(io.BytesIO(data)).file_meta.FileMetaInformationGroupLength) + 144
    assert sealed.read_sealed(data).whole
    generator = np.random.default_rng(8)
    for at in generator.integers(start, len(data), 200):
        changed = bytearray(data)
        changed[at] ^= int(generator.integers(1, 256))
        with suppress(InvalidInput):
            assert not sealed.read_sealed(bytes(changed)).whole
