"""What one update of every offline learner costs beside one of IQL at equal sizes: the table in `policylab.evidence.plan`.

    python benchmarks/method_costs.py [--widths 64 128 256] [--rounds 3]

Sizes as a plan gives them: batches of 256, `width` hidden units everywhere, three seeds in one program. Processor time of the whole
process, so that other programs disturb little; every round runs all learners in turn, and the median over rounds counts.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

import policylab as lab
from policylab import registry
from policylab.evidence.plan import SELECTION_SEEDS, sized

CONTINUOUS = ("bc", "percent-bc", "td3-bc", "awac", "iql", "riql", "rebrac", "prdc", "a2pr", "cql")
DISCRETE = ("bc", "percent-bc", "dqn", "bcq", "cql-discrete", "qr-dqn")
UPDATES = {"cql": 20, "a2pr": 40, "prdc": 40, "qr-dqn": 15}


def recording_of(*, discrete: bool, rows: int = 10_000) -> lab.Recording:
    """Random transitions: of HalfCheetah shape, or of 17 observed numbers and 6 choices."""
    random, flags = np.random.default_rng(0), np.zeros(rows, bool)
    observation = random.standard_normal((rows + rows // 1000, 17), dtype=np.float32)
    action = random.integers(0, 6, rows) if discrete else np.tanh(random.standard_normal((rows, 6), dtype=np.float32))
    spec = lab.Spec(lab.Box((17,)), lab.Discrete(6) if discrete else lab.Box((6,), -1.0, 1.0))
    reward = random.standard_normal(rows).astype(np.float32)
    return lab.Recording(observation, action, reward, flags, flags, np.full(rows // 1000, 1000), spec)


def main() -> None:
    """Print seconds per update and seed, and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", nargs="+", type=int, default=[64, 128, 256])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--updates", type=int, default=200, help="of a cheap method per round (default: 200)")
    options = parser.parse_args()
    cases = [("continuous", name) for name in CONTINUOUS] + [("discrete", name) for name in DISCRETE]
    datasets = {kind: lab.Dataset.of(recording_of(discrete=kind == "discrete")) for kind in ("continuous", "discrete")}
    for width in options.widths:
        seconds: dict[tuple[str, str], list[float]] = {case: [] for case in cases}
        for number in range(options.rounds + 1):  # the first compiles and does not count
            for kind, name in cases:
                dataset, steps = datasets[kind], 1 if number == 0 else min(options.updates, UPDATES.get(name, options.updates))
                learner = sized(registry.learner_class(name)(), dataset, width)
                before = time.process_time()
                lab.train(learner, dataset, steps=1, seeds=SELECTION_SEEDS)
                start = time.process_time()
                lab.train(learner, dataset, steps=steps + 1, seeds=SELECTION_SEEDS)
                if number:
                    seconds[kind, name].append((time.process_time() - start - (start - before)) / steps / SELECTION_SEEDS)
        median = {case: float(np.median(values)) for case, values in seconds.items()}
        unit = median["continuous", "iql"]
        print(f"width {width}: IQL takes {1e3 * unit:.3f} ms of processor time per update and seed; times IQL:", flush=True)
        for (kind, name), value in median.items():
            print(f"  {kind:<11} {name:<14} {value / unit:6.2f}", flush=True)


if __name__ == "__main__":
    main()
