"""How public data sets write their masks, as data: where files are, what each value means.

Sources: the data sets' own papers and readme files. Values not named mean `other`. EndoVis 2018, SAR-RARP50
and AutoLaparo were not at hand: their values and folders are those that public loaders of them use, named at
each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from trocar.video.annotator.labels import ANY_INSTRUMENT, IGNORE
from trocar.video.types import PixelClass

_BACK, _TISSUE = int(PixelClass.BACKGROUND), int(PixelClass.TISSUE)
_SHAFT, _WRIST, _CLASPER = int(PixelClass.SHAFT), int(PixelClass.WRIST), int(PixelClass.CLASPER)
Colour = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Encoding:
    """One data set.

    Parameters
    ----------
    frames, masks : folder names, or parts of file names, that stand for each other; a mask's path is the
        frame's with the one put for the other.
    values : class by grey value.
    colours : class by RGB, for coloured masks; exclusive with `values` and `threshold`.
    threshold : for binary masks, often JPEG: above it is `above`.
    other : class of any other value.
    view : top, left, height and width of the endoscope's picture in frames of `view_of` rows and columns;
        outside is background.
    tips : a folder of maps whose blobs are tips; none where empty.
    polyps : whether the classes are `POLYP_CLASSES`.
    """

    frames: tuple[str, ...]
    masks: tuple[str, ...]
    values: Mapping[int, int] = field(default_factory=dict)
    colours: Mapping[Colour, int] = field(default_factory=dict)
    threshold: int | None = None
    above: int = ANY_INSTRUMENT
    other: int = IGNORE
    view: tuple[int, int, int, int] | None = None
    view_of: tuple[int, int] | None = None
    tips: str = ""
    polyps: bool = False


ENCODINGS: Mapping[str, Encoding] = MappingProxyType(
    {
        # Allan et al. 2019, 2017 Robotic Instrument Segmentation Challenge.
        "endovis17": Encoding(
            frames=("frames", "left_frames", "left_frame"),
            masks=("masks", "ground_truth/Left_labels", "labels"),
            values={0: _TISSUE, 10: _SHAFT, 20: _WRIST, 30: _CLASPER, 40: ANY_INSTRUMENT},
            view=(28, 320, 1024, 1280),
            view_of=(1080, 1920),
        ),
        # Allan et al. 2020, 2018 Robotic Scene Segmentation Challenge: the colours of labels.json, as in MML
        # of the German Cancer Research Center and four other loaders, which all agree.
        "endovis18": Encoding(
            frames=("left_frames", "frames"),
            masks=("labels", "masks"),
            colours={
                (0, 0, 0): _TISSUE,
                (0, 255, 0): _SHAFT,
                (125, 255, 12): _WRIST,
                (0, 255, 255): _CLASPER,
                (255, 55, 0): _TISSUE,
                (24, 55, 125): _TISSUE,
                (187, 155, 25): _TISSUE,
                (0, 255, 125): _TISSUE,
                (255, 255, 125): _TISSUE,
                (123, 15, 175): ANY_INSTRUMENT,
                (124, 155, 5): _TISSUE,
                (12, 255, 141): ANY_INSTRUMENT,
            },
        ),
        # Hong et al. 2020; the watershed masks.
        "cholecseg8k": Encoding(
            frames=("_endo.png",),
            masks=("_endo_watershed_mask.png",),
            values={
                50: _BACK,
                11: _TISSUE,
                21: _TISSUE,
                13: _TISSUE,
                12: _TISSUE,
                23: _TISSUE,
                24: _TISSUE,
                25: _TISSUE,
                22: _TISSUE,
                33: _TISSUE,
                5: _TISSUE,
                31: ANY_INSTRUMENT,
                32: ANY_INSTRUMENT,
            },
        ),
        "cholecseg8k-instrument": Encoding(
            frames=("frames",), masks=("masks",), threshold=127, other=_TISSUE
        ),
        # Psychogyios et al. 2023: clasper, wrist, shaft, needle, thread, suction tool, needle holder, clamps
        # and catheter from 1 on, as in yhdeng-ryan/Segformer_RARP50 and one other loader.
        "sar-rarp50": Encoding(
            frames=("rgb", "frames"),
            masks=("segmentation", "masks"),
            values={
                0: _TISSUE,
                1: _CLASPER,
                2: _WRIST,
                3: _SHAFT,
                4: _TISSUE,
                5: _TISSUE,
                6: ANY_INSTRUMENT,
                7: ANY_INSTRUMENT,
                8: _TISSUE,
                9: _TISSUE,
            },
        ),
        # Wang et al. 2022: manipulator and shaft of four instruments in turn, then the uterus, as in the
        # preparation of its Task 3 by Bayesian_WSS.
        "autolaparo": Encoding(
            frames=("imgs", "frames"),
            masks=("masks",),
            values={
                0: _TISSUE,
                20: ANY_INSTRUMENT,
                40: _SHAFT,
                60: ANY_INSTRUMENT,
                80: _SHAFT,
                100: ANY_INSTRUMENT,
                120: _SHAFT,
                140: ANY_INSTRUMENT,
                160: _SHAFT,
                180: _TISSUE,
            },
        ),
        # Hasan et al. 2021.
        "artnet": Encoding(
            frames=("images",), masks=("toolmask",), threshold=127, other=_TISSUE, tips="tooltip"
        ),
        # Jha et al. 2020; Bernal et al. 2015.
        "kvasir-seg": Encoding(
            frames=("images",), masks=("masks",), threshold=127, above=1, other=0, polyps=True
        ),
        "cvc-612": Encoding(
            frames=("images", "Original"),
            masks=("masks", "Ground Truth"),
            threshold=127,
            above=1,
            other=0,
            polyps=True,
        ),
    }
)
