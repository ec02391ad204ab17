"""What the page on choosing says of the shortlist is what the code does: every row of its table against a card that fits it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from policylab.evaluation import advice
from policylab.evaluation.diagnosis import diagnose
from policylab.evidence.plan import shortlist
from tests.evaluation import worlds
from tests.small import continuous_recording, discrete_recording

PAGE = (Path(__file__).parents[2] / "docs" / "choose.md").read_text()
ROWS = {
    label.strip(): re.findall(r"`([\w-]+)`", methods)
    for label, methods in re.findall(r"^\|([^|]+)\|([^|]+)\|$", PAGE.split("## How it is judged")[0], re.M)
    if "`" in methods and "the card says" not in label
}


@pytest.fixture(scope="module")
def cards():
    def card(recording, **coverage):
        found = diagnose(recording)
        return replace(
            found, coverage=replace(found.coverage, **{"tq": 0.5, "action_divergence": 0.1, **coverage}), suspicions=()
        )

    def unequal(found, gap):
        middle = found.size.returns
        return replace(found, size=replace(found.size, top_mean=middle.mean + gap * middle.deviation))

    moves, choices = card(continuous_recording()), card(discrete_recording(), saco=None)
    good = lambda one: replace(one, coverage=replace(one.coverage, tq=0.8))
    plain = unequal(moves, 0.1)
    steady = continuous_recording()
    bandit = worlds.bandit(rows=400)
    suspected = replace(diagnose(continuous_recording()).suspicions[0], name="spikes", raised=True)
    return {
        "no rewards": card(continuous_recording(reward=False)),
        "every reward the same, all episodes equally long": card(replace(steady, reward=np.ones(steady.steps, np.float32))),
        "continuous actions, good data": good(plain),
        "continuous actions, good data, unequal returns": good(unequal(moves, 1.0)),
        "continuous actions, other data": plain,
        "continuous actions, other data, unequal returns": unequal(moves, 1.0),
        "continuous actions, other data, neighbouring states with different actions": replace(
            plain, coverage=replace(plain.coverage, action_divergence=0.6)
        ),
        "continuous actions, other data, parts that look corrupted": replace(plain, suspicions=(suspected,)),
        "choices, good data": good(unequal(choices, 0.1)),
        "choices, other data, choices well covered": replace(
            unequal(choices, 0.1), coverage=replace(choices.coverage, saco=0.8)
        ),
        "choices, other data, choices not or not surely covered": unequal(choices, 0.1),
        "single decisions with rewards and propensities": diagnose(bandit),
        "single decisions with rewards": diagnose(replace(bandit, extra={})),
    }


@pytest.mark.parametrize("row", ROWS)
def test_what_the_page_says_is_tried_is_tried(cards, row):
    tried = [name for name, _ in shortlist(advice.shortlist(cards[row]))]
    assert tried == ROWS[row]


def test_every_kind_of_card_is_on_the_page(cards):
    assert set(cards) == set(ROWS)
    for number in (advice.HIGH_QUALITY, advice.HIGH_COVERAGE):
        assert f"at least {number:g}" in PAGE


def test_only_the_best_tenth_of_choices_joins_where_returns_are_unequal(cards):
    card = cards["choices, other data, choices well covered"]
    unequal = replace(card, size=replace(card.size, top_mean=card.size.returns.mean + card.size.returns.deviation))
    assert [name for name, _ in shortlist(advice.shortlist(unequal))][:2] == ["percent-bc", "bc"]
