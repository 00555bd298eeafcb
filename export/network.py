"""What a network must offer to be exported; any package can register one under `trocar.networks`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, cast

from trocar.runtime.errors import InvalidInput, ModelNotFound
from trocar.runtime.session.base import Array

if TYPE_CHECKING:
    from torch import Tensor, nn

GROUP = "trocar.networks"

Feeds: TypeAlias = Mapping[str, Array]
Run: TypeAlias = Callable[[Feeds], Mapping[str, Array]]


class Network(Protocol):
    """A kind of network, found by its entry point's name. It may have what `MeasuredNetwork` adds.

    Parameters
    ----------
    name : the model's name in a repository.
    input_names, output_names : as `forward` takes and returns them; axis 0 of each is the batch.
    layouts : what the axes of each input and output are, such as `batch channel plane row column`.
    """

    name: str
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    layouts: Mapping[str, str]

    def build(self, facts: Mapping[str, Any]) -> nn.Module:
        """Return the module, untrained; the checkpoint's tensors are its state dict.

        Parameters
        ----------
        facts : what the checkpoint says of itself; see `trocar.export.checkpoint`.
        """

    def example_inputs(self) -> tuple[Tensor, ...]:
        """Return inputs as in use, a tensor a name, in the order of `input_names`."""

    def manifest_fields(self, facts: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the manifest's `task`, `intended_use`, `limits`, `training`, `metrics` and `novelty`.

        It may add `preprocessing` and `postprocessing`: how inputs are made and outputs are read.
        """

    def card(self, document: Mapping[str, Any]) -> str:
        """Return the card in Markdown.

        Parameters
        ----------
        document : the checkpoint's facts, `tables` of what was measured (rows by title), and over them the
            manifest's document less `version` and `files`, which are not known yet.
        """


class MeasuredNetwork(Network, Protocol):
    """A network that says on what it is to be measured; each of these may be missing.

    Without `parity_inputs` parity is measured on the example moved a little, which the manifest says;
    without `calibration_inputs` there is no int8; without `task_metric` nothing of the task is compared.
    """

    def parity_inputs(self) -> Sequence[Feeds]:
        """Return batches of real inputs, none of them trained or calibrated on; their sizes may differ."""

    def calibration_inputs(self) -> Iterable[Feeds]:
        """Return batches of real inputs, from which the ranges of int8 are taken."""

    def task_metric(self, run: Run) -> Mapping[str, float]:
        """Return figures of the task that the network serves, such as a plan's cost, or Dice.

        Parameters
        ----------
        run : the network or a variant of it: inputs by name to outputs by name, any batch.
        """


def find_network(name: str) -> Network:
    """Load the network that is registered under a name.

    Raises
    ------
    ModelNotFound
        There is none; the message says which there are.
    InvalidInput
        What is registered lacks something.
    """
    points = {point.name: point for point in entry_points(group=GROUP)}
    if name not in points:
        raise ModelNotFound(f"no network {name!r}; there is {', '.join(sorted(points)) or 'none'}")
    network = points[name].load()
    wanted = {*Network.__annotations__, "build", "example_inputs", "manifest_fields", "card"}
    if missing := ", ".join(sorted(each for each in wanted if not hasattr(network, each))):
        raise InvalidInput(f"network {name!r}: expected {points[name].value} to have {missing}")
    return cast(Network, network)
