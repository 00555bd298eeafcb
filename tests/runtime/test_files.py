from pathlib import Path

import pytest

from trocar.runtime.errors import InvalidInput
from trocar.runtime.files import umask, write_file


def test_one_file_appears_complete_or_not_at_all(tmp_path: Path) -> None:
    write_file(tmp_path / "a", b"one")
    write_file(tmp_path / "a", b"another")
    assert (tmp_path / "a").read_bytes() == b"another"
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o666 & ~umask()
    (tmp_path / "folder").mkdir()
    for place in ("none/a", "folder"):
        with pytest.raises(InvalidInput, match="cannot write"):
            write_file(tmp_path / place, b"x")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "folder"]
