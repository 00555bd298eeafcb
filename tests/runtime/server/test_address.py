import socket
from pathlib import Path

import pytest

from trocar.runtime.errors import InvalidInput
from trocar.runtime.server.address import Address, parse_address, prepare, release


@pytest.mark.parametrize(
    ("text", "address", "target", "local"),
    [
        ("127.0.0.1:8001", Address("127.0.0.1", 8001), "127.0.0.1:8001", True),
        ("localhost:0", Address("localhost", 0), "localhost:0", True),
        ("[::1]:8001", Address("::1", 8001), "[::1]:8001", True),
        ("0.0.0.0:8001", Address("0.0.0.0", 8001), "0.0.0.0:8001", False),
        ("127.0.0.1.example.org:1", Address("127.0.0.1.example.org", 1), "127.0.0.1.example.org:1", False),
        ("unix:/run/t.sock", Address(path=Path("/run/t.sock")), "unix:/run/t.sock", True),
        ("unix:///run/t.sock", Address(path=Path("/run/t.sock")), "unix:/run/t.sock", True),
        ("unix:t.sock", Address(path=Path("t.sock")), "unix:t.sock", True),
    ],
)
def test_addresses_read(text: str, address: Address, target: str, local: bool) -> None:
    read = parse_address(text)
    assert read == address
    assert (read.target, read.local) == (target, local)


@pytest.mark.parametrize(
    "text", ["", "8001", ":8001", "host", "host:", "host:x", "host:65536", "host:-1", "unix:"]
)
def test_addresses_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="expected"):
        parse_address(text)


def test_a_socket_path_beyond_what_the_kernel_takes() -> None:
    parse_address("unix:/" + "a" * 106)
    with pytest.raises(InvalidInput, match="at most 107 bytes"):
        parse_address("unix:/" + "a" * 107)


def test_the_socket_of_a_dead_server_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "t.sock"
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(path))
    dead.close()
    prepare(Address(path=path))
    assert not path.exists()


def test_the_socket_of_a_live_server_is_not(tmp_path: Path) -> None:
    path = tmp_path / "t.sock"
    with socket.socket(socket.AF_UNIX) as live:
        live.bind(str(path))
        live.listen()
        with pytest.raises(InvalidInput, match="another server answers there"):
            prepare(Address(path=path))
    assert path.exists()


def test_a_file_that_is_no_socket_stays(tmp_path: Path) -> None:
    path = tmp_path / "precious.txt"
    path.write_text("keep")
    with pytest.raises(InvalidInput, match="not a socket"):
        prepare(Address(path=path))
    assert path.read_text() == "keep"


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no folder"):
        prepare(Address(path=tmp_path / "none" / "t.sock"))


def test_a_port_in_use() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InvalidInput, match=f"cannot listen on 127.0.0.1:{port}: Address already in use"):
            prepare(Address("127.0.0.1", port))


def test_a_host_that_is_not_ours() -> None:
    with pytest.raises(InvalidInput, match="cannot listen on"):
        prepare(Address("192.0.2.1", 0))  # TEST-NET-1, RFC 5737


def test_release_forgives_a_socket_already_gone(tmp_path: Path) -> None:
    release(Address(path=tmp_path / "t.sock"))
    release(Address("127.0.0.1", 1))
