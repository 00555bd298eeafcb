from dataclasses import dataclass, field
from pathlib import Path

import pytest

from trocar.runtime.config import Config, ServerConfig, limits, load_config, parse_config, parse_table
from trocar.runtime.errors import InvalidInput


def test_a_file_that_says_nothing_is_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "trocar.toml"
    path.write_text("")
    assert load_config(path) == Config()


def test_values_and_service_tables_are_read(tmp_path: Path) -> None:
    path = tmp_path / "trocar.toml"
    path.write_text(
        '[server]\nlisten = "unix:/run/t.sock"\ndrain_grace_s = 5\n[services.planning]\nmax_moves = 7\n'
    )
    config = load_config(path)
    assert config.server == ServerConfig(listen="unix:/run/t.sock", drain_grace_s=5.0)
    assert config.services == {"planning": {"max_moves": 7}}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[server]\nmax_quequed = 3", "unknown key 'max_quequed'"),
        ("[sever]\nlisten = 'a:1'", "unknown key 'sever'"),
        ("[server]\nmax_queued = true", "expected int, got True"),
        ("[server]\nmax_queued = 1.5", "expected int, got 1.5"),
        ("[server]\nmax_queued = -1", "expected 0 to 1024, got -1"),
        ("[server]\ndrain_grace_s = nan", "expected a finite number"),
        ("[server]\ndrain_grace_s = inf", "expected a finite number"),
        ("[server]\nlog_level = 'loud'", "expected one of debug, info, warning, error, got 'loud'"),
        ("server = 3", "expected a table, got int"),
        ("services = 3", "expected tables [services.NAME]"),
        ("[services]\nplanning = 3", "expected tables [services.NAME]"),
        ("[server", "is not TOML"),
    ],
)
def test_what_a_file_gets_wrong_is_named(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "trocar.toml"
    path.write_text(text)
    with pytest.raises(InvalidInput) as raised:
        load_config(path)
    assert said in str(raised.value)
    assert "trocar.toml" in str(raised.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="cannot read the configuration"):
        load_config(tmp_path / "none.toml")


def test_bytes_that_are_not_text(tmp_path: Path) -> None:
    path = tmp_path / "trocar.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidInput, match="is not TOML"):
        load_config(path)


def test_a_table_of_ones_own() -> None:
    @dataclass(frozen=True)
    class Mine:
        size_mm: float = field(default=1.0, metadata=limits(0.5, 2))
        name: str = "x"

    assert parse_table(Mine, {"size_mm": 2}, where="w") == Mine(2.0)
    with pytest.raises(InvalidInput, match=r"w size_mm: expected 0.5 to 2, got 3"):
        parse_table(Mine, {"size_mm": 3.0}, where="w")


def test_defaults_keep_their_own_limits() -> None:
    assert parse_config({}, where="w").server.max_message_mib == 64
