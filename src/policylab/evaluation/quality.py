"""What looks wrong in a recording: spikes, odd rewards, stuck columns, changed scales, mismatched actions, doubtful end flags.

Every rule is sharp on planted corruption and quiet on clean data; tests/evaluation/test_quality.py plants 0, 1, 5 and 30%. What no
rule can see: noise of a size that the world itself has, and single wrong actions.
"""

from __future__ import annotations

import itertools

import numpy as np
from jaxtyping import Bool, Float, Int

from policylab.evaluation.robust_fit import fit
from policylab.evaluation.rows import Rows, Scaling, sample
from policylab.evaluation.suspicion import Suspicion, found, unchecked

SPIKE = 10.0  # robust standard deviations of the dynamics fit
_ODD = 10.0
_SCALE = 6.0
_BLOCK = 100


def spikes(rows: Rows, *, seed: int) -> Suspicion:
    """Observations that the steps before and after both contradict, in opposite directions: a jump that the next step undoes.

    A wall or a collision also surprises a dynamics fit, but what follows goes on from there; a corrupted observation does not.
    """
    name = "spikes"
    if not rows.sequential or rows.projected or not (rows.lengths >= 2).any() or rows.finite:
        return unchecked(name, "the observations are images, choices or single decisions")
    marked = np.zeros(len(rows.observed), bool)
    error, scale = _surprise(rows, seed)
    inner = np.flatnonzero(rows.episode[1:] == rows.episode[:-1])  # steps whose successor is in the same episode
    coming, leaving = error[inner] / scale, error[inner + 1] / scale
    ratio = np.abs(leaving) / np.maximum(np.abs(coming), 1e-12)
    undone = (coming * leaving < 0) & (ratio > 1 / 3) & (ratio < 3)
    score = np.where(undone, np.minimum(np.abs(coming), np.abs(leaving)), 0.0)
    marked[rows.before[inner] + 1] = score.max(axis=1, initial=0.0) > SPIKE
    place = rows.before[inner] + 1
    return found(
        name, marked[place], rows.row[inner + 1], unit="observations", allowance=0.002, least=2,
        rule=f"more than {SPIKE:g} robust standard deviations off what the dynamics fit predicts, and undone by the next step",
        meaning="observations jump and jump back at once: sensor glitches or corrupted states",
    )  # fmt: skip


def _surprise(rows: Rows, seed: int) -> tuple[Float[np.ndarray, "step state"], Float[np.ndarray, " state"]]:
    """What the robust dynamics fit does not explain of every change of state, and its scale per column: at least a tenth of the usual
    change, since a smooth fit of an exact world errs systematically here and there; infinite where it explains less than half."""
    scaling, acting = Scaling.of(rows.observed, rows.state_columns), Scaling.of(rows.action, rows.action_columns)
    values = scaling(rows.observed)
    before, actions = rows.before, acting(rows.action)
    inputs, change = np.concatenate([values[before], actions], axis=1), values[before + 1] - values[before]
    model = fit(inputs, change, seed=seed)
    error = change - model(inputs)
    scale = np.maximum.reduce([model.scale, _normal_scale(error), _normal_scale(change) / SPIKE])
    return error, np.where((model.explained > 0.5) & (_normal_scale(change) > 0), scale, np.inf)


def _normal_scale(values: Float[np.ndarray, "row column"]) -> Float[np.ndarray, " column"]:
    """The standard deviation of a normal distribution with this 40% quantile of absolute values."""
    return np.quantile(np.abs(values), 0.4, axis=0) / 0.5244


def odd_rewards(rows: Rows, *, seed: int) -> Suspicion:
    """Rewards that state, action and next state do not explain although they explain most of them, or that are none of the usual
    few values."""
    name = "rewards"
    if rows.reward is None:
        return unchecked(name, "no rewards were logged")
    reward, going = rows.reward, ~rows.terminal
    values, counts = np.unique(reward, return_counts=True)
    usual = values[counts >= max(3, 0.001 * len(reward))]
    if len(usual) and len(usual) <= 20 and counts[counts >= max(3, 0.001 * len(reward))].sum() >= 0.5 * len(reward):
        odd = ~np.isin(reward, usual) & going
        return found(
            name, odd, rows.row, unit="rewards", allowance=0.001, least=3,
            rule=f"none of the {len(usual)} values that nearly all rewards have; terminal steps apart",
            meaning="rewards take values that hardly any other step has: noise or corrupted rewards",
        )  # fmt: skip
    if going.sum() < 200 or rows.projected:
        return unchecked(name, "fewer than 200 steps that go on, or images")
    inputs = _transitions(rows, with_action=True)
    inputs = np.concatenate([inputs, np.clip(inputs, -8, 8) ** 2 / 8], axis=1)  # costs are often quadratic
    center, scale = np.median(reward[going]), np.subtract(*np.quantile(reward[going], (0.75, 0.25))) / 1.349
    wanted = ((reward - center) / max(scale, 1e-30))[:, None]
    model = fit(inputs[going], wanted[going], seed=seed)
    if model.explained[0] < 0.8:
        return unchecked(name, "the rewards are no smooth function of state, action and next state")
    usual = going & (np.abs(inputs[:, : inputs.shape[1] // 2]).max(axis=1) < 5)
    expected = model(inputs[usual])[:, 0]
    bound = np.maximum(max(_ODD * model.scale[0], 1.0), 0.5 * np.abs(expected))
    return found(
        name, np.abs(wanted[usual, 0] - expected) > bound, rows.row[usual], unit="rewards", allowance=0.003, least=3,
        rule=f"more than {_ODD:g} robust standard deviations off a fit on state, action and next state, more than one of the "
        "rewards themselves and more than half of the expected distance to the median; terminal steps and extreme states apart",
        meaning="rewards contradict the state, action and next state that they belong to",
    )  # fmt: skip


def _transitions(rows: Rows, *, with_action: bool) -> Float[np.ndarray, "step input"]:
    scaling = Scaling.of(rows.observed, rows.state_columns)
    values, before = scaling(rows.observed), rows.before
    change = values[before + 1] - values[before]
    spread = np.subtract(*np.quantile(change[sample(len(change), 50_000, 0)], (0.95, 0.05), axis=0)) / 3.29
    parts = [values[before], change / np.where(spread > 1e-9, spread, 1.0)]
    if with_action:
        parts.append(Scaling.of(rows.action, rows.action_columns)(rows.action))
    return np.concatenate(parts, axis=1)


def mismatched_actions(rows: Rows, *, seed: int) -> Suspicion:
    """Stretches of whole episodes in which actions don't go with what happened, although elsewhere they do.

    The action is predicted from state and change of state; within each stretch of at least 100 steps prediction and action are
    correlated. A stretch is marked when its correlation is no more than chance would give, or when its actions are 6 times larger or
    smaller than predicted (other units).
    """
    name = "actions"
    if not rows.sequential or rows.projected:
        return unchecked(name, "the observations are images or single decisions")
    inputs, actions = _transitions(rows, with_action=False), Scaling.of(rows.action, rows.action_columns)(rows.action)
    if actions.shape[1] == 0 or rows.steps < 4 * _BLOCK:
        return unchecked(name, "the action never changes, or there are fewer than 400 steps")
    predicted = fit(inputs, actions, seed=seed, robust=False)(inputs)
    block = np.minimum(rows.starts // _BLOCK, (rows.steps - 1) // _BLOCK)
    number = np.unique(block, return_inverse=True)[1][rows.episode]
    size = np.bincount(number)
    correlation, slope = _correlation(predicted, actions, number)
    usable = (size >= _BLOCK // 2) & np.isfinite(correlation)
    if usable.sum() < 4:
        return unchecked(name, "fewer than four stretches of 50 steps with varying actions")
    usual = float(np.quantile(correlation[usable], 0.75))
    noise = 1 / np.sqrt(np.maximum(size, 4))
    if np.tanh(np.arctanh(min(usual, 0.999)) - 4 * np.median(noise[usable])) < 3 * np.median(noise[usable]):
        return unchecked(name, "state and next state say too little about the action")
    marked = usable & (correlation < 3 * noise) & (correlation < usual / 3)
    grown = slope / np.median(slope[usable])
    marked |= usable & (correlation > 0.8 * usual) & ((grown > _SCALE) | (grown < 1 / _SCALE))
    first = np.flatnonzero(np.diff(number, prepend=-1))
    return found(
        name, marked[usable], rows.row[first][usable], unit="stretches", allowance=0.01,
        rule="correlation of actions with those predicted from state and next state no better than chance (3 / sqrt(n); usually "
        f"{usual:.2f}), or actions {_SCALE:g} times larger or smaller than predicted",
        meaning="actions do not go with what happened next in part of the data: shuffled, shifted or wrongly joined actions",
    )  # fmt: skip


def _correlation(
    predicted: Float[np.ndarray, "step column"], actual: Float[np.ndarray, "step column"], number: Int[np.ndarray, " step"]
) -> tuple[Float[np.ndarray, " stretch"], Float[np.ndarray, " stretch"]]:
    """The correlation within each stretch over all columns, and the slope of the actual on the predicted values."""
    size = np.bincount(number).astype(np.float64)
    total = lambda values: np.stack([np.bincount(number, column) for column in values.T], axis=1)
    left, right = (values - (total(values) / size[:, None])[number] for values in (predicted, actual))
    product, first, second = (total(pair).sum(axis=1) for pair in (left * right, left**2, right**2))
    enough = second > 1e-3 * second.sum() / size.sum() * size
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(enough, product / np.sqrt(first * second), np.nan), product / first


def stuck_columns(rows: Rows) -> Suspicion:
    """Columns that never change, and lively columns that stand still for 10 steps at a value they have nowhere else."""
    names = [column.name for column in rows.state_columns]
    numbers = np.flatnonzero([column.choices == 0 for column in rows.state_columns])
    marked = np.zeros(rows.steps, bool)
    constant = [names[i] or "observation" for i in numbers if np.ptp(rows.observed[:, i]) == 0]
    if rows.sequential and not rows.projected and not rows.finite:
        before = rows.before
        same = rows.observed[before + 1] == rows.observed[before]
        lively = np.asarray([i for i in numbers if same[:, i].mean() < 0.5], np.int64)
        moving = ~same[:, lively].all(axis=1)
        for i in lively:
            for start, stop in _runs(same[:, i], rows.episode):
                value = rows.observed[before[start], i]
                alone = np.sum(rows.observed[:, i] == value) <= stop - start + 1
                if stop - start >= 10 and alone and moving[start:stop].mean() > 0.9:
                    marked[start:stop] = True
    suffix = f"; constant throughout: {', '.join(constant[:6])}" + (" ..." if len(constant) > 6 else "") if constant else ""
    return found(
        "stuck", marked, rows.row, unit="steps",
        rule="a column that otherwise changes at most steps stands still for 10 steps or more while others move, at a value of its own",
        meaning=f"sensors or actuators that got stuck{suffix}",
    )  # fmt: skip


def _lively(rows: Rows, long: Int[np.ndarray, " chosen"]) -> list[int]:
    """The numeric columns that change at most steps in at least nine tenths of these episodes."""
    before = rows.before
    moves = rows.observed[before + 1] != rows.observed[before]
    share = np.add.reduceat(moves, rows.starts, axis=0, dtype=np.float64)[long] / rows.lengths[long, None]
    often = (share > 0.5).mean(axis=0) >= 0.9
    return [i for i, column in enumerate(rows.state_columns) if column.choices == 0 and often[i]]


def _runs(same: Bool[np.ndarray, " step"], episode: Int[np.ndarray, " step"]) -> list[tuple[int, int]]:
    """Stretches of at least 10 consecutive True within one episode."""
    key = np.where(same, episode, -1)
    edges = np.concatenate([[0], np.flatnonzero(np.diff(key)) + 1, [len(key)]])
    return [(int(a), int(b)) for a, b in itertools.pairwise(edges) if same[a] and b - a >= 10]


def changed_scales(rows: Rows) -> Suspicion:
    """Episodes in which a column's values and its changes are both 6 times larger or smaller than elsewhere, by the same factor.

    A change of units scales both alike and leaves most columns alone; another policy or another place does not. Only columns that
    change at most steps, in nine episodes of ten, have a usual scale: a contact force that is 0 but for rare bursts has none.
    """
    if not rows.sequential or rows.projected or rows.finite or len(rows.lengths) < 4:
        return unchecked("scales", "there are fewer than four episodes, or nothing to scale")
    long, starts = np.flatnonzero(rows.lengths >= 20), rows.starts + np.arange(len(rows.lengths))
    if len(long) < 4:
        return unchecked("scales", "fewer than four episodes have 20 steps")
    columns = _lively(rows, long)
    if not columns:
        return unchecked("scales", "no column changes at most steps")
    size, step = np.zeros((2, len(long), len(columns)))
    for place, episode in enumerate(long):
        part = rows.observed[starts[episode] : starts[episode] + rows.lengths[episode] + 1, columns].astype(np.float64)
        size[place], step[place] = (np.quantile(np.abs(values), 0.9, axis=0) for values in (part, np.diff(part, axis=0)))
    size, step = (np.log(values + 1e-9 * values.max(axis=0) + 1e-30) for values in (size, step))
    size, step = size - np.median(size, axis=0), step - np.median(step, axis=0)
    noise = np.maximum(*(np.quantile(np.abs(part), 0.35, axis=0) / 0.4538 for part in (size, step)))  # 30% may be wrong
    both = np.where(size * step > 0, np.minimum(np.abs(size), np.abs(step)), 0.0)
    alike = np.abs(size - step) < np.log(2) + noise
    marked = alike & (both > np.log(_SCALE)) & (both > 4 * noise)
    alone = marked.mean(axis=1) <= 0.3 if len(columns) > 3 else np.ones(len(long), bool)
    still = np.median(np.abs(step), axis=1) > np.log(2) if len(columns) > 3 else np.zeros(len(long), bool)
    return found(
        "scales", marked.any(axis=1) & alone & ~still, rows.row[rows.starts[long]], unit="episodes", allowance=0.02,
        rule=f"values and changes of a column both more than {_SCALE:g} times larger or smaller than in the typical episode",
        meaning="a column changes its scale between episodes: other units, another sensor or a wrong normalisation",
    )  # fmt: skip
