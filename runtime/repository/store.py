"""A folder of published models: opened only as their manifests say, published whole or not at all.

    <root>/<name>/<version>/{manifest.json, model.onnx, card.md, ...}

A published version never changes. No symbolic link below the root is followed, so nothing outside it is
read under a model's name.
"""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trocar.runtime.errors import InvalidInput, ManifestMismatch, ModelNotFound, TrocarError
from trocar.runtime.repository.manifest import (
    MANIFEST_NAME,
    MAX_MANIFEST_BYTES,
    SCHEMA,
    Manifest,
    decode_manifest,
    parse_manifest,
    require_file,
    require_name,
    require_version,
)

MAX_FILE_BYTES = 1 << 30
# Under the model folder's lock there is one publication at a time, so one name serves; what a kill leaves
# there is swept by the next.
_STAGED = ".publishing"
_VERSION = re.compile(r"[1-9][0-9]{0,9}")


@dataclass(frozen=True, slots=True)
class Model:
    """A version of a model whose files were what its manifest says when it was opened."""

    manifest: Manifest
    folder: Path

    def path(self, name: str) -> Path:
        """Return where a file of the manifest lies. `read` also vouches for its content."""
        self._digest(name)
        return self.folder / name

    def read(self, name: str) -> bytes:
        """Return a file's content, checked against the manifest once more: these very bytes.

        Raises
        ------
        ManifestMismatch
            The file changed since.
        """
        return _verified(self.folder, name, self._digest(name))

    def _digest(self, name: str) -> str:
        if name not in self.manifest.files:
            raise ManifestMismatch(
                f"{self.folder}: expected one of {', '.join(sorted(self.manifest.files))}, got {name!r}"
            )
        return self.manifest.files[name]


class Repository:
    """Models under one folder.

    Parameters
    ----------
    root : the folder. `publish` makes it where it is not there.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def names(self) -> tuple[str, ...]:
        """Names of the models that have a version, sorted."""
        return tuple(sorted(name for name in _subfolders(self.root) if self._versions(name)))

    def versions(self, name: str) -> tuple[int, ...]:
        """Versions of a model, oldest first; empty where there is no such model."""
        require_name(name, str(self.root))
        return self._versions(name) if name in _subfolders(self.root) else ()

    def open(self, name: str, version: int | None = None) -> Model:
        """Open a model, checking every file.

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
            A file is missing, altered, a link, or not in the manifest; the message names it.
        """
        versions = self.versions(name)
        if not versions or (version is not None and version not in versions):
            raise self._missing(name, version, versions)
        return self._open(name, versions[-1] if version is None else version)

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
            A field or file name is refused, the version is taken, or the folder cannot be written.
        """
        for file in files:
            require_file(file, name)
        digests = {file: hashlib.sha256(content).hexdigest() for file, content in files.items()}
        manifest = _manifest(name, 1 if version is None else version, fields, digests)
        folder = self.root / name
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with _locked(folder):
                shutil.rmtree(folder / _STAGED, ignore_errors=True)
                taken = self.versions(name)
                if version is None:
                    manifest = dataclasses.replace(manifest, version=max(taken, default=0) + 1)
                if manifest.version in taken:
                    raise InvalidInput(
                        f"version {version} of {name!r} is published already, and published versions never "
                        f"change; the next is {taken[-1] + 1}"
                    )
                _write(folder, {**files, MANIFEST_NAME: manifest.encoded()}, str(manifest.version))
        except OSError as error:
            raise InvalidInput(f"cannot publish to {folder}: {error.strerror}") from error
        return self._open(name, manifest.version)

    def _open(self, name: str, version: int) -> Model:
        folder = self.root / name / str(version)
        path = folder / MANIFEST_NAME
        data = _read(path, MAX_MANIFEST_BYTES)
        try:
            manifest = decode_manifest(data, str(path))
        except InvalidInput as error:
            raise ManifestMismatch(str(error)) from error
        if (manifest.name, manifest.version) != (name, version):
            raise ManifestMismatch(
                f"{path}: expected {name} version {version}, got {manifest.name} version {manifest.version}"
            )
        unlisted = sorted({entry.name for entry in folder.iterdir()} - {MANIFEST_NAME, *manifest.files})
        if unlisted:
            raise ManifestMismatch(f"{folder / unlisted[0]}: the manifest does not name this file")
        for file, digest in manifest.files.items():
            _verified(folder, file, digest)
        return Model(manifest, folder)

    def _versions(self, name: str) -> tuple[int, ...]:
        found = (entry for entry in _subfolders(self.root / name) if _VERSION.fullmatch(entry))
        return tuple(sorted(map(int, found)))

    def _missing(self, name: str, version: int | None, versions: tuple[int, ...]) -> TrocarError:
        """Return why there is no such model: a link that is not followed, or what there is instead."""
        folder = self.root / name
        for place in (folder, folder / str(version)):
            if place.is_symlink():
                return ManifestMismatch(f"{place}: expected a folder, got a symbolic link")
        if versions:
            have = ", ".join(map(str, versions))
            return ModelNotFound(f"no version {version} of {name!r} in {self.root}; there is {have}")
        return ModelNotFound(
            f"no model {name!r} in {self.root}; there is {', '.join(self.names()) or 'none'}"
        )


def shipped() -> Repository:
    """Return the models that come with the package."""
    return Repository(Path(__file__).parents[1] / "zoo")


def _manifest(name: str, version: int, fields: Mapping[str, Any], digests: Mapping[str, str]) -> Manifest:
    require_name(name, "publish")
    require_version(version, name)
    document = {**fields, "schema": SCHEMA, "name": name, "version": version, "files": digests}
    try:
        plain = json.loads(json.dumps(document, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInput(f"{name}: expected JSON values in the manifest: {error}") from error
    manifest = parse_manifest(plain, name)
    if len(manifest.encoded()) > MAX_MANIFEST_BYTES:
        raise InvalidInput(f"{name}: expected a manifest of at most {MAX_MANIFEST_BYTES} bytes, got more")
    return manifest


def _subfolders(folder: Path) -> set[str]:
    """Names of the real folders in a folder; hidden ones and links are not among them."""
    try:
        with os.scandir(folder) as entries:
            return {
                entry.name
                for entry in entries
                if entry.is_dir(follow_symlinks=False) and not entry.name.startswith(".")
            }
    except OSError as error:
        raise InvalidInput(f"cannot read the repository {folder}: {error.strerror}") from error


def _verified(folder: Path, name: str, digest: str) -> bytes:
    data = _read(folder / name, MAX_FILE_BYTES)
    found = hashlib.sha256(data).hexdigest()
    if found != digest:
        raise ManifestMismatch(f"{folder / name}: expected SHA-256 {digest} as in the manifest, got {found}")
    return data


def _read(path: Path, most: int) -> bytes:
    """Read a regular file; not through a link, and without waiting for a pipe's writer."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        reason = "a symbolic link" if error.errno == errno.ELOOP else str(error.strerror)
        raise ManifestMismatch(f"{path}: expected a file, got {reason}") from error
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ManifestMismatch(f"{path}: expected a regular file")
        data = file.read(most + 1)
    if len(data) > most:
        raise ManifestMismatch(f"{path}: expected at most {most} bytes, got more")
    return data


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold a folder's lock; a killed holder's lock goes with it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _write(folder: Path, files: Mapping[str, bytes], name: str) -> None:
    """Write files into `folder/name`: on disk, then visible under that name in one step."""
    staged = folder / _STAGED
    staged.mkdir()
    try:
        for file, content in files.items():
            with (staged / file).open("xb") as handle:
                handle.write(content)
                handle.flush()
                os.fsync(handle.fileno())
        _sync(staged)
        staged.rename(folder / name)
        _sync(folder)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
