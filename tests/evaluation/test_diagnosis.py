"""The dataset card: planted faults are found and clean data raise no alarm; numbers against closed forms and brute force."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from policylab import registry
from policylab.data.recording import Recording
from policylab.errors import BadInput
from policylab.evaluation import advice, coverage, end_flags, quality, suspicion
from policylab.evaluation.diagnosis import diagnose
from policylab.evaluation.duplicates import leakage
from policylab.evaluation.modes import count_modes
from policylab.evaluation.pictures import card_figure
from policylab.evaluation.rows import Scaling, rows_of
from tests.evaluation import corruptions, worlds
from tests.small import continuous_recording, discrete_recording


def names(recording: Recording) -> dict[str, float]:
    return {one.name: one.share for one in diagnose(recording).raised}


def raised_share(check, recording: Recording) -> float:
    """What one check alone marks; it must have been raised."""
    found = check(rows_of(recording, limit=10**6, seed=0), seed=0)
    assert found.raised
    return found.share


@pytest.mark.parametrize("world", ["walled_room", "heavy_tails", "gridworld"])
def test_clean_data_raise_no_alarm(world):
    assert names(worlds.CLEAN[world]()) == {}


@pytest.mark.parametrize("share", [0.01, 0.05])
def test_jumping_observations_are_counted(share):
    clean = worlds.walled_room()
    random = np.random.default_rng(1)
    observed = clean.observation.copy()
    hit = random.uniform(size=len(observed)) < share
    observed[hit] += (random.uniform(-1, 1, (hit.sum(), 4)) * observed.std(axis=0)).astype(np.float32)
    assert 0.5 * share < raised_share(quality.spikes, replace(clean, observation=observed)) < 2 * share


@pytest.mark.parametrize("share", [0.01, 0.05, 0.3])
def test_replaced_rewards_are_counted(share):
    clean = worlds.heavy_tails()
    random = np.random.default_rng(2)
    hit = random.uniform(size=clean.steps) < share
    reward = np.where(hit, random.uniform(-30, 30, clean.steps), clean.reward).astype(np.float32)
    assert 0.6 * hit.mean() < raised_share(quality.odd_rewards, replace(clean, reward=reward)) < 1.3 * hit.mean()


@pytest.mark.parametrize("share", [0.05, 0.3])
def test_shuffled_actions_are_found(share):
    clean = worlds.heavy_tails()
    rows = np.arange(clean.steps) < share * clean.steps
    action = clean.action.copy()
    action[rows] = np.random.default_rng(3).permutation(action[rows])
    assert 0.4 * share < raised_share(quality.mismatched_actions, replace(clean, action=action)) < 1.5 * share


def test_a_rare_contact_force_has_no_scale_but_a_lively_column_does():
    clean = worlds.contacts()
    found = quality.changed_scales(rows_of(clean, limit=10**6, seed=0))
    assert (found.count, found.raised) == (0, False)
    observed = clean.observation.copy()
    observed[np.isin(np.repeat(np.arange(60), 121), (3, 20, 41, 42)), 3] *= 57.3
    found = quality.changed_scales(rows_of(replace(clean, observation=observed), limit=10**6, seed=0))
    assert (found.count, found.first_row, found.raised) == (4, 3 * 120, True)


@pytest.mark.parametrize("world", ["pendulum", "heavy_tails"])
def test_terminals_after_which_the_process_goes_on_are_found(world):
    torn, hit = corruptions.torn_episodes(worlds.CLEAN[world](), 0.05)
    assert hit.sum() > 100
    assert raised_share(end_flags.ignored_terminals, torn) > 0.9


def test_every_check_says_how_often_it_was_wrong_and_what_it_found():
    card = diagnose(worlds.pendulum(episodes=8))
    assert {one.name for one in card.suspicions} == set(suspicion.FALSE_ALARMS)
    assert set(corruptions.PLANTED) == set(suspicion.PLANTED)
    for one, entry in zip(card.suspicions, card.to_json()["suspicions"]):
        assert one.alarm.raised <= one.alarm.recordings >= 80
        assert entry["false_alarms"] == {"raised": one.alarm.raised, "recordings": one.alarm.recordings, "rows": one.alarm.rows}
        assert [row["share"] for row in entry["planted"]] == [row.share for row in one.planted]


def test_repeated_episodes_are_counted_exactly():
    clean = worlds.walled_room()
    long = np.flatnonzero(clean.lengths > 20)[:3]
    raised = names(clean.select(np.concatenate([np.arange(60), long])))
    assert raised["repeated episodes"] == pytest.approx(3 / np.sum(np.append(clean.lengths, [99] * 3) >= 2))
    assert "repeated rows" in raised


def test_rows_shared_by_two_parts_are_counted():
    whole = worlds.heavy_tails()
    learned, kept = whole.select(np.arange(0, 40)), whole.select(np.arange(30, 60))
    shared, groups = leakage(learned, kept)
    assert shared.count == 10 * 150
    assert groups.missing


def test_the_entropy_of_a_normal_distribution_is_the_closed_form():
    values = np.random.default_rng(0).standard_normal((8000, 3))
    assert coverage.state_entropy(values) == pytest.approx(1.5 * np.log(2 * np.pi * np.e), abs=0.05)
    assert coverage.discrete_entropy(np.repeat(np.arange(8), 1000)) == pytest.approx(np.log(8), abs=1e-3)


def test_effective_dimension_of_a_line_and_of_a_round_cloud():
    cloud = np.random.default_rng(0).standard_normal((20_000, 5))
    assert coverage.effective_dimension(cloud) == pytest.approx(5, abs=0.05)
    assert coverage.effective_dimension(cloud[:, :1] * np.ones(5)) == pytest.approx(1)


def test_distinct_pairs_against_a_set():
    recording = worlds.gridworld()
    pairs = set(zip(recording.observation[recording.observation_rows].tolist(), recording.action.tolist()))
    card = diagnose(recording)
    assert card.coverage.unique_pairs == len(pairs)
    assert card.coverage.unique_share == pytest.approx(len(pairs) / recording.steps)


def test_coverage_and_quality_against_a_reference():
    recording = worlds.gridworld()
    card = diagnose(recording, reference={"random": 0.2, "expert": 1.2}, reference_data=recording)
    assert card.coverage.saco == 1
    assert card.coverage.tq == pytest.approx(recording.returns.mean() - 0.2)
    narrow = recording.select(np.arange(20))
    reference = rows_of(recording, limit=10**6, seed=0)
    assert coverage.state_action_coverage(rows_of(narrow, limit=10**6, seed=0), reference, seed=0)[0] < 1.05
    with pytest.raises(BadInput, match="random below expert"):
        diagnose(recording, reference={"random": 2.0, "expert": 1.0})


def test_action_divergence_against_brute_force():
    rows = rows_of(worlds.walled_room(episodes=12), limit=10**6, seed=0)
    states = Scaling.of(rows.observed, rows.state_columns)(rows.state)
    actions = Scaling.of(rows.action, rows.action_columns)(rows.action)
    distance = cdist(states, states)
    distance[rows.episode[:, None] == rows.episode[None]] = np.inf
    near = np.argsort(distance, axis=1)[:, :4]
    gap = np.mean(np.sum((actions[:, None] - actions[near]) ** 2, axis=2))
    expected = gap / 2 / actions.var(axis=0, ddof=1).sum()
    assert coverage.action_divergence(rows, seed=0, neighbours=4) == pytest.approx(expected, rel=0.02)


def test_groups_of_returns_are_counted():
    random = np.random.default_rng(0)
    assert count_modes(random.standard_normal(500), seed=0) == 1
    assert count_modes(np.concatenate([random.standard_normal(300), 8 + random.standard_normal(300)]), seed=0) == 2
    assert count_modes(np.repeat([0.0, 1.0], 50), seed=0) == 2


def test_returns_endings_and_saturation_by_hand():
    recording = continuous_recording()
    card = diagnose(recording)
    returns = recording.reward.reshape(20, 25).sum(1)
    assert card.size.returns.mean == pytest.approx(returns.mean(), rel=1e-5)
    assert card.size.returns.median == pytest.approx(np.median(returns), rel=1e-5)
    assert (card.size.terminal, card.size.truncated) == (10, 10)
    saturated = np.mean([column.saturated for column in card.size.actions])
    assert saturated == pytest.approx(np.mean(np.abs(recording.action) >= 1.96), abs=1e-9)


def test_one_step_logs_show_rates_and_wrong_propensities():
    recording = discrete_recording(episodes=600, length=1)
    card = diagnose(replace(recording, extra={"propensity": np.full(600, 1 / 3, np.float32)}))
    positives = int(recording.reward.sum())
    assert card.choices.positives == positives
    assert card.choices.low < positives / 600 < card.choices.high
    assert card.choices.uniform_effective == pytest.approx(600)
    assert card.choices.consistent
    assert not diagnose(replace(recording, extra={"propensity": np.full(600, 0.9, np.float32)})).choices.consistent


def test_every_advised_learner_is_known():
    planned = {"a2pr"}
    assert {name for kinds in advice.LEARNERS.values() for name in kinds.values()} <= set(registry.LEARNERS) | planned
    for recording in (worlds.walled_room(), worlds.falling_pole(episodes=30), worlds.bandit()):
        assert len(advice.shortlist(diagnose(recording))) >= 3
    assert [name for name, _ in advice.shortlist(diagnose(continuous_recording(reward=False)))] == ["bc"]


def test_the_card_is_strict_json_text_and_a_picture():
    for recording in (worlds.walled_room(episodes=8), discrete_recording(50, 1), continuous_recording(4, 6, reward=False)):
        card = diagnose(recording)
        json.loads(card.dumps())
        assert card == diagnose(recording)
        assert 5 < len(str(card).splitlines()) <= 40
        picture = card_figure(card, recording)
        assert picture.startswith(b"\x89PNG")
        assert picture == card_figure(card, recording)
