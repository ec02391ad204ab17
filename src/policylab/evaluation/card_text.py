"""The dataset card as text for a terminal, at most 40 lines of 100 characters."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from policylab.evaluation.diagnosis import Card

LINES, WIDTH = 40, 100


def card_text(card: Card) -> str:
    """The card for a person who sees one for the first time."""
    lines = [f"Dataset card: {card.name}", *_size(card), *_coverage(card), *_choices(card)]
    tail = _notes(card)
    room = LINES - len(lines) - len(tail)
    suspicions = _suspicions(card, max(4, room - min(len(card.advice), 6) - 1))
    room -= len(suspicions)
    return "\n".join([*lines, *suspicions, *_advice(card, max(2, room)), *tail])


def _line(label: str, text: str, limit: int = 1) -> list[str]:
    """A labelled line, wrapped to at most `limit` lines under its label."""
    wrapped = textwrap.wrap(text, WIDTH - 15, max_lines=limit, placeholder=" ...") or [""]
    return [f"  {label:<12} {wrapped[0]}", *(f"  {'':<12} {line}" for line in wrapped[1:])]


def _size(card: Card) -> list[str]:
    size = card.size
    amount = f"{size.steps:,} decisions" if size.single else f"{size.steps:,} steps in {size.episodes:,} episodes"
    if not size.single:
        length = size.length
        spread = (
            f"{length.least:g}"
            if length.least == length.most
            else f"{length.least:g} to {length.most:g}, median {length.median:g}"
        )
        rate = f", {size.control_rate:g} steps a second" if size.control_rate else ""
        amount += f" of {spread} steps{rate}"
    if size.groups is not None:
        amount += f"; {size.groups:,} groups, the largest of {size.largest_group:,}"
    lines = ["Size", *_line("amount", amount)]
    if not size.single:
        lines += _line("ends", f"{size.terminal:,} by the process itself (terminal), {size.truncated:,} cut off (time limit)")
    lines += _line("sees, does", f"observation {size.observation}, action {size.action}")
    if size.returns is not None and size.rewards is not None:
        spread = size.returns
        what = "reward" if size.single else "return"
        middle = f"median {spread.median:.4g}, 5-95%: {spread.lower:.4g} to {spread.upper:.4g}"
        text = f"mean {spread.mean:.4g}, from {spread.least:.4g} to {spread.most:.4g} ({middle})"
        lines += _line(what, text)
        if not size.single:
            won = f"{size.success:.0%} of the episodes succeed; " if size.success is not None else ""
            lines += _line("", f"{won}{size.positive:.0%} have a return above 0, {size.zero:.0%} exactly 0")
            usual = f"{size.usual_share:.0%} of the steps have reward {size.usual_reward:.4g}"
            lines += _line("reward", usual if (size.usual_share or 0.0) >= 0.01 else "hardly any two steps have the same one")
    else:
        lines += _line("reward", "none was logged")
    if size.actions:
        worst = max(size.actions, key=lambda column: column.saturated)
        bounded = [column for column in size.actions if column.low is not None and column.high is not None]
        share = sum(column.saturated for column in size.actions) / len(size.actions)
        ranges = f"from {min(c.least for c in size.actions):.3g} to {max(c.most for c in size.actions):.3g}"
        where = (
            f"; {share:.0%} of the entries at a bound (worst {worst.saturated:.0%}, {worst.name or 'action'})"
            if bounded
            else ""
        )
        lines += _line("actions", ranges + where)
    elif size.counts and card.choices is None:
        shares = sorted(size.counts, reverse=True)
        never = sum(count == 0 for count in size.counts)
        text = (
            f"{len(size.counts)} choices, the commonest {shares[0] / size.steps:.0%}, the rarest {shares[-1] / size.steps:.1%}"
        )
        lines += _line("actions", text + (f", {never} never taken" if never else ""))
    return lines


def _coverage(card: Card) -> list[str]:
    cover = card.coverage
    lines = ["Coverage"]
    if cover.tq is not None and cover.tq_scale is not None:
        lines += _line(
            "quality", f"TQ {cover.tq:.2f} (0: return {cover.tq_scale[0]:g}, random; 1: {cover.tq_scale[1]:g}, expert)"
        )
    if cover.saco is not None:
        text = f"SACo {cover.saco:.2f}: distinct state-action pairs over the reference's, at {cover.saco_steps:,} steps"
        lines += _line("breadth", text)
    text = f"{cover.unique_pairs:,} distinct state-action pairs ({cover.unique_share:.0%} of the steps), {cover.distinct_states:,} states"
    lines += _line("variety", text)
    if cover.state_width > 1:
        dimension = f"states spread over about {cover.effective_dimension:.1f} of {cover.state_width} dimensions"
        entropy = "" if cover.state_entropy is None else f"; {cover.entropy_kind} entropy {cover.state_entropy:.2f} nats"
        lines += _line("", dimension + entropy)
    if cover.action_divergence is not None:
        text = f"action divergence {cover.action_divergence:.2f} (0: a state settles the action, 1: it says nothing about it)"
        lines += _line("consistency", text)
    if cover.transition_diversity is not None:
        text = f"{cover.transition_diversity:.1%} of the change of state is not settled by state and action"
        lines += _line("chance", text)
    if cover.return_modes is not None and not card.size.single:
        groups = (
            "one group"
            if cover.return_modes == 1
            else f"{cover.return_modes} groups (different pilots, or success and failure)"
        )
        lines += _line("returns", f"fall into {groups}")
    return lines


def _choices(card: Card) -> list[str]:
    log = card.choices
    if log is None:
        return []
    lines = ["Logged choices"]
    span = f" (95%: {log.low:.4f} to {log.high:.4f})" if log.low is not None else ""
    lines += _line("reward", f"{log.positives:,} positive of {log.rows:,}: rate {log.rate:.4f}{span}")
    tried = [arm for arm in log.arms if arm.logged]
    best, worst = max(tried, key=lambda arm: arm.rate), min(tried, key=lambda arm: arm.rate)
    for word, arm in (("best", best), ("worst", worst)):
        span = f" (95%: {arm.low:.4f} to {arm.high:.4f})" if arm.low is not None else ""
        lines += _line(word, f"choice {arm.label}: {arm.positives} of {arm.logged}, rate {arm.rate:.4f}{span}")
    lines += _line("never tried", f"{log.never} of {log.choices} choices")
    if log.propensity_low is not None:
        agree = "agree with" if log.consistent else "CONTRADICT"
        text = (
            f"{log.propensity_low:.4g} to {log.propensity_high:.4g}; they {agree} the choices (mean of 1/p per choice "
            f"{log.inverse_mean:.3f}, should be 1; worst choice {log.worst_z:.1f} standard errors off)"
        )
        lines += _line("propensity", text, 2)
        lines += _line(
            "for uniform", f"worth {log.uniform_effective:,.0f} of {log.rows:,} rows when judging the uniform policy"
        )
    return lines


def _suspicions(card: Card, room: int) -> list[str]:
    done = sum(not one.missing for one in card.suspicions)
    lines = [f"Suspicions ({done} of {len(card.suspicions)} checks were possible)"]
    raised = sorted(card.raised, key=lambda one: -one.share)
    if not raised:
        return [*lines, *_line("none", "nothing looks wrong")]
    for one in raised:
        where = f", first at row {one.first_row:,}" if one.first_row is not None else ""
        alarm = f" [raised on {one.alarm.raised} of {one.alarm.recordings} clean recordings]" if one.alarm else ""
        text = f"{one.count:,} of {one.examined:,} {one.unit} ({one.share:.1%}){where}{alarm}: {one.meaning}"
        wrapped = textwrap.wrap(f"! {one.name}: {text}", WIDTH - 2, max_lines=3, placeholder=" ...", subsequent_indent="  ")
        lines += [f"  {line}" for line in wrapped]
    return lines if len(lines) <= room else [*lines[: room - 1], f"  ... {len(raised)} in all: see the JSON card"]


def _advice(card: Card, room: int) -> list[str]:
    lines = ["Worth trying, in this order"]
    for entry in card.advice:
        lines += [f"  {entry.learner:<18} {textwrap.shorten(entry.reason, WIDTH - 21, placeholder=' ...')}"]
    return lines[:room]


def _notes(card: Card) -> list[str]:
    lines = []
    for note in card.notes[:4]:
        lines += [
            f"  note: {line}" if i == 0 else f"        {line}" for i, line in enumerate(textwrap.wrap(note, WIDTH - 8)[:2])
        ]
    return lines
