"""Off-policy estimates against what policies really earned, on the Open Bandit Dataset (Saito et al. 2020, arXiv 2008.07146).

    python benchmarks/open_bandit.py FOLDER    # the folder with men_random.csv, men_bts.csv, women_random.csv, women_bts.csv

The shop ran two policies side by side: uniform choices, and Bernoulli Thompson sampling (BTS), which does not look at the user. So
each log can estimate what the other's policy earned, and the other log knows. The probabilities of BTS on rows that it did not
choose are not in the data: they are taken as its choice frequencies at each position of the page, with one pseudo-count per choice.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import policylab as lab
from policylab.evaluation import logged_bandits
from policylab.evaluation.statistics import wilson

COLUMNS = "observation=user_feature_*,action=item_id,reward=click,propensity=propensity_score,context=position"


def frequencies(recording: lab.Recording, choices: int) -> dict[int, np.ndarray]:
    """How often each choice was shown at each position, smoothed by one pseudo-count."""
    place = np.asarray(recording.extra["context"]).reshape(-1)
    counts = {int(p): np.bincount(np.asarray(recording.action)[place == p], minlength=choices) + 1.0 for p in np.unique(place)}
    return {p: c / c.sum() for p, c in counts.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    print("| campaign | policy | log | estimator | estimate, 95% interval | matched clicks | really earned, 95% interval |")
    print("|---|---|---|---|---|---|---|")
    for campaign in ("men", "women"):
        uniform = lab.load_data(folder / f"{campaign}_random.csv", columns=COLUMNS)
        learned = lab.load_data(folder / f"{campaign}_bts.csv", columns=COLUMNS)
        choices = uniform.spec.action.n
        table = frequencies(learned, choices)
        place = np.asarray(uniform.extra["context"]).reshape(-1)
        shown = np.asarray([table[int(p)][a] for p, a in zip(place, np.asarray(uniform.action), strict=True)])
        jobs = [
            ("BTS", uniform, "uniform", shown, learned),
            ("uniform", learned, "BTS", np.full(learned.steps, 1 / choices), uniform),
        ]
        for name, log, source, target, truth in jobs:
            rows = logged_bandits.BanditLog(
                np.asarray(log.reward), np.asarray(log.extra["propensity"]), target, unit="impression"
            )
            clicks = int(np.sum(truth.reward))
            real = wilson(clicks, truth.steps)
            for estimator, found in logged_bandits.estimates(rows).items():
                print(
                    f"| {campaign} | {name} | {source} | {estimator} | {found.value:.2%} ({found.interval[0]:.2%} to {found.interval[1]:.2%}) "
                    f"| {found.matched_positives} | {real.value:.2%} ({real.low:.2%} to {real.high:.2%}), {clicks} clicks |"
                )


if __name__ == "__main__":
    main()
