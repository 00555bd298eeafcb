"""A session around a Python function, for tests: the same contract, no backend."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from trocar.runtime.device import Device
from trocar.runtime.errors import DeviceError
from trocar.runtime.session.base import Array, Binding, Buffer, TensorSpec, check_bound, check_feeds


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

    def bind(self, feeds: Mapping[str, Buffer], outputs: Mapping[str, Buffer]) -> Binding:
        """Check the buffers and keep them."""
        check_bound(self.inputs, self.outputs, feeds, outputs, device=self.device)
        return _FakeBinding(self, _arrays(feeds), _arrays(outputs))

    def run_into(self, feeds: Mapping[str, Buffer], outputs: Mapping[str, Buffer]) -> None:
        """Run once into the caller's buffers."""
        self.bind(feeds, outputs).run()


class _FakeBinding:
    def __init__(self, session: FakeSession, feeds: dict[str, Array], outputs: dict[str, Array]) -> None:
        self._session = session
        self._feeds = feeds
        self._outputs = outputs

    def run(self) -> None:
        for name, values in self._session.run(self._feeds).items():
            if values.shape != self._outputs[name].shape:
                raise DeviceError(f"output {name}: the answer is {list(values.shape)}, not as bound")
            np.copyto(self._outputs[name], values)


def _arrays(buffers: Mapping[str, Buffer]) -> dict[str, Array]:
    """Return the same arrays; `check_bound` lets nothing else through on the CPU."""
    return {name: buffer for name, buffer in buffers.items() if isinstance(buffer, np.ndarray)}
