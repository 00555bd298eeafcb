"""The models' cards say of each model what is known of it, and nothing of another."""

from __future__ import annotations

import pytest

from trocar.runtime.repository.store import shipped
from trocar.video.annotator.card import ANNOTATOR, POLYP, Facts, card_text

TABLES = {
    "annotator: instruments on real frames (`command`)": [{"set": "endovis17", "dice": 0.887}],
    "annotator: polyps on real frames (`command`)": [{"set": "kvasir_seg", "dice": 0.336}],
}


@pytest.mark.parametrize(
    ("facts", "own", "other"), [(ANNOTATOR, "0.887", "0.336"), (POLYP, "0.336", "0.887")]
)
def test_a_card_has_the_tables_of_its_own_model(facts: Facts, own: str, other: str) -> None:
    card = card_text(facts, {"tables": TABLES})
    assert own in card
    assert other not in card


@pytest.mark.parametrize(("name", "facts"), [("annotator", ANNOTATOR), ("polyp", POLYP)])
def test_a_shipped_card_says_what_is_known_today(name: str, facts: Facts) -> None:
    card = shipped().open(name).read("card.md").decode()
    for words in (facts.what, facts.learned, *facts.findings, *facts.limits):
        assert words in card
    assert not [line for line in card.splitlines() if line.startswith("## ") and facts.others in line]
