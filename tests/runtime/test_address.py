"""What is shown of an address."""

from __future__ import annotations

import pytest

from trocar.runtime.address import shown, without_secrets


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("rtsp://10.0.0.7/or2", "rtsp://10.0.0.7/or2"),
        ("rtsp://ward:s3cret@10.0.0.7:554/or2", "rtsp://***@10.0.0.7:554/or2"),
        ("rtsp://ward@10.0.0.7/or2", "rtsp://***@10.0.0.7/or2"),
        # As people type them, not as a URL has to be written.
        ("rtsp://ward:s3/cr@t?#@10.0.0.7/or2", "rtsp://***@10.0.0.7/or2"),
        ("rtsp://ward:s3 cret@10.0.0.7/or2", "rtsp://***@10.0.0.7/or2"),
        ("srt://10.0.0.7:9000?mode=caller&passphrase=s3cret", "srt://10.0.0.7:9000?mode=***&passphrase=***"),
        (
            "rtsp://10.0.0.7/user=ward&password=s3cret&channel=1",
            "rtsp://10.0.0.7/user=***&password=***&channel=***",
        ),
        ("/data/a=b@c.mp4", "/data/a=b@c.mp4"),
        ("rendered:3", "rendered:3"),
    ],
)
def test_secrets_of_an_address_are_hidden(address: str, expected: str) -> None:
    assert shown(address) == expected


def test_addresses_in_a_text_are_found() -> None:
    text = "[Errno 111] Connection refused: 'rtsp://ward:s3cret@10.0.0.7/or2'; wrote a@b=c"
    expected = "[Errno 111] Connection refused: 'rtsp://***@10.0.0.7/or2'; wrote a@b=c"
    assert without_secrets(text) == expected
