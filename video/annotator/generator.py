"""The generator: from a frame to a label map and a map of instrument tips.

A U-Net of plain convolutions, which both oneDNN and ONNX Runtime run near a core's peak; half of the
resolution is made at the end from channels, so no layer works on the whole picture.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from trocar.video.annotator.settings import NetworkSettings

_LIT = 0.1
# Channels that a runtime computes at a time, at most.
_VECTOR = 16


class Generator(nn.Module):
    """See `forward`."""

    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__()
        half, *rest = settings.widths
        self.stem = _convolution(6, half, stride=2)
        self.stages = nn.ModuleList()
        for before, width, depth in zip(settings.widths, rest, settings.depths, strict=False):
            self.stages.append(
                nn.Sequential(
                    _convolution(before, width, stride=2), *(_Residual(width) for _ in range(depth))
                )
            )
        self.context = _Context(rest[-1])
        self.joins = nn.ModuleList(
            _Join(deep, width, settings.lean) for deep, width in zip(rest[:0:-1], rest[-2::-1], strict=True)
        )
        self.fine = _Join(rest[0], half, settings.lean)
        # A logit counts only against the others': the first class's may be 0.
        self.without = int(settings.lean)
        self.head = nn.Conv2d(half, 4 * (settings.classes - self.without), 3, padding=1)
        self.tips = _Tips(rest[0]) if settings.tips else None

    def features(self, image: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits as `forward` gives them, and the tips' logits."""
        picture = self.stem(normalised(image))
        held = [picture]
        for stage in self.stages:
            held.append(stage(held[-1]))
        deep = self.context(held[-1])
        for join, skip in zip(self.joins, held[-2:0:-1], strict=True):
            deep = join(deep, skip)
        tips = self.tips(deep) if self.tips is not None else None
        logits = _shuffled(self.head(self.fine(deep, picture)))
        return nn.functional.pad(logits, (0, 0, 0, 0, self.without, 0)), tips

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor] | Tensor:
        """Annotate frames.

        Parameters
        ----------
        image : (batch, 3, height, width) RGB from 0 to 1; height and width are multiples of 32.

        Returns
        -------
        Logits (batch, classes, height, width), and where the network has them the tips' probabilities
        (batch, 1, height / 4, width / 4).
        """
        logits, tips = self.features(image)
        return logits if tips is None else (logits, torch.sigmoid(tips))


def normalised(image: Tensor) -> Tensor:
    """The picture as it is, and with its mean and contrast taken out over what the endoscope shows.

    The second three channels make the network blind to exposure and white balance; the black surround
    does not count.
    """
    red, green, blue = image.split(1, 1)
    lit = (torch.maximum(torch.maximum(red, green), blue) > _LIT).to(image.dtype)
    share = _mean(lit, 3, 2) + 0.01
    mean = _mean(image * lit, 3, 2) / share
    away = (image - mean) * lit
    spread = (_mean(away * away, 3, 2, 1) / share + 1e-4).sqrt()
    return torch.cat([2.0 * image - 1.0, away * (0.5 / spread)], dim=1)


def _mean(x: Tensor, *axes: int) -> Tensor:
    """Mean over one axis after the other: ONNX Runtime adds a whole picture up in a row, and loses digits."""
    for axis in axes:
        x = x.mean(axis, keepdim=True)
    return x


def _shuffled(x: Tensor) -> Tensor:
    """`pixel_shuffle` by 2: columns, then rows. ONNX Runtime's own takes 1.7 times as long."""
    _, channels, height, width = x.shape
    columns = x.reshape(-1, channels // 2, 2, height * width).transpose(2, 3)
    rows = columns.reshape(-1, channels // 4, 2, height, 2 * width).transpose(2, 3)
    return rows.reshape(-1, channels // 4, 2 * height, 2 * width)


def _convolution(inward: int, outward: int, *, stride: int = 1, kernel: int = 3) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inward, outward, kernel, stride=stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outward),
        nn.ReLU(inplace=True),
    )


class _Residual(nn.Module):
    """Squeeze, look around, widen, add."""

    def __init__(self, width: int) -> None:
        super().__init__()
        inner = width // 2
        self.reduce = _convolution(width, inner, kernel=1)
        self.look = _convolution(inner, inner)
        self.widen = nn.Sequential(nn.Conv2d(inner, width, 1, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.widen(self.look(self.reduce(x))))


class _Context(nn.Module):
    """What the whole picture shows, told to every place."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(nn.Conv2d(width, width // 4, 1), nn.ReLU(), nn.Conv2d(width // 4, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x * (2.0 * torch.sigmoid(self.gate(_mean(x, 3, 2))))


class _Tips(nn.Conv2d):
    """A 3 x 3 convolution to one channel, as nine of 1 x 1 that are shifted and added up.

    Runtimes compute whole vectors of channels: fifteen of sixteen would be for nothing, in nine places.
    """

    shifts: Tensor
    ones: Tensor

    def __init__(self, width: int) -> None:
        super().__init__(width, 1, 3, padding=1)
        # Tips are rare: begin by expecting none, or the first steps are spent on learning that.
        nn.init.constant_(cast(Tensor, self.bias), -4.6)
        self.register_buffer("shifts", torch.eye(_VECTOR, 9).reshape(-1, 1, 3, 3), persistent=False)
        self.register_buffer("ones", torch.ones(1, _VECTOR, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            return super().forward(x)
        places = nn.functional.pad(self.weight[0].flatten(1).T, (0, 0, 0, _VECTOR - 9))
        each = nn.functional.conv2d(x, places[..., None, None])
        shifted = nn.functional.conv2d(each, self.shifts, padding=1, groups=_VECTOR)
        return nn.functional.conv2d(shifted, self.ones, self.bias)


class _Join(nn.Module):
    """Twice the size from below, with what was seen at this size on the way down."""

    def __init__(self, deep: int, width: int, lean: bool) -> None:
        super().__init__()
        self.lean = lean
        self.lateral = _convolution(deep, width, kernel=1)
        self.mix = _convolution(width if lean else 2 * width, width)

    def forward(self, deep: Tensor, skip: Tensor) -> Tensor:
        # Narrow first, then enlarge: a quarter of the work.
        grown = nn.functional.interpolate(self.lateral(deep), scale_factor=2, mode="nearest")
        return cast(Tensor, self.mix(grown + skip if self.lean else torch.cat([grown, skip], dim=1)))
