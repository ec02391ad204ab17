"""The whole procedure of looks on synthetic arms whose truth is known."""

import numpy as np

from policylab.claim import Claim, Greater
from policylab.evaluation.verdicts import settle

SIMULATIONS = 4000


def claim_of(*parts, measure=lambda seeds: {}, **changes):
    arms = {key.partition("/")[0]: "synthetic" for part in parts for key in part.keys}
    words = {
        "says": "nobody",
        "task": "noise",
        "budget": "nothing",
        "deviation": "no paper",
        "scale": "machinery",
        "minutes": 1.0,
    }
    return Claim(system="noise", arms=arms, parts=parts, measure=measure, **(words | changes))


def shares(claim, draw):
    """How often each verdict falls over SIMULATIONS independent experiments; `draw(rng, count)` gives the values of new units."""
    verdicts = []
    for number in range(SIMULATIONS):
        rng = np.random.default_rng(number)
        *_, last = settle(claim, measure=lambda seeds, rng=rng: draw(rng, len(seeds)))
        verdicts.append(last.verdict)
    return {verdict: verdicts.count(verdict) / SIMULATIONS for verdict in ("supported", "refuted", "inconclusive")}


def near(share, truth):
    """Within four standard errors of a share of SIMULATIONS, and half a point for the rounding of the stated number."""
    return abs(share - truth) < 4.0 * np.sqrt(truth * (1.0 - truth) / SIMULATIONS) + 0.005


def pair(effect):
    """Two arms whose paired difference has mean `effect` and standard deviation 1, on top of a shared seed effect."""

    def draw(rng, count):
        shared = rng.normal(0.0, 3.0, count)
        return {"a": shared + effect + rng.normal(0.0, np.sqrt(0.5), count), "b": shared + rng.normal(0.0, np.sqrt(0.5), count)}

    return draw


def test_overall_error_without_an_effect_is_as_stated():
    # With a margin of nothing, supported and refuted are the two ways in which an interval excludes 0.
    outcome = shares(claim_of(Greater("a", "b", margin=1e-12)), pair(0.0))
    assert near(outcome["supported"] + outcome["refuted"], 0.048)
    assert near(outcome["supported"], 0.024)


def test_power_for_an_effect_of_one_standard_deviation_is_as_stated():
    assert near(shares(claim_of(Greater("a", "b", margin=1e-12)), pair(1.0))["supported"], 0.98)


def test_no_effect_and_a_margin_of_one_standard_deviation_is_refuted():
    outcome = shares(claim_of(Greater("a", "b", margin=1.0)), pair(0.0))
    assert near(outcome["refuted"], 0.97)
    assert near(outcome["supported"], 0.02)
