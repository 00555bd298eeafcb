"""The models' cards: what a network is, what it learned from, what was measured, what it must not do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trocar.training.card import facts_table, measured_table, shown

INTENDED_USE = (
    "Research software, not a medical device; trained on rendered frames; nobody may rely on what it marks."
)


@dataclass(frozen=True, slots=True)
class Facts:
    """What is fixed of a model: words for its card and manifest.

    Parameters
    ----------
    others : in the titles of measured tables that are about another model, and not for this card.
    """

    title: str
    task: str
    what: str
    learned: str
    findings: tuple[str, ...]
    limits: tuple[str, ...]
    others: str


ANNOTATOR = Facts(
    title="Annotator",
    task="mark instruments by part (shaft, wrist, clasper), their tips, tissue and background in a frame",
    what=(
        "The generator of a conditional GAN of the pix2pix family, from a frame to its label map and to a "
        "quarter-size map of instrument tips. A U-Net of plain convolutions; the graph itself takes out "
        "exposure and white balance. Trained with cross-entropy, Dice and focal terms against a conditional "
        "patch discriminator, which sees frame and label map together, and whose fakes include label maps of "
        "other frames."
    ),
    learned=(
        "Procedurally rendered frames alone: no pixel of a patient or of any data set was used. The renderer "
        "was written from descriptions of surgical video. Its author had seen the real frames of the tables "
        "below and what early networks got wrong on them: they are no blind test. Nothing was fitted to them."
    ),
    # What the shipped training's arms showed; a retrain has to look again.
    findings=(
        "The network before this one (`lean` off, 80 channels at an eighth of the size, otherwise the same "
        "training) takes two thirds more time. It has 0.788 on the ten real frames against 0.793, and a "
        "pooled Dice of 0.65 on rendered ones against 0.64. On 200 rendered frames its mean Dice is 0.795 "
        "against 0.796, with all regions 0.771 against 0.738. One seed each.",
        "The adversarial terms made no difference that could be measured: the same training without them, "
        "identical until they join after 8 of 14 epochs, has a mean Dice of 0.790 on the ten real frames "
        "against 0.793 (wrists, of three frames, 0.28 against 0.42), and a pooled one of 0.642 on rendered "
        "frames against 0.643. With the network before it was 0.802 against 0.788. One seed each. No gain is "
        "claimed for them.",
        "Instruments of fewer than 200 of the network's pixels are mostly highlights. Dropping them raises "
        "the mean Dice on 200 rendered frames from 0.738 to 0.796; the area was chosen with the network "
        "before. A real frame without instruments scores 0 for a single wrong pixel; hence the rows with all "
        "regions.",
        "Grey is a good guide where tissue is red and instruments are bare metal (EndoVis 2017), and none "
        "for coloured shafts (ART-Net) or among highlights (CholecSeg8k).",
        "A quarter of the frames repainted by a painter (`trocar train painter`, 3 epochs), in a short "
        "training of the network before (4 epochs of 512 frames) against the same without: pooled instrument "
        "Dice on 100 rendered frames 0.704 against 0.691, mean on the ten real frames, all regions, 0.680 "
        "against 0.668. One seed each, so perhaps nothing. The shipped training does without it. For polyps, "
        "3 epochs, it was a loss: 0.575 against 0.677 on rendered frames.",
    ),
    limits=(
        "Trained on rendered frames alone: on real video it works zero-shot. The tables say how well.",
        "Ten real frames of four operations are few: the figures are coarse.",
        "Shaft, wrist and clasper are told apart less well than instrument from tissue.",
        "Gauze, thread, needles and clips count as tissue; bags, probes and trocars were not rendered.",
        "It sees 256 x 448 px; tips and jaws of a few pixels at that size are lost.",
        "Each frame is judged alone; nothing is remembered from the frame before.",
    ),
    others="polyps",
)

POLYP = Facts(
    title="Polyp",
    task="mark polyps in a frame of colonoscopy",
    what=(
        "The annotator's generator with two classes, other and polyp, without tips, trained the same way; "
        "wider at an eighth of the picture's size, and where it goes up again, maps lie beside each other "
        "that the annotator's adds."
    ),
    learned=(
        "Procedurally rendered frames of a bowel alone: no pixel of a patient or of any data set was used. "
        "The renderer was written from descriptions; its author had not looked at the real frames of the "
        "table below. They were scored for the model before, and twice for this renderer's: the short "
        "trainings, then this one. Nothing was changed between the two but the length of the training."
    ),
    findings=(
        "On eight real frames the mean Dice is 0.34, that of a threshold on redness 0.21, that of the "
        "model before 0.09, which had learned a flat relief. A start for fine-tuning and no detector: 0.40 "
        "was aimed at, and on the two frames of Kvasir-SEG the threshold is still better.",
        "The training is short, 1536 steps of one seed, and had not levelled off: 640 steps gave 0.22. On "
        "rendered frames the Dice is pooled, which large polyps decide; frame by frame it is 0.48 on 21 "
        "with a polyp (redness 0.15), 0.44 with their colours shifted and blurred, and 0.33 on 21 of the "
        "renderer before, which it never saw (redness 0.40).",
        "The adversarial terms were compared in the short trainings alone (640 steps), identical until "
        "they join after 3 of 5 epochs: without them 0.62 against 0.60 on rendered frames, 0.16 against 0.22 "
        "on the real ones, all of it on the two of Kvasir-SEG. One seed each. No gain is claimed for them.",
    ),
    limits=(
        "Trained on rendered frames alone, and not good enough on real ones: see the table.",
        "Flat lesions, folds and stool are easily confused with polyps.",
        "It is no detector for screening: it was not measured on normal bowel.",
    ),
    others="instruments",
)


def card_text(facts: Facts, document: Mapping[str, Any]) -> str:
    """Write the card in Markdown.

    Parameters
    ----------
    document : the checkpoint's facts, and `tables`: title to rows, each an object with the same keys.
    """
    sections = [
        f"# {facts.title}",
        f"**{INTENDED_USE}**",
        f"## What it is\n\n{facts.what} Widths {shown(document.get('network', {}).get('widths', []))}.",
        "## Intended use\n\nResearch on surgical video. Not for guiding or judging surgery.",
        f"## What it learned from\n\n{facts.learned}\n\n" + facts_table(document.get("training", {})),
        "## Measured on rendered frames held back\n\n" + facts_table(document.get("metrics", {})),
        "## What the arms say\n\n" + "\n".join(f"- {finding}" for finding in facts.findings),
        *(
            measured_table(title, rows)
            for title, rows in document.get("tables", {}).items()
            if facts.others not in title
        ),
        "## Limits\n\n" + "\n".join(f"- {limit}" for limit in facts.limits),
        "## Sources\n\n"
        "- Isola et al., Image-to-Image Translation with Conditional Adversarial Networks, CVPR 2017.\n"
        "- Zhou et al., Objects as Points, 2019: the focal loss of the tips.\n"
        "- Tobin et al., Domain Randomization, IROS 2017.\n"
        "- Surface Dice: Nikolov et al. 2018; tolerance of ROBUST-MIS 2019, 13 px at a width of 960.",
    ]
    return "\n\n".join(sections) + "\n"
