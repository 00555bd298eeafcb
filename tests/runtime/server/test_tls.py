"""The files of a TLS server: what is refused at the start, and later changes nothing."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from certificates import authority

from trocar.runtime.config import TlsConfig
from trocar.runtime.errors import InvalidInput
from trocar.runtime.server.tls import TlsFiles, server_credentials

OURS, OTHERS = authority(), authority("another")
CERTIFICATE, KEY = OURS.sign("server")
CERTIFICATE_2, KEY_2 = OURS.sign("server, the next")


@pytest.fixture
def tls(tmp_path: Path) -> TlsConfig:
    for name, content in (("cert", CERTIFICATE), ("key", KEY), ("ca", OURS.pem)):
        (tmp_path / name).write_bytes(content)
        (tmp_path / name).chmod(0o600)
    return TlsConfig(*(str(tmp_path / name) for name in ("cert", "key", "ca")))


def test_files_that_belong_together(tls: TlsConfig) -> None:
    assert server_credentials(tls)
    assert TlsFiles(tls).load()
    assert TlsFiles(TlsConfig(tls.certificate, tls.key)).load()


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("cert", b"", "0 begun and 0 ended"),
        ("cert", CERTIFICATE[:300], "1 begun and 0 ended"),
        ("cert", CERTIFICATE + OURS.pem[:300], "2 begun and 1 ended"),
        ("cert", CERTIFICATE.replace(b"M", b"*"), "expected PEM certificates"),
        ("cert", CERTIFICATE_2, "key: expected the key of .*cert, got another's"),
        ("key", KEY_2, "got another's"),
        ("key", KEY[:60], "expected a private key in PEM"),
        ("key", b"", "expected a private key in PEM"),
        ("ca", KEY, "client_ca .*ca: expected whole PEM certificates"),
    ],
)
def test_files_that_do_not_serve(tls: TlsConfig, name: str, content: bytes, says: str) -> None:
    (Path(tls.certificate).parent / name).write_bytes(content)
    with pytest.raises(InvalidInput, match=says) as raised:
        TlsFiles(tls).load()
    assert "\n" not in str(raised.value)


def test_a_key_that_everybody_can_read(tls: TlsConfig) -> None:
    Path(tls.key).chmod(0o644)
    with pytest.raises(InvalidInput, match="others cannot open"):
        TlsFiles(tls).load()
    Path(tls.key).chmod(0o640)  # a group such as ssl-cert
    assert TlsFiles(tls).load()


def test_one_without_the_other(tls: TlsConfig) -> None:
    for half in (
        TlsConfig(certificate=tls.certificate),
        TlsConfig(key=tls.key),
        TlsConfig(client_ca=tls.client_ca),
    ):
        with pytest.raises(InvalidInput, match="expected both certificate and key"):
            server_credentials(half)


def test_changes_are_seen_once_they_are_whole(tls: TlsConfig, caplog: Any) -> None:
    caplog.set_level(logging.INFO, "trocar.server.tls")
    files = TlsFiles(tls)
    files.load()
    assert files.changed() is None
    Path(tls.certificate).write_bytes(CERTIFICATE_2[:400])
    assert files.changed() is None
    Path(tls.certificate).write_bytes(CERTIFICATE_2)
    assert files.changed() is None  # the key is still the old one's
    assert files.changed() is None
    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert [("begun" in error, "another's" in error) for error in errors] == [(True, False), (False, True)]
    Path(tls.key).write_bytes(KEY_2)
    assert files.changed() is not None
    assert files.changed() is None
    Path(tls.key).unlink()
    assert files.changed() is None


def test_an_expired_certificate_is_said(tls: TlsConfig, caplog: Any) -> None:
    certificate, key = OURS.sign("old", days=-1)
    Path(tls.certificate).write_bytes(certificate)
    Path(tls.key).write_bytes(key)
    assert TlsFiles(tls).load()
    assert "expired on" in caplog.text
