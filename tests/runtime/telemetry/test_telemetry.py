from collections.abc import Sequence
from typing import Any

from trocar.runtime.telemetry import (
    Request,
    Stage,
    Telemetry,
    current,
    end_to_end,
    enter,
    ignore,
    served_models,
)

STAGES: list[Stage] = [("read", 1.0, 2.0), ("dose", 2.0, 2.5)]


class Listener:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def stages(self, part: str, names: Sequence[str], *, timed: bool, alone: bool) -> Any:
        self.told.append((part, tuple(names), timed, alone))
        return self.told.append if timed else None

    def collect(self, read: Any) -> None:
        self.told.append(read)

    def begin(self, method: str, kind: str, traceparent: str, request: Request) -> Any:
        self.told.append((method, kind, traceparent, request))
        return lambda code, took_s: self.told.append((code, took_s))

    def close(self) -> None:
        self.told.append("closed")


def test_nobody_looks() -> None:
    telemetry = Telemetry()
    assert telemetry.stages("planning", ("read",)) is ignore
    telemetry.collect(list)
    telemetry.begin("/a.B/C", "unary_unary", "", Request())("OK", 0.1)
    telemetry.close()


def test_each_listener_is_told() -> None:
    one, two = Listener(), Listener()
    telemetry = Telemetry([one, two])
    telemetry.stages("planning", ("read", "dose"))(STAGES)
    request = Request("7")
    telemetry.begin("/a.B/C", "unary_unary", "", request)("OK", 0.1)
    telemetry.close()
    assert one.told == two.told
    assert one.told == [
        ("planning", ("read", "dose"), True, False),
        STAGES,
        ("/a.B/C", "unary_unary", "", request),
        ("OK", 0.1),
        "closed",
    ]
    assert telemetry.stages("inference", ("input",), timed=False) is ignore


def test_the_request_of_a_thread() -> None:
    enter(Request("7"))
    current().model = "pair"
    assert current() == Request("7", "pair")


def test_served_models() -> None:
    family = served_models("video", ["annotator/3"])
    assert (family.labels, family.rows) == (
        ("service", "model", "version"),
        [(("video", "annotator", "3"), 1.0)],
    )


def test_stages_end_to_end() -> None:
    assert end_to_end({"read": 500.0, "dose": 250.0}, 1.0) == [("read", 1.0, 1.5), ("dose", 1.5, 1.75)]
