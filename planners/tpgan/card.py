"""The model card: what the network is, what it learned from, what was measured, what it must not do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trocar.planners.features import CHANNELS, SIDE
from trocar.runtime.command import INTENDED_USE
from trocar.training.card import facts_table, measured_table, shown

TASK = "propose a low-dose-rate prostate seed plan on the template lattice"

LIMITS = (
    "Trained on parametric phantoms and plans of this package's own search; no patient's plan was used.",
    "It proposes where a search begins; it checks no rule and no dose limit. Judge the finished plan.",
    f"Sees {SIDE} x {SIDE} x {SIDE} lattice sites at a pitch of 5 mm; what lies outside is not planned.",
    "Knows CTV, PTV, urethra and rectum; nothing of pubic arch, seeds in place, or earlier treatment.",
    "I-125 seeds of about the trained strength: see the training record for the range.",
    "A case unlike the phantoms (volume, asymmetry, organ distance) may get a poor proposal; "
    "the plan's report says when a case is unlike them.",
)

# What the shipped training's arms showed; a retrain has to look again.
FINDINGS = (
    "At equal moves the network's start is far ahead of random and greedy starts, up to about 5000 moves; "
    "at 20 000 moves little of it is left.",
    "At equal CPU time it is behind at 10 ms, since features and inference alone take 12 ms of one core, and "
    "from 25 to 100 ms one or two per cent lower in cost than annealing from nothing, with the same passes. "
    "The exact search, at about a microsecond a move, is what makes the plans good.",
    "Cross-entropy alone (`bce`) proposes as good a plan after decoding. The dose, adjacency and style terms "
    "bring the probabilities into line (dose misfit, seed count), not the decoded plan.",
    "The adversarial term, with a spectrally normalised conditional discriminator, mismatched pairs as fakes "
    "and feature matching, made no measurable difference to validation Dice, cross-entropy or dose misfit "
    "against the same training without it. Canonical expert plans leave it little to decide: the network "
    "hardly uses its noise.",
)


def card_text(metadata: Mapping[str, Any], tables: Mapping[str, Any]) -> str:
    """Write the card in Markdown.

    Parameters
    ----------
    metadata : of the checkpoint: `network`, `training`, `metrics`.
    tables : title to rows, each row an object with the same keys: what `trocar bench` measured, such as
        arms and strata. A title without rows says that it was not measured.
    """
    training, metrics = metadata.get("training", {}), metadata.get("metrics", {})
    network = metadata.get("network", {})
    channels = ", ".join(f"`{name}`" for name in CHANNELS)
    sections = [
        "# TP-GAN",
        f"**{INTENDED_USE}**",
        "## What it is\n\n"
        f"A conditional generator on a window of {SIDE} x {SIDE} x {SIDE} lattice sites (plane, row, "
        f"column). It takes {len(CHANNELS)} channels ({channels}) and two of noise, and gives the "
        "probability of a seed at every site. A 3D U-Net of widths "
        f"{shown(network.get('widths', []))}, trained against a conditional "
        "patch discriminator, with cross-entropy, L1, adjacency, style and a TG-43 dose term. "
        "Its proposal is decoded and refined by an exact search before anybody sees a plan.",
        "## Intended use\n\n"
        "To begin the search for a seed plan in research on planning. Not for treating patients.",
        "## What it learned from\n\n" + facts_table(training),
        "## Measured on cases held back\n\n" + facts_table(metrics),
        "## What the arms say\n\n" + "\n".join(f"- {finding}" for finding in FINDINGS),
        *(measured_table(title, rows) for title, rows in tables.items()),
        "## Limits\n\n" + "\n".join(f"- {limit}" for limit in LIMITS),
        "## Sources\n\n"
        "- The idea: T. S. Aleef et al., MICCAI 2021 (TP-GAN); needle rules: IJCARS 2021. "
        "This network shares no weights and no data with theirs.\n"
        "- Dose: AAPM TG-43U1, Rivard et al., Med Phys 2004;31:633-674.",
    ]
    return "\n\n".join(sections) + "\n"
