"""Ed25519 keys: made, read, used to sign a model and to trust one."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from trocar.runtime.errors import InvalidInput, ManifestMismatch
from trocar.runtime.repository.signature import Signature, decode_signature, message, signature_file

MAX_KEY_BYTES = 1 << 16
_ID_DIGITS = 16
_PUBLIC_BLOCK = re.compile(rb"-----BEGIN PUBLIC KEY-----.*?-----END PUBLIC KEY-----", re.DOTALL)


@dataclass(frozen=True, slots=True)
class TrustedKeys:
    """Whoever signs with one of these keys is believed.

    Parameters
    ----------
    keys : public keys by id.
    where : the file they come from.
    """

    keys: Mapping[str, Ed25519PublicKey]
    where: Path

    def require(
        self, name: str, version: int, manifest: bytes, signatures: Mapping[str, bytes], path: Path
    ) -> tuple[str, ...]:
        """Check that a key of these signed a manifest, and return the ids of all that did.

        A signature that does not hold is refused even beside one that does: somebody changed something.

        Parameters
        ----------
        manifest : the bytes of `manifest.json`.
        signatures : the content of signature files, by the id of the key.
        path : of the manifest, for messages.

        Raises
        ------
        ManifestMismatch
            None of them signed it, or a signature of theirs does not hold; the message names the file.
        """
        found = tuple(sorted(set(self.keys) & set(signatures)))
        if not found:
            keys = " or ".join(sorted(self.keys))
            raise ManifestMismatch(f"{path}: expected a signature by {keys} ({self.where}), got none")
        for key in found:
            where = path.with_name(signature_file(key))
            signature = decode_signature(signatures[key], (name, version, key), str(where))
            try:
                self.keys[key].verify(signature.raw, message(name, version, manifest))
            except InvalidSignature as error:
                raise ManifestMismatch(
                    f"{where}: expected the signature of {path.name} as it is, got one of other bytes or "
                    "by another key"
                ) from error
        return found


def key_id(key: Ed25519PublicKey) -> str:
    """Return what a key is called: the first 16 hex digits of the SHA-256 of its 32 bytes."""
    raw = key.public_bytes(Encoding.Raw, PublicFormat.Raw)
    return hashlib.sha256(raw).hexdigest()[:_ID_DIGITS]


def sign(key: Ed25519PrivateKey, name: str, version: int, manifest: bytes) -> Signature:
    """Sign a manifest's bytes."""
    return Signature(name, version, key_id(key.public_key()), key.sign(message(name, version, manifest)))


def read_trusted_keys(path: Path) -> TrustedKeys:
    """Read a PEM file of one public key or more.

    Raises
    ------
    InvalidInput
        The file cannot be read, has no public key, or one that is not Ed25519, or a private key.
    """
    data = _read(path)
    if b"PRIVATE KEY-----" in data:
        raise InvalidInput(f"{path}: expected a public key, got a private one, which nobody else should have")
    blocks = _PUBLIC_BLOCK.findall(data)
    if not blocks:
        raise InvalidInput(f"{path}: expected an Ed25519 public key in PEM, got no PUBLIC KEY in it")
    try:
        keys = [load_pem_public_key(block) for block in blocks]
    except (ValueError, UnsupportedAlgorithm) as error:
        raise InvalidInput(f"{path}: expected Ed25519 public keys in PEM, got a damaged one") from error
    trusted: dict[str, Ed25519PublicKey] = {}
    for key in keys:
        if not isinstance(key, Ed25519PublicKey):
            raise InvalidInput(f"{path}: expected Ed25519 keys, got {type(key).__name__}")
        trusted[key_id(key)] = key
    return TrustedKeys(trusted, path)


def read_private_key(path: Path) -> Ed25519PrivateKey:
    """Read a private key.

    Raises
    ------
    InvalidInput
        The file cannot be read, others than its owner can read it, it has a passphrase, or it is no Ed25519
        private key in PEM.
    """
    data = _read(path)
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise InvalidInput(
            f"{path}: expected a private key that its owner alone can read (chmod 600), got mode {mode:03o}"
        )
    try:
        key = load_pem_private_key(data, password=None)
    except TypeError as error:
        raise InvalidInput(f"{path}: expected a private key without a passphrase, got one with it") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise InvalidInput(f"{path}: expected an Ed25519 private key in PEM, got something else") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise InvalidInput(f"{path}: expected an Ed25519 key, got {type(key).__name__}")
    return key


def write_key_pair(path: Path) -> tuple[Path, str]:
    """Make a key pair: the private key at `path`, for its owner alone, the public key beside it.

    Returns
    -------
    The path of the public key, `path` with `.pub` after it, and the key's id.

    Raises
    ------
    InvalidInput
        One of the files exists, or cannot be written.
    """
    key = Ed25519PrivateKey.generate()
    public = path.with_name(f"{path.name}.pub")
    private_pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public_pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    if os.path.lexists(public):
        raise InvalidInput(f"cannot write the key {public}: File exists")
    for place, content, mode in ((path, private_pem, 0o600), (public, public_pem, 0o644)):
        try:
            descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
            with open(descriptor, "wb") as file:
                file.write(content)
        except OSError as error:
            raise InvalidInput(f"cannot write the key {place}: {error.strerror}") from error
    return public, key_id(key.public_key())


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_KEY_BYTES + 1)
    except OSError as error:
        raise InvalidInput(f"cannot read the key {path}: {error.strerror}") from error
    if len(data) > MAX_KEY_BYTES:
        raise InvalidInput(f"{path}: expected a key file of at most {MAX_KEY_BYTES} bytes, got more")
    return data
