"""A model's signature as a file: what it is called, what it says, and which bytes are signed.

It stands beside the manifest as `manifest.KEY.sig`, with KEY the id of the key, so that several people can
sign one version. Signed are a line each of `trocar.signature/1`, name and version, and then `manifest.json`
byte for byte: it holds for no other model, version or kind of document. `signature.schema.json` is its form.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from dataclasses import dataclass

from trocar.runtime.errors import ManifestMismatch

SCHEMA = "trocar.signature/1"
MAX_SIGNATURE_BYTES = 1 << 12

_FILE = re.compile(r"manifest\.([0-9a-f]{16})\.sig")
_KEYS = ("schema", "name", "version", "key", "signature")


@dataclass(frozen=True, slots=True)
class Signature:
    """What a signature file says; whether it holds is for a key to say.

    Parameters
    ----------
    name, version : the model.
    key : id of the key that signed.
    raw : the signature itself.
    """

    name: str
    version: int
    key: str
    raw: bytes

    @property
    def file(self) -> str:
        """The name under which it stands."""
        return signature_file(self.key)

    def encoded(self) -> bytes:
        """Return the file's bytes."""
        document = {
            "schema": SCHEMA,
            "name": self.name,
            "version": self.version,
            "key": self.key,
            "signature": base64.b64encode(self.raw).decode(),
        }
        return (json.dumps(document, indent=2) + "\n").encode()


def message(name: str, version: int, manifest: bytes) -> bytes:
    """Return the bytes that are signed."""
    return f"{SCHEMA}\n{name}\n{version}\n".encode() + manifest


def signature_file(key: str) -> str:
    """Return the file name of a key's signature."""
    return f"manifest.{key}.sig"


def signing_key(file: str) -> str | None:
    """Return the id of the key whose signature a file name says it is, or None."""
    match = _FILE.fullmatch(file)
    return match.group(1) if match else None


def decode_signature(data: bytes, expected: tuple[str, int, str], where: str) -> Signature:
    """Read a signature file.

    Parameters
    ----------
    expected : the name, version and key that it has to be of.
    where : begins every message.

    Raises
    ------
    ManifestMismatch
        It is no signature, or one of something else.
    """
    try:
        document = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ManifestMismatch(f"{where}: expected a JSON object: {error}") from error
    if not isinstance(document, dict) or sorted(document) != sorted(_KEYS):
        raise ManifestMismatch(f"{where}: expected an object of {', '.join(_KEYS)}, got {document!r:.80}")
    for key, value in zip(_KEYS, (SCHEMA, *expected), strict=False):
        if document[key] != value or type(document[key]) is not type(value):
            raise ManifestMismatch(f"{where}: expected {key} {value!r}, got {document[key]!r:.80}")
    try:
        return Signature(*expected, base64.b64decode(document["signature"], validate=True))
    except (TypeError, ValueError, binascii.Error) as error:
        raise ManifestMismatch(f"{where}: expected a signature in base64, got other text") from error
