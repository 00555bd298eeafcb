import pytest

from trocar.runtime.telemetry.requests import read_metadata

UUID = "123e4567-e89b-12d3-a456-426614174000"


@pytest.mark.parametrize("given", [UUID, "0123456789abcdef", "DEADBEEF" * 8])
def test_a_sane_id_is_kept(given: str) -> None:
    assert read_metadata([("x-request-id", given), ("other", "x")])[:2] == (given, True)


@pytest.mark.parametrize(
    "given",
    [
        "",
        "MUELLER^HANS",
        "hans",
        "19700101",
        "1970-01-01-1234567",
        "a" * 65,
        UUID + "\n",
        UUID[:-1],
        b"a" * 16,
    ],
)
def test_another_one_is_replaced(given: object) -> None:
    first, named, _ = read_metadata([("x-request-id", given)])
    second, *_ = read_metadata([])
    assert not named
    assert first != second
    assert given not in (first, second)
    assert read_metadata([("x-request-id", first)])[0] == first  # ours may come back as theirs


def test_the_trace() -> None:
    parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    assert read_metadata([("traceparent", parent), ("tracestate", "x=y")])[2] == parent
    assert read_metadata([("traceparent", b"x")])[2] == ""
