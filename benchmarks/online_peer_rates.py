"""Runs in the peer's environment: for every line on stdin, a number of environment steps, does them and answers one JSON line.

    peer-online/bin/python benchmarks/online_peer_rates.py LIBRARY CASE [CHECKOUT]

LIBRARY is `sb3`, `sbx` or `cleanrl`, with its checkout. The first line it writes holds the versions, when everything is compiled and
has learned for a while.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

CASES: dict[str, tuple[str, str, int, dict[str, Any]]] = {
    "sac-halfcheetah": ("SAC", "HalfCheetah-v5", 1, {"learning_starts": 100, "policy_kwargs": {"net_arch": [256, 256]}}),
    "ppo-halfcheetah": ("PPO", "HalfCheetah-v5", 1, {}),
    "ppo-cartpole": ("PPO", "CartPole-v1", 1, {}),
    "ppo-cartpole-4x128": ("PPO", "CartPole-v1", 4, {"n_steps": 128, "batch_size": 128, "n_epochs": 4, "ent_coef": 0.01}),
}


def cleanrl(script: Path) -> None:
    """Serve CleanRL's script, at its defaults: four CartPoles, 128 steps, 4 epochs of 4 minibatches; the rate is the last it prints."""
    print(json.dumps({one: version(one) for one in ("torch", "gymnasium")}), flush=True)
    for line in sys.stdin:
        command = [sys.executable, str(script.resolve()), "--no-cuda", "--total-timesteps", str(max(int(line), 512))]
        with tempfile.TemporaryDirectory() as folder:  # it writes its events where it runs
            said = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout
        print(json.dumps({"rate": int(re.findall(r"SPS: (\d+)", said)[-1])}), flush=True)


def main() -> None:
    """Serve until stdin ends."""
    library, name = sys.argv[1:3]
    if library == "cleanrl":
        return cleanrl(Path(sys.argv[3]) / "cleanrl" / "ppo.py")

    import torch
    from stable_baselines3.common.env_util import make_vec_env

    algorithm, environment, copies, settings = CASES[name]
    if library == "sb3":
        import stable_baselines3 as peer

        torch.set_num_threads(len(os.sched_getaffinity(0)))
        settings = {**settings, "device": "cpu"}
    else:
        import sbx as peer
    model = getattr(peer, algorithm)("MlpPolicy", make_vec_env(environment, n_envs=copies), seed=0, **settings)
    model.learn(300 if algorithm == "SAC" else 2 * copies * model.n_steps)
    names = {"sb3": ("stable-baselines3", "torch"), "sbx": ("sbx-rl", "jax")}[library]
    print(json.dumps({one: version(one) for one in (*names, "gymnasium", "mujoco")}), flush=True)
    for line in sys.stdin:
        before, start = model.num_timesteps, time.perf_counter()
        model.learn(int(line), reset_num_timesteps=False)
        print(json.dumps({"rate": (model.num_timesteps - before) / (time.perf_counter() - start)}), flush=True)


if __name__ == "__main__":
    main()
