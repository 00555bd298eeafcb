"""A session around a Python function, for tests: the same contract, no backend."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from trocar.runtime.device import Device
from trocar.runtime.session.base import Array, TensorSpec, check_feeds


class FakeSession:
    """Answers with what `function` returns for the feeds, and keeps every call's feeds.

    What the function returns is checked like the feeds, so that a fake cannot drift from its own outputs.
    """

    provider = "fake"
    device = Device(kind="cpu", name="fake", why="a stand-in for tests")

    def __init__(
        self,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        function: Callable[[Mapping[str, Array]], Mapping[str, Array]],
    ) -> None:
        self.inputs = tuple(inputs)
        self.outputs = tuple(outputs)
        self.calls: list[Mapping[str, Array]] = []
        self._function = function

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Check the feeds, call the function, check what it says."""
        check_feeds(self.inputs, feeds)
        self.calls.append(dict(feeds))
        answer = self._function(feeds)
        check_feeds(self.outputs, answer, what="output")
        return {spec.name: answer[spec.name] for spec in self.outputs}
