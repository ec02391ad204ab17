"""How often the checks of the dataset card cry wolf on clean recordings, and what they find of planted corruption.

    python benchmarks/diagnosis_alarms.py [--seeds 40] [--planted 4] [--mujoco]

With --mujoco a third table shows what is raised on recordings of MuJoCo robots under random torques and on the point mazes.

The first table is what `policylab.evaluation.suspicion.FALSE_ALARMS` says and the last what `PLANTED` says; between them stands, for
1, 5 and 30% planted, how many recordings of each world raised the alarm and which share the check marked.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections import defaultdict
from functools import cache
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from policylab.evaluation import duplicates, end_flags, quality
from policylab.evaluation.diagnosis import suspicions
from policylab.evaluation.rows import rows_of
from tests.evaluation.corruptions import PLANTED, wrong_successors
from tests.evaluation.worlds import CLEAN

IN_CHOICES = ("rewards", "actions", "repeated episodes")  # what can be planted where observations are choices
CHECKS = {
    "spikes": lambda rows, origin, seed: quality.spikes(rows, seed=seed),
    "rewards": lambda rows, origin, seed: quality.odd_rewards(rows, seed=seed),
    "actions": lambda rows, origin, seed: quality.mismatched_actions(rows, seed=seed),
    "stuck": lambda rows, origin, seed: quality.stuck_columns(rows),
    "scales": lambda rows, origin, seed: quality.changed_scales(rows),
    "broken chains": lambda rows, origin, seed: end_flags.broken_chains(rows, origin, seed=seed),
    "timed terminals": lambda rows, origin, seed: end_flags.timed_terminals(rows),
    "ignored terminals": lambda rows, origin, seed: end_flags.ignored_terminals(rows, seed=seed),
    "random terminals": lambda rows, origin, seed: end_flags.random_terminals(rows, seed=seed),
    "repeated rows": lambda rows, origin, seed: duplicates.repeated_rows(rows),
    "repeated episodes": lambda rows, origin, seed: duplicates.repeated_episodes(rows),
}


@cache
def world_data(world, seed):
    """The clean recording of a world; it is spoiled in thirty ways."""
    return CLEAN[world](seed=seed)


def check(name, recording, seed):
    """One check alone."""
    one = CHECKS[name](rows_of(recording, limit=1_000_000, seed=seed), dict(recording.origin), seed)
    return None if one.missing else one


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
    for world in CLEAN:
        for seed in range(options.seeds):
            clean = world_data(world, seed)
            found = checked(clean, seed)
            if world != "gridworld":  # a file of flat steps, whose chains may be broken
                found |= {"broken chains": check("broken chains", wrong_successors(clean, 0.0)[0], seed)}
            for name, one in found.items():
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
    sys.stdout.flush()
    print("planted: check, share, world: alarms of recordings, marked share")
    totals = defaultdict(list)
    for name, spoil in PLANTED.items():
        for share in (0.01, 0.05, 0.3):
            line, alarms, tried = [], 0, 0
            for world in CLEAN:
                hits, shares = 0, []
                for seed in range(options.planted):
                    clean = world_data(world, seed)
                    if world == "gridworld" and name not in IN_CHOICES:
                        continue
                    with warnings.catch_warnings():
                        warnings.simplefilter("error")
                        one = check(name, spoil(clean, share, seed=seed)[0], seed)
                    if one is not None:
                        hits += one.raised
                        shares.append(one.share)
                alarms, tried = alarms + hits, tried + len(shares)
                line.append(f"{world} {hits}/{len(shares)} {np.mean(shares):.3f}" if shares else f"{world} -")
            print(f"{name:18} {share:.2f}  " + "   ".join(line), flush=True)
            totals[name].append(f"Planted({share}, {alarms}, {tried})")
    print("planted, all worlds")
    for name, rows in totals.items():
        print(f'    "{name}": ({", ".join(rows)}),')


if __name__ == "__main__":
    main()
