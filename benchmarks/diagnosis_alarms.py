"""How often the checks of the dataset card cry wolf on clean recordings, and what they find of planted corruption.

    python benchmarks/diagnosis_alarms.py [--seeds 40] [--planted 4] [--mujoco]

With --mujoco a third table shows what is raised on recordings of MuJoCo robots under random torques and on the point mazes.

The first table is what `policylab.evaluation.suspicion.FALSE_ALARMS` says; the second gives, for 1, 5 and 30% planted, how many
recordings raised the alarm and which share the check marked.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections import defaultdict
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from policylab.evaluation.diagnosis import suspicions
from policylab.evaluation.rows import rows_of
from tests.evaluation.corruptions import PLANTED
from tests.evaluation.worlds import CLEAN


def checked(recording, seed):
    rows = rows_of(recording, limit=1_000_000, seed=seed)
    return {one.name: one for one in suspicions(rows, origin=recording.origin, seed=seed) if not one.missing}


def robots() -> None:
    """Random torques, smooth in time, on four robots, and the recipes of the smallest maze."""
    import gymnasium

    from policylab.data.recording import recording_from_steps
    from policylab.environments.hosted import Gymnasium
    from policylab.tasks import load_task

    recordings = {
        f"pointmaze/umaze {name}": load_task("pointmaze/umaze").dataset(name, steps=20_000)
        for name in ("random", "mixed", "expert")
    }
    for name in ("Hopper-v5", "HalfCheetah-v5", "Walker2d-v5", "Ant-v5"):
        environment, random, columns = gymnasium.make(name), np.random.default_rng(0), defaultdict(list)
        observation, _ = environment.reset(seed=0)
        action = np.zeros(environment.action_space.shape)
        for _ in range(20_000):
            action = np.clip(0.7 * action + 0.7 * random.uniform(-1, 1, action.shape), -1, 1)
            after, reward, terminal, truncated, _ = environment.step(action)
            for key, value in zip(("o", "a", "r", "t", "u", "n"), (observation, action, reward, terminal, truncated, after)):
                columns[key].append(value)
            observation = environment.reset()[0] if terminal or truncated else after
        recordings[name] = recording_from_steps(*(np.asarray(columns[key]) for key in "oartun"), spec=Gymnasium(name).spec)
    for name, recording in recordings.items():
        result = checked(recording, 0)
        print(f"{name:24}", {one.name: f"{one.share:.4f}" for one in result.values() if one.raised} or "nothing raised",
              {one.name: f"{one.share:.4f}" for one in result.values() if one.count and not one.raised}, flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=40, help="clean recordings per world")
    parser.add_argument("--planted", type=int, default=4, help="spoiled recordings per world, kind and share")
    parser.add_argument("--mujoco", action="store_true", help="look at MuJoCo recordings, too")
    options = parser.parse_args()
    if options.mujoco:
        robots()
    raised, count, marked, examined, where = (defaultdict(float) for _ in range(5))
    for world, make in CLEAN.items():
        for seed in range(options.seeds):
            for name, one in checked(make(seed=seed), seed).items():
                raised[name] += one.raised
                where[name, world] += one.raised
                count[name] += 1
                marked[name] += one.count
                examined[name] += one.examined
    print("clean: check, recordings with an alarm, recordings, share of rows marked, alarms by world")
    for name in count:
        worlds = {world: int(n) for (other, world), n in where.items() if other == name and n}
        print(
            f'    "{name}": Alarm({raised[name]:.0f}, {count[name]:.0f}, {marked[name] / max(1, examined[name]):.1e}),  # {worlds}'
        )
    print("planted: check, share, world: alarms of recordings, marked share")
    for name, spoil in PLANTED.items():
        for share in (0.01, 0.05, 0.3):
            line = []
            for world, make in CLEAN.items():
                hits, shares = 0, []
                for seed in range(options.planted):
                    clean = make(seed=seed)
                    if world == "gridworld" and spoil.__name__ not in ("random_rewards", "shuffled_actions"):
                        continue
                    with warnings.catch_warnings():
                        warnings.simplefilter("error")
                        one = checked(spoil(clean, share, seed=seed)[0], seed).get(name)
                    if one is not None:
                        hits += one.raised
                        shares.append(one.share)
                line.append(f"{world} {hits}/{len(shares)} {np.mean(shares):.3f}" if shares else f"{world} -")
            print(f"{name:18} {share:.2f}  " + "   ".join(line), flush=True)


if __name__ == "__main__":
    main()
