"""A folder of published models: opened only as their manifests say, published whole or not at all.

    <root>/<name>/<version>/{manifest.json, model.onnx, card.md, ..., manifest.KEY.sig}

A published version never changes, but for signatures beside it. No symbolic link below the root is followed,
so nothing outside it is read under a model's name.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trocar.runtime.errors import InvalidInput, ManifestMismatch, ModelNotFound, TrocarError
from trocar.runtime.repository.atomic import add_folder, put_file, writing
from trocar.runtime.repository.content import check_content
from trocar.runtime.repository.files import opened_folder, read_file, subfolders
from trocar.runtime.repository.manifest import (
    MANIFEST_NAME,
    MAX_MANIFEST_BYTES,
    MAX_VERSION,
    SCHEMA,
    Manifest,
    decode_manifest,
    is_name,
    parse_manifest,
    require_file,
    require_name,
    require_version,
)
from trocar.runtime.repository.signature import MAX_SIGNATURE_BYTES, signing_key

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from trocar.runtime.repository.sign import TrustedKeys

MAX_FILE_BYTES = 1 << 30
_VERSION = re.compile(r"[1-9][0-9]{0,9}")


@dataclass(frozen=True, slots=True)
class Model:
    """A version of a model whose files were what its manifest says when it was opened.

    Parameters
    ----------
    manifest_bytes : the manifest as it was read, which signatures are of.
    folder : the one that holds its files.
    size_bytes : of all files of the manifest.
    signatures : ids of the keys that signatures beside it are said to be by.
    signed_by : those of them that are trusted, and whose signatures hold.
    """

    manifest: Manifest
    manifest_bytes: bytes = field(repr=False)
    folder: Path
    size_bytes: int
    signatures: tuple[str, ...]
    signed_by: tuple[str, ...]

    def read(self, name: str) -> bytes:
        """Return a file's content, checked against the manifest once more: these very bytes.

        There is no way to a path: whatever opens a file by its path may get another one.

        Raises
        ------
        ManifestMismatch
            The file changed since.
        """
        if name not in self.manifest.files:
            raise ManifestMismatch(
                f"{self.place}: expected one of {', '.join(sorted(self.manifest.files))}, got {name!r}"
            )
        with opened_folder(self.folder.parents[1], *self.place.parts) as descriptor:
            return _verified(descriptor, self.place / name, self.manifest.files[name])

    @property
    def place(self) -> Path:
        """The folder as messages name it, `name/version`: where the repository lies is its owner's affair."""
        return Path(*self.folder.parts[-2:])


class Repository:
    """Models under one folder.

    Parameters
    ----------
    root : the folder. `publish` makes it where it is not there.
    trusted : only models that one of these keys signed are opened; None opens unsigned ones too.
    """

    def __init__(self, root: Path, *, trusted: TrustedKeys | None = None) -> None:
        self.root = root
        self._trusted = trusted

    def names(self) -> tuple[str, ...]:
        """Names of the models that have a version, sorted."""
        return tuple(sorted(name for name in subfolders(self.root) if is_name(name) and self._versions(name)))

    def versions(self, name: str) -> tuple[int, ...]:
        """Versions of a model, oldest first; empty where there is no such model."""
        require_name(name, "the repository")
        return self._versions(name) if name in subfolders(self.root) else ()

    def open(self, name: str, version: int | None = None) -> Model:
        """Open a model, checking every file and, where keys are trusted, the signature.

        Parameters
        ----------
        name : the model.
        version : which; None is the newest.

        Raises
        ------
        InvalidInput
            The name or version is not one, or the repository is not a folder.
        ModelNotFound
            There is none; the message says which there are.
        ManifestMismatch
            A file is missing, altered, a link, not in the manifest, or not what its suffix says; or no
            trusted key signed the manifest. The message names the file.
        """
        versions = self.versions(name)
        if not versions or (version is not None and version not in versions):
            raise self._missing(name, version, versions)
        return self._open(name, versions[-1] if version is None else version, self._trusted)

    def publish(
        self,
        name: str,
        fields: Mapping[str, Any],
        files: Mapping[str, bytes],
        *,
        version: int | None = None,
    ) -> Model:
        """Add a version, all of it or none: a kill at any moment leaves what was there before.

        Parameters
        ----------
        name : the model.
        fields : the manifest's document without `schema`, `name`, `version` and `files`.
        files : content by file name; `model.onnx` and `card.md` at least.
        version : a number that is not taken; None is the next.

        Raises
        ------
        InvalidInput
            A field, file name or file is refused, the version is taken, or the folder cannot be written.
        """
        manifest = _manifest(name, 1 if version is None else version, fields, files)
        folder = self.root / name
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with writing(self.root) as staged:
                if folder.is_symlink():
                    raise InvalidInput(f"{folder}: expected a folder to publish in, got a symbolic link")
                taken = self.versions(name)
                if version is None:
                    following = require_version(max(taken, default=0) + 1, f"{folder}: the next")
                    manifest = dataclasses.replace(manifest, version=following)
                if manifest.version in taken:
                    raise InvalidInput(
                        f"version {version} of {name!r} is published already, and published versions never "
                        f"change; the next is {taken[-1] + 1}"
                    )
                content = {**files, MANIFEST_NAME: manifest.encoded()}
                add_folder(staged, content, folder / str(manifest.version))
        except OSError as error:
            raise InvalidInput(f"cannot publish to {folder}: {error.strerror}") from error
        return self._open(name, manifest.version, trusted=None)

    def sign(self, model: Model, key: Ed25519PrivateKey) -> Path:
        """Put a key's signature beside the manifest of a model that `open` found in order.

        Returns
        -------
        The signature's file.

        Raises
        ------
        InvalidInput
            The folder cannot be written.
        """
        from trocar.runtime.repository.sign import sign

        signature = sign(key, model.manifest.name, model.manifest.version, model.manifest_bytes)
        place = model.folder / signature.file
        try:
            with writing(self.root) as staged:
                put_file(staged, signature.encoded(), place)
        except OSError as error:
            raise InvalidInput(f"cannot write {place}: {error.strerror}") from error
        return place

    def _open(self, name: str, version: int, trusted: TrustedKeys | None) -> Model:
        folder = Path(name, str(version))
        path = folder / MANIFEST_NAME
        with opened_folder(self.root, name, str(version)) as descriptor:
            data = read_file(descriptor, path, MAX_MANIFEST_BYTES)
            there = sorted(os.listdir(descriptor))
            signatures = {key: file for file in there if (key := signing_key(file)) is not None}
            signed_by: tuple[str, ...] = ()
            if trusted is not None:  # before a byte of the manifest is believed
                read = {
                    key: read_file(descriptor, folder / file, MAX_SIGNATURE_BYTES)
                    for key, file in signatures.items()
                    if key in trusted.keys
                }
                signed_by = trusted.require(name, version, data, read, path)
            manifest = _decoded(data, name, version, path)
            named = {MANIFEST_NAME, *manifest.files, *signatures.values()}
            if unnamed := [file for file in there if file not in named]:
                raise ManifestMismatch(f"{folder / unnamed[0]}: the manifest does not name this file")
            size = 0
            for file, digest in manifest.files.items():
                content = _verified(descriptor, folder / file, digest)
                check_content(file, content, str(folder / file))
                size += len(content)
        return Model(manifest, data, self.root / folder, size, tuple(sorted(signatures)), signed_by)

    def _versions(self, name: str) -> tuple[int, ...]:
        found = (int(entry) for entry in subfolders(self.root / name) if _VERSION.fullmatch(entry))
        return tuple(sorted(version for version in found if version <= MAX_VERSION))

    def _missing(self, name: str, version: int | None, versions: tuple[int, ...]) -> TrocarError:
        """Return why there is no such model: a link that is not followed, or what there is instead."""
        for place in (Path(name), Path(name, str(version))):
            if (self.root / place).is_symlink():
                return ManifestMismatch(f"{place}: expected a folder, got a symbolic link")
        if versions:
            have = ", ".join(map(str, versions))
            return ModelNotFound(f"no version {version} of {name!r} in the repository; there is {have}")
        have = ", ".join(self.names()) or "none"
        return ModelNotFound(f"no model {name!r} in the repository; there is {have}")


def shipped() -> Repository:
    """Return the models that come with the package."""
    return open_repository()


def open_repository(folder: str | Path = "", *, require_signature: str | Path = "") -> Repository:
    """Return a repository as an operator's options say.

    Parameters
    ----------
    folder : of the models; those that come with the package where it is empty.
    require_signature : a PEM file of the public keys of which one has to have signed what is opened; none is
        required where it is empty.

    Raises
    ------
    InvalidInput
        The key file cannot be used.
    """
    root = Path(folder) if folder else Path(__file__).parents[1] / "zoo"
    if not require_signature:
        return Repository(root)
    from trocar.runtime.repository.sign import read_trusted_keys

    return Repository(root, trusted=read_trusted_keys(Path(require_signature)))


def _manifest(name: str, version: int, fields: Mapping[str, Any], files: Mapping[str, bytes]) -> Manifest:
    """Check all that is to be published, and return its manifest."""
    require_name(name, "publish")
    require_version(version, name)
    for file, content in files.items():
        require_file(file, name)
        try:
            check_content(file, content, f"{name}: {file}")
        except ManifestMismatch as error:
            raise InvalidInput(str(error)) from error
    digests = {file: hashlib.sha256(content).hexdigest() for file, content in files.items()}
    document = {**fields, "schema": SCHEMA, "name": name, "version": version, "files": digests}
    try:
        plain = json.loads(json.dumps(document, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInput(f"{name}: expected JSON values in the manifest: {error}") from error
    manifest = parse_manifest(plain, name)
    if len(manifest.encoded()) > MAX_MANIFEST_BYTES:
        raise InvalidInput(f"{name}: expected a manifest of at most {MAX_MANIFEST_BYTES} bytes, got more")
    return manifest


def _decoded(data: bytes, name: str, version: int, path: Path) -> Manifest:
    try:
        manifest = decode_manifest(data, str(path))
    except InvalidInput as error:
        raise ManifestMismatch(str(error)) from error
    if (manifest.name, manifest.version) != (name, version):
        raise ManifestMismatch(
            f"{path}: expected {name} version {version}, got {manifest.name} version {manifest.version}"
        )
    return manifest


def _verified(descriptor: int, path: Path, digest: str) -> bytes:
    data = read_file(descriptor, path, MAX_FILE_BYTES)
    found = hashlib.sha256(data).hexdigest()
    if found != digest:
        raise ManifestMismatch(f"{path}: expected SHA-256 {digest} as in the manifest, got {found}")
    return data
