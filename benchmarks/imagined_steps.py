"""How many steps in the real pendulum until it is swung up: SAC, SAC with many updates per step, and MBPO; and MOPO on a log.

`python benchmarks/imagined_steps.py mbpo --seed 0 --out runs/imagined.jsonl` adds one run to a file, in a few minutes (one that was cut
short goes on);
`python benchmarks/imagined_steps.py --table runs/imagined.jsonl` prints the table of docs/imagining.md.

All arms have the same agent (networks of 2 x 64, batches of 128, learning rate 1e-3) and 400 random steps first. Every 100 steps
the policy's mode plays 20 episodes; one counts as swung up where the pole stays within 26 degrees of upright for its last 50 steps.
MOPO learns from `pendulum`, `mixed` (20,000 steps, four fifths of them random) and is played every 2,000 updates.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

import policylab as lab
from policylab.environments.pendulum import Pendulum
from policylab.environments.time_limit import TimeLimit

WARMUP, BLOCK, EPISODES, ENOUGH = 400, 100, 20, 18
UPDATES = {"sac": 1, "sac-20": 20, "mbpo": 20, "mopo": 20}  # per step; MOPO makes none
MOST = {"sac": 4_000, "sac-20": 1_500, "mbpo": 1_500, "mopo": 1_000}  # steps after the random ones
PLACE = TimeLimit(Pendulum(), 200)


def swung_up(products: Mapping[str, Any], *, key: jax.Array) -> dict[str, float]:
    """Of 20 episodes: the mean return, and how many end upright."""
    policy = products["policy"].mode()
    played = jax.jit(lambda policy, key: lab.unroll(policy, PLACE, episodes=EPISODES, horizon=200, key=key))(policy, key)
    upright = jnp.all(played.observation[:, -50:, 0] > 0.9, axis=1)
    return {"return": float(jnp.mean(played.returns)), "upright": float(jnp.sum(upright))}


def learn(arm: str, seed: int, folder: Path) -> dict[str, Any]:
    """One run: steps in the environment until 18 of 20 episodes end upright (None: not within the run), and all evaluations."""
    form = lab.Gaussian(width=64, state_dependent_std=True, squash="sample", log_std_range=(-20.0, 2.0))
    agent = lab.SAC(width=64, batch_size=128, learning_rate=1e-3, policy=form)
    updates = UPDATES[arm]
    real = lab.Replay(PLACE, capacity=100_000, warmup=WARMUP, updates=updates)
    learner, source = agent, real
    world = lab.EnsembleDynamics(lab.DynamicsEnsemble(members=5, elites=3, width=64, depth=3))
    if arm == "mopo":
        log = lab.Dataset.of(lab.load_task("pendulum").dataset("mixed"))
        learner, source = lab.MOPO(agent=agent, dynamics=world), lab.Imagined(log, rollouts=400, every=20, capacity=200_000)
    if arm == "mbpo":
        learner = lab.MBPO(agent=agent, dynamics=world, fit_every=2)
        # Rollouts of the last 150 steps are kept, not all there ever were: those of early worlds are wrong.
        source = lab.Imagined(real, rollouts=400, every=updates, capacity=60_000)
    run = lab.train(
        learner, source, steps=MOST[arm] * updates, seeds=[seed], evaluate=swung_up, every=BLOCK * updates, out=folder,
        resume=(folder / "run.json").exists(), checkpoint_every=BLOCK * updates,
        until=lambda row: row.get("evaluation", {"upright": [0.0]})["upright"][0] >= ENOUGH,
    )  # fmt: skip
    found = [
        (
            row["step"] if arm == "mopo" else WARMUP + row["step"] // updates,
            row["evaluation"]["upright"][0],
            row["evaluation"]["return"][0],
        )
        for row in run.evaluations
    ]
    reached = found[-1][0] if found[-1][1] >= ENOUGH else None
    return {"arm": arm, "seed": seed, "steps": reached, "evaluations": found, "seconds": run.metrics[-1]["seconds"]}


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: one line per arm."""
    lines = [
        "| arm | updates per step | real steps (MOPO: updates) until swung up, by seed | return then |",
        "|---|---|---|---|",
    ]
    for arm, updates in UPDATES.items():
        mine = sorted((row for row in rows if row["arm"] == arm), key=lambda row: row["seed"])
        told = [f"{row['steps']:,}" if row["steps"] else f"not in {row['evaluations'][-1][0]:,}" for row in mine]
        returns = [f"{row['evaluations'][-1][2]:.0f}" for row in mine]
        if mine:
            lines.append(f"| `{arm}` | {'-' if arm == 'mopo' else updates} | {', '.join(told)} | {', '.join(returns)} |")
    return "\n".join(lines)


def main() -> None:
    """One run, or the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("arm", nargs="?", choices=list(UPDATES))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/imagined.jsonl"))
    parser.add_argument("--table", type=Path)
    options = parser.parse_args()
    if options.table:
        print(table([json.loads(line) for line in options.table.read_text().splitlines()]))
        return
    row = learn(options.arm, options.seed, options.out.parent / f"{options.out.stem}-{options.arm}-{options.seed}")
    with options.out.open("a") as file:
        file.write(json.dumps(row) + "\n")
    print(json.dumps(row))


if __name__ == "__main__":
    main()
