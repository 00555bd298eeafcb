"""Keys and signatures; the golden one was made by OpenSSL, with the secret key of RFC 8032, 7.1, test 1."""

from __future__ import annotations

import base64
import json
import os
import shutil
import stat
import subprocess
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given
from hypothesis import strategies as st

from trocar.runtime.errors import InvalidInput, ManifestMismatch
from trocar.runtime.repository.sign import (
    TrustedKeys,
    key_id,
    read_private_key,
    read_trusted_keys,
    sign,
    write_key_pair,
)
from trocar.runtime.repository.signature import decode_signature, message, signature_file, signing_key

RFC_SECRET = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
RFC_KEY = "21fe31dfa154a261"  # of SHA-256 over the public key d75a9801...f707511a
MANIFEST = b"{}\n"
# openssl pkeyutl -sign -rawin over "trocar.signature/1\npair\n3\n{}\n"
GOLDEN = "oZgWMjUQ+4+m+dyGZ5tm4lHYrRVNARI07zH7a0BlCZQkfc8c/FG/JIqtGpw7FVjlPg1j5UckhW4/6eWnpcx+DA=="


@pytest.fixture
def key() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(RFC_SECRET)


@pytest.fixture
def trusted(key: Ed25519PrivateKey) -> TrustedKeys:
    return TrustedKeys({RFC_KEY: key.public_key()}, Path("centre.pub"))


def require(
    trusted: TrustedKeys, signature: bytes, *, name: str = "pair", version: int = 3
) -> tuple[str, ...]:
    return trusted.require(name, version, MANIFEST, {RFC_KEY: signature}, Path("pair/3/manifest.json"))


def test_a_signature_is_what_openssl_makes(key: Ed25519PrivateKey, trusted: TrustedKeys) -> None:
    signature = sign(key, "pair", 3, MANIFEST)
    assert key_id(key.public_key()) == signature.key == RFC_KEY
    assert signature.file == "manifest.21fe31dfa154a261.sig"
    document = json.loads(signature.encoded())
    assert document == {
        "schema": "trocar.signature/1",
        "name": "pair",
        "version": 3,
        "key": RFC_KEY,
        "signature": GOLDEN,
    }
    schema = json.loads(
        resources.files("trocar.runtime.repository").joinpath("signature.schema.json").read_text()
    )
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(document)
    assert decode_signature(signature.encoded(), ("pair", 3, RFC_KEY), "s") == signature
    assert require(trusted, signature.encoded()) == (RFC_KEY,)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
def test_openssl_verifies_ours_with_the_key_pair_we_write(tmp_path: Path) -> None:
    public, _ = write_key_pair(tmp_path / "centre.key")
    signature = sign(read_private_key(tmp_path / "centre.key"), "pair", 3, MANIFEST)
    (tmp_path / "raw").write_bytes(signature.raw)
    (tmp_path / "message").write_bytes(b"trocar.signature/1\npair\n3\n{}\n")
    command = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", str(public), "-rawin"]
    command += ["-in", str(tmp_path / "message"), "-sigfile", str(tmp_path / "raw")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
def test_keys_that_openssl_makes(tmp_path: Path) -> None:
    secret, public = tmp_path / "o.key", tmp_path / "o.pub"
    for command in (
        ["openssl", "genpkey", "-algorithm", "ed25519", "-out", str(secret)],
        ["openssl", "pkey", "-in", str(secret), "-pubout", "-out", str(public)],
    ):
        subprocess.run(command, check=True, capture_output=True)
    secret.chmod(0o600)
    keys = read_trusted_keys(public)
    signature = sign(read_private_key(secret), "pair", 3, MANIFEST)
    path = Path("manifest.json")
    assert keys.require("pair", 3, MANIFEST, {signature.key: signature.encoded()}, path) == (signature.key,)


# A signature of something else, and what the message must say.
@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"name": "other"}, "expected name 'pair', got 'other'"),
        ({"version": 4}, "expected version 3, got 4"),
        ({"version": 3.0}, r"expected version 3, got 3\.0"),
        ({"version": True}, "expected version 3, got True"),
        ({"schema": "trocar.signature/2"}, "expected schema"),
        ({"key": "0" * 16}, "expected key '21fe31dfa154a261'"),
        ({"signature": None}, "expected a signature in base64"),
        ({"signature": 7}, "expected a signature in base64"),
        ({"signature": ["oZgW"]}, "expected a signature in base64"),
        ({"signature": "not base64"}, "expected a signature in base64"),
        ({"signature": GOLDEN + "\n"}, "expected a signature in base64"),
        ({"signature": "größe"}, "expected a signature in base64"),
        ({"signature": ""}, "got one of other bytes"),
        ({"signature": GOLDEN[4:]}, "got one of other bytes"),
        ({"signature": base64.b64encode(bytes(64)).decode()}, "got one of other bytes"),
        ({"more": 1}, "expected an object of schema, name, version, key, signature"),
    ],
)
def test_a_signature_of_something_else(
    key: Ed25519PrivateKey, trusted: TrustedKeys, change: dict[str, Any], says: str
) -> None:
    document = json.loads(sign(key, "pair", 3, MANIFEST).encoded()) | change
    with pytest.raises(ManifestMismatch, match=says) as caught:
        require(trusted, json.dumps(document).encode())
    assert str(caught.value).startswith("pair/3/manifest.21fe31dfa154a261.sig: expected ")


@pytest.mark.parametrize("data", [b"", b"[]", b"null", b"\xff", b"[" * 100_000, b"{}"])
def test_what_is_no_signature(trusted: TrustedKeys, data: bytes) -> None:
    with pytest.raises(ManifestMismatch, match=r"manifest\.21fe31dfa154a261\.sig: expected an? "):
        require(trusted, data)


@given(
    st.binary()
    | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(lambda v: json.dumps(v).encode())
)
def test_anything_else_is_refused_in_words(data: bytes) -> None:
    with pytest.raises(ManifestMismatch, match=r"^here: expected "):
        decode_signature(data, ("pair", 3, RFC_KEY), "here")


def renamed(signature: bytes, name: str, version: int) -> bytes:
    return json.dumps(json.loads(signature) | {"name": name, "version": version}).encode()


def test_a_signature_cannot_be_moved_to_another_model_or_version(
    key: Ed25519PrivateKey, trusted: TrustedKeys
) -> None:
    signature = sign(key, "pair", 3, MANIFEST).encoded()
    for name, version in (("other", 3), ("pair", 4), ("pair\n3", 3)):
        with pytest.raises(ManifestMismatch, match="got one of other bytes"):
            require(trusted, renamed(signature, name, version), name=name, version=version)


@pytest.mark.parametrize("signed", [MANIFEST, b"pair\n3\n" + MANIFEST, b"trocar.signature/2\npair\n3\n{}\n"])
def test_a_signature_for_another_purpose_does_not_count(
    key: Ed25519PrivateKey, trusted: TrustedKeys, signed: bytes
) -> None:
    """The same key may sign other things, such as the manifest's bytes alone."""
    document = json.loads(sign(key, "pair", 3, MANIFEST).encoded())
    document["signature"] = base64.b64encode(key.sign(signed)).decode()
    with pytest.raises(ManifestMismatch, match="got one of other bytes"):
        require(trusted, json.dumps(document).encode())


def test_every_byte_of_the_manifest_counts(key: Ed25519PrivateKey, trusted: TrustedKeys) -> None:
    manifest = b'{"name": "pair"}\n'
    signature = sign(key, "pair", 3, manifest).encoded()
    path = Path("manifest.json")
    assert trusted.require("pair", 3, manifest, {RFC_KEY: signature}, path) == (RFC_KEY,)
    for altered in (manifest + b" ", manifest[:-1], manifest.replace(b": ", b":"), b"", manifest.upper()):
        with pytest.raises(ManifestMismatch, match="got one of other bytes"):
            trusted.require("pair", 3, altered, {RFC_KEY: signature}, path)


def test_one_of_several_trusted_keys_is_enough_but_none_of_theirs_may_be_wrong(
    key: Ed25519PrivateKey, tmp_path: Path
) -> None:
    other = Ed25519PrivateKey.generate()
    path, folder = tmp_path / "both.pub", Path("manifest.json")
    path.write_bytes(b"the centre's\n" + pem(key) + b"\n and last year's\n" + pem(other))
    trusted = read_trusted_keys(path)
    ours, theirs = sign(key, "pair", 3, MANIFEST), sign(other, "pair", 3, MANIFEST)
    both = {ours.key: ours.encoded(), theirs.key: theirs.encoded()}
    assert trusted.require("pair", 3, MANIFEST, both, folder) == tuple(sorted(both))
    for signature in (ours, theirs):
        alone = {signature.key: signature.encoded()}
        assert trusted.require("pair", 3, MANIFEST, alone, folder) == (signature.key,)
    both[theirs.key] = sign(other, "pair", 3, MANIFEST + b" ").encoded()
    with pytest.raises(ManifestMismatch, match=rf"manifest\.{theirs.key}\.sig: .*got one of other bytes"):
        trusted.require("pair", 3, MANIFEST, both, folder)


def test_nobody_or_somebody_else_signed(trusted: TrustedKeys) -> None:
    other = sign(Ed25519PrivateKey.generate(), "pair", 3, MANIFEST)
    path = Path("pair/3/manifest.json")
    with pytest.raises(ManifestMismatch) as caught:
        trusted.require("pair", 3, MANIFEST, {}, path)
    assert str(caught.value) == (
        "pair/3/manifest.json: expected a signature by 21fe31dfa154a261 (centre.pub), got none"
    )
    with pytest.raises(ManifestMismatch, match=r"by 21fe31dfa154a261 \(centre\.pub\), got none$"):
        trusted.require("pair", 3, MANIFEST, {other.key: other.encoded()}, path)


def test_what_is_signed_and_under_which_name() -> None:
    assert message("pair", 3, b"{}") == b"trocar.signature/1\npair\n3\n{}"
    assert signing_key(signature_file(RFC_KEY)) == RFC_KEY
    for file in (
        "manifest.sig",
        "manifest..sig",
        "manifest.21FE31DFA154A261.sig",
        f"manifest.{RFC_KEY}.sig\n",
    ):
        assert signing_key(file) is None
    assert signing_key(f"x/manifest.{RFC_KEY}.sig") is None


def test_a_key_pair(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        public, name = write_key_pair(tmp_path / "centre.key")
    finally:
        os.umask(old)
    assert public == tmp_path / "centre.key.pub"
    assert stat.S_IMODE((tmp_path / "centre.key").stat().st_mode) == 0o600
    assert tuple(read_trusted_keys(public).keys) == (name,)
    assert key_id(read_private_key(tmp_path / "centre.key").public_key()) == name
    assert b"PRIVATE" not in public.read_bytes()


@pytest.mark.parametrize("there", ["centre.key", "centre.key.pub"])
def test_no_key_is_ever_replaced(tmp_path: Path, there: str) -> None:
    (tmp_path / there).write_text("precious")
    with pytest.raises(InvalidInput, match=f"cannot write the key .*{there}: File exists"):
        write_key_pair(tmp_path / "centre.key")
    assert [entry.name for entry in tmp_path.iterdir()] == [there]
    assert (tmp_path / there).read_text() == "precious"


def test_a_folder_for_keys_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="No such file or directory"):
        write_key_pair(tmp_path / "none" / "centre.key")


def pem(key: Any) -> bytes:
    return bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


def private_pem(key: Any, encryption: Any = None) -> bytes:
    return bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption()))


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620, 0o602])
def test_a_private_key_that_others_can_touch(tmp_path: Path, key: Ed25519PrivateKey, mode: int) -> None:
    path = tmp_path / "k"
    path.write_bytes(private_pem(key))
    path.chmod(mode)
    with pytest.raises(InvalidInput, match=rf"its owner alone can read \(chmod 600\), got mode {mode:o}"):
        read_private_key(path)
    path.chmod(0o400)
    assert key_id(read_private_key(path).public_key()) == RFC_KEY


def test_private_keys_that_are_of_no_use(tmp_path: Path, key: Ed25519PrivateKey) -> None:
    path = tmp_path / "k"
    curve = ec.generate_private_key(ec.SECP256R1())
    for data, says in (
        (private_pem(key, BestAvailableEncryption(b"secret")), "without a passphrase, got one with it"),
        (private_pem(curve), "expected an Ed25519 key, got "),
        (pem(key), "expected an Ed25519 private key in PEM"),
        (b"", "expected an Ed25519 private key in PEM"),
        (b"x" * 100_000, "key file of at most 65536 bytes"),
    ):
        path.write_bytes(data)
        path.chmod(0o600)
        with pytest.raises(InvalidInput, match=says):
            read_private_key(path)
    with pytest.raises(InvalidInput, match=r"cannot read the key .*none"):
        read_private_key(tmp_path / "none")


def test_public_keys_that_are_of_no_use(tmp_path: Path, key: Ed25519PrivateKey) -> None:
    path = tmp_path / "k.pub"
    wide = rsa.generate_private_key(65537, 2048)
    damaged = pem(key).replace(b"MCow", b"AAAA")
    for data, says in (
        (private_pem(key), "expected a public key, got a private one"),
        (private_pem(key) + pem(key), "expected a public key, got a private one"),
        (pem(key) + pem(wide), "expected Ed25519 keys, got "),
        (pem(key) + damaged, "expected Ed25519 public keys in PEM, got a damaged one"),
        (b"ssh-ed25519 AAAA", "got no PUBLIC KEY in it"),
        (b"", "got no PUBLIC KEY in it"),
        (b"x" * 100_000, "key file of at most 65536 bytes"),
    ):
        path.write_bytes(data)
        with pytest.raises(InvalidInput, match=says):
            read_trusted_keys(path)
    with pytest.raises(InvalidInput, match=r"cannot read the key .*: Is a directory"):
        read_trusted_keys(tmp_path)
