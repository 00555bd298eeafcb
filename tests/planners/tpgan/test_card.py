from __future__ import annotations

from trocar.planners.tpgan.card import LIMITS, card_text
from trocar.planners.tpgan.network import NETWORK
from trocar.runtime.command import INTENDED_USE

METADATA = {
    "network": {"widths": [16, 32, 96], "feature_channels": 8, "noise_channels": 2},
    "training": {"data": "phantoms | plans", "seed": 7, "phantoms": [100, 199]},
    "metrics": {"dice": 0.61234567},
}


def test_the_card_says_use_limits_data_and_figures():
    card = card_text(METADATA, {})
    assert INTENDED_USE in card
    assert all(limit in card for limit in LIMITS)
    assert "| seed | 7 |" in card
    assert "| phantoms | 100, 199 |" in card
    assert "| dice | 0.6123 |" in card
    assert "phantoms / plans" in card  # a bar would end the cell


def test_measured_tables_are_printed_and_missing_ones_said():
    rows = [{"arm": "full", "passed": 28}, {"arm": "random", "passed": 0}]
    card = card_text(METADATA, {"Arms": rows, "Strata": []})
    assert "## Arms\n\n| arm | passed |\n|---|---|\n| full | 28 |\n| random | 0 |" in card
    assert "## Strata\n\nNot measured yet." in card


def test_the_manifest_fields_hold_what_the_checkpoint_knows():
    fields = NETWORK.manifest_fields(METADATA)
    assert set(fields) == {"task", "intended_use", "limits", "training", "metrics", "novelty"}
    assert fields["intended_use"] == INTENDED_USE
    assert fields["metrics"]["dice"] == METADATA["metrics"]["dice"]
