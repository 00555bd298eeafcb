"""Files of the command line: bounded reads, and writes that leave all or nothing."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from trocar.planners.requests import CaseInput
from trocar.runtime.errors import InvalidInput
from trocar.runtime.files import umask

MAX_CASE_BYTES = 512 << 20
MAX_TEXT_BYTES = 16 << 20
NRRD_MAGIC = b"NRRD"
DICOM_MAGIC, DICOM_MAGIC_AT = b"DICM", 128


def read_bytes(path: Path, what: str, most: int) -> bytes:
    """Read a file of at most `most` bytes; `what` begins the message where that fails."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            # One byte more than allowed: a pipe says no size beforehand.
            data = file.read(most + 1)
    except OSError as error:
        raise InvalidInput(f"{what}: cannot read {path}: {error.strerror}") from error
    if len(data) > most:
        raise InvalidInput(f"{what}: expected at most {most} bytes, got {max(size, len(data))} in {path}")
    return data


def read_text(path: Path, what: str) -> str:
    """Read a UTF-8 file."""
    try:
        return read_bytes(path, what, MAX_TEXT_BYTES).decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{what}: expected UTF-8 text in {path}, got {error.reason}") from error


def case_from_spec(spec: str, *, labels: Mapping[str, int], roles: Mapping[str, str]) -> CaseInput:
    """Read the CASE argument: a `.seg.nrrd`, a label NRRD, an RTSTRUCT file or folder, `phantom:SEED`.

    Raises
    ------
    InvalidInput
        No such file, or neither NRRD nor DICOM.
    """
    if spec.startswith("phantom:"):
        return CaseInput(name=spec, phantom_seed=phantom_seed(spec.removeprefix("phantom:")), roles=roles)
    path = Path(spec)
    if path.is_dir():
        from trocar.planners.io.rtstruct import find_rtstruct

        path = find_rtstruct(path)
    data = read_bytes(path, "case", MAX_CASE_BYTES)
    if data[: len(NRRD_MAGIC)] == NRRD_MAGIC:
        return CaseInput(name=path.name, nrrd=data, labels=labels, roles=roles)
    if data[DICOM_MAGIC_AT : DICOM_MAGIC_AT + len(DICOM_MAGIC)] == DICOM_MAGIC:
        return CaseInput(name=path.name, rtstruct=data, labels=labels, roles=roles)
    raise InvalidInput(f"expected NRRD, DICOM RTSTRUCT or phantom:SEED, got {path} which is neither")


def phantom_seed(text: str) -> int:
    """Read a phantom's number."""
    if not (text.isascii() and text.isdigit() and int(text) < 2**32):
        raise InvalidInput(f"expected a phantom's seed from 0 to {2**32 - 1}, got {text!r}")
    return int(text)


def check_folder(folder: Path) -> None:
    """Refuse an output folder that cannot be written, before anything is computed."""
    if folder.exists() and not folder.is_dir():
        raise InvalidInput(f"expected a folder to write to, got the file {folder}")
    existing = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise InvalidInput(f"expected a folder to write to, got no permission to write in {existing}")


def write_all(folder: Path, files: Mapping[str, bytes]) -> list[Path]:
    """Write every file into the folder, or none.

    They are written beside the folder and moved in once complete; other files in it stay. A new
    folder appears as a whole.
    """
    folder = folder.absolute()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        staged = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise InvalidInput(f"cannot write to {folder}: {error.strerror}") from error
    try:
        for name, content in files.items():
            (staged / name).write_bytes(content)
        if folder.exists():
            for name in files:
                os.replace(staged / name, folder / name)
        else:
            staged.chmod(0o777 & ~umask())
            staged.rename(folder)
    except OSError as error:
        raise InvalidInput(f"cannot write to {folder}: {error.strerror}") from error
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return [folder / name for name in files]
