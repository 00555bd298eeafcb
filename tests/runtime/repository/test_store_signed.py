"""Models that have to be signed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from damage import flip

from trocar.runtime.errors import InvalidInput, ManifestMismatch
from trocar.runtime.repository.sign import TrustedKeys, key_id
from trocar.runtime.repository.store import Model, Repository

Fields = dict[str, Any]
Files = dict[str, bytes]


@pytest.fixture
def signer() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.generate()


@pytest.fixture
def trusting(repository: Repository, signer: Ed25519PrivateKey) -> Repository:
    """The same folder, of which only what `signer` signed is opened."""
    keys = {key_id(signer.public_key()): signer.public_key()}
    return Repository(repository.root, trusted=TrustedKeys(keys, Path("centre.pub")))


def test_a_signed_model_opens(
    published: Model, repository: Repository, trusting: Repository, signer: Ed25519PrivateKey
) -> None:
    place = repository.sign(published, signer)
    name = key_id(signer.public_key())
    assert place == published.folder / f"manifest.{name}.sig"
    model = trusting.open("pair")
    assert (model.signatures, model.signed_by) == ((name,), (name,))
    assert (repository.open("pair").signatures, repository.open("pair").signed_by) == ((name,), ())
    # A second signer stands beside; signing again changes nothing.
    content = place.read_bytes()
    repository.sign(published, Ed25519PrivateKey.generate())
    repository.sign(published, signer)
    assert place.read_bytes() == content
    assert len(trusting.open("pair").signatures) == 2
    assert trusting.open("pair").signed_by == (name,)


def test_an_unsigned_model_is_refused_by_who_trusts_keys(
    published: Model,
    repository: Repository,
    trusting: Repository,
    signer: Ed25519PrivateKey,
    fields: Fields,
    files: Files,
) -> None:
    with pytest.raises(
        ManifestMismatch, match=r"^pair/1/manifest\.json: expected a signature by .*, got none"
    ):
        trusting.open("pair")
    repository.sign(published, Ed25519PrivateKey.generate())
    with pytest.raises(ManifestMismatch, match=r"got none$"):
        trusting.open("pair")
    repository.sign(published, signer)
    trusting.open("pair")
    # Who publishes need not be who signs, and the newest version is not an old one instead.
    assert trusting.publish("pair", fields, files).manifest.version == 2
    with pytest.raises(ManifestMismatch, match=r"pair/2/manifest\.json: expected a signature"):
        trusting.open("pair")
    assert trusting.open("pair", 1).manifest == published.manifest


@pytest.mark.parametrize("name", ["model.onnx", "card.md"])
def test_a_signed_model_that_was_altered(
    published: Model, repository: Repository, trusting: Repository, signer: Ed25519PrivateKey, name: str
) -> None:
    repository.sign(published, signer)
    flip(published.folder / name)
    with pytest.raises(ManifestMismatch, match=f"pair/1/{name}: expected SHA-256"):
        trusting.open("pair")


def test_a_signed_model_with_another_manifest(
    published: Model, repository: Repository, trusting: Repository, signer: Ed25519PrivateKey
) -> None:
    """Files and hashes agree, as whoever alters both would have it."""
    place = repository.sign(published, signer)
    card, path = b"# a better pair", published.folder / "manifest.json"
    (published.folder / "card.md").write_bytes(card)
    document = json.loads(path.read_text())
    document["files"]["card.md"] = hashlib.sha256(card).hexdigest()
    path.write_text(json.dumps(document, indent=2) + "\n")
    assert repository.open("pair").read("card.md") == card
    with pytest.raises(
        ManifestMismatch, match=rf"^pair/1/{place.name}: expected the signature of manifest\.json as it is"
    ):
        trusting.open("pair")


def test_a_signature_taken_from_another_version(
    published: Model, repository: Repository, trusting: Repository, signer: Ed25519PrivateKey
) -> None:
    place = repository.sign(published, signer)
    document = json.loads((published.folder / "manifest.json").read_text()) | {"version": 2}
    shutil.copytree(published.folder, published.folder.parent / "2")
    (published.folder.parent / "2" / "manifest.json").write_text(json.dumps(document))
    assert repository.open("pair").manifest.version == 2
    with pytest.raises(ManifestMismatch, match=rf"pair/2/{place.name}: expected version 2, got 1"):
        trusting.open("pair")


def test_a_signature_that_is_no_file(
    published: Model, repository: Repository, trusting: Repository, signer: Ed25519PrivateKey, tmp_path: Path
) -> None:
    place = repository.sign(published, signer)
    place.rename(tmp_path / "outside")
    place.symlink_to(tmp_path / "outside")
    with pytest.raises(
        ManifestMismatch, match=rf"^pair/1/{place.name}: expected a file, got a symbolic link"
    ):
        trusting.open("pair")
    place.unlink()
    os.mkfifo(place)
    with pytest.raises(ManifestMismatch, match=rf"^pair/1/{place.name}: expected a regular file"):
        trusting.open("pair")
    place.unlink()
    place.write_bytes(b" " * 5000)
    with pytest.raises(ManifestMismatch, match=rf"^pair/1/{place.name}: expected at most 4096 bytes"):
        trusting.open("pair")
    assert repository.open("pair").manifest == published.manifest
    # Signing again mends it.
    repository.sign(published, signer)
    assert trusting.open("pair").manifest == published.manifest


def test_what_cannot_be_signed(published: Model, repository: Repository, signer: Ed25519PrivateKey) -> None:
    shutil.rmtree(published.folder)
    with pytest.raises(InvalidInput, match=r"cannot write .*\.sig: No such file or directory"):
        repository.sign(published, signer)
    assert not (repository.root / ".publishing").exists()
