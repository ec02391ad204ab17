"""Environment steps per second of learning online, ours and the peers', and simulations per second of tree search, in one run.

    python benchmarks/online_updates.py                                                           ours alone
    python benchmarks/online_updates.py --peer-python peer-online/bin/python --markdown docs/benchmarks.md
    python benchmarks/online_updates.py --peer-python peer-online/bin/python --cleanrl CHECKOUT --cases ppo-cartpole-4x128

Both sides step the same simulator with networks of the same sizes, batches, epochs and minibatches. In every round ours and the peers
are measured one after the other and ratios are taken within rounds. The peers have an environment of their own
(`make peer-online`, from `benchmarks/peer_online.txt`). CleanRL is no package but scripts: `--cleanrl` takes a checkout of it.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from peer import Peer
from tables import Goal, at_least, goal_table, spread, spread_text, table, versions_text, write_section

BEGIN, END = "<!-- online: begin -->", "<!-- online: end -->"
COMMAND = "python benchmarks/online_updates.py --peer-python peer-online/bin/python --markdown docs/benchmarks.md"
# What each side does in one round, in environment steps, and the goals: times which peer. Peers go on with their run while ours begins
# anew, so that ours has to be long enough for its beginning not to weigh.
STEPS = {"sac-halfcheetah": 3_000, "ppo-halfcheetah": 5 * 2048, "ppo-cartpole": 40 * 2048, "ppo-cartpole-4x128": 200 * 512}
PEER_STEPS = {"sac-halfcheetah": 300, "ppo-halfcheetah": 2 * 2048, "ppo-cartpole": 2 * 2048, "ppo-cartpole-4x128": 16 * 512}
PEERS = {
    "sac-halfcheetah": ("sb3", "sbx"),
    "ppo-halfcheetah": ("sb3", "sbx"),
    "ppo-cartpole": ("sb3",),
    "ppo-cartpole-4x128": ("sb3", "cleanrl"),
}
GOALS = {
    ("sac-halfcheetah", "sb3"): 2.0, ("sac-halfcheetah", "sbx"): 1.0, ("ppo-halfcheetah", "sb3"): 2.0,
    ("ppo-cartpole", "sb3"): 12.0, ("ppo-cartpole-4x128", "sb3"): 12.0,
    ("ppo-cartpole-4x128", "cleanrl"): 12.0,
}  # fmt: skip
WORDS = {
    "sac-halfcheetah": "SAC, HalfCheetah-v5, one environment, an update of 256 per step, 2 x 256",
    "ppo-halfcheetah": "PPO, HalfCheetah-v5, one environment, 2,048 steps, 10 epochs in minibatches of 64, 2 x 64",
    "ppo-cartpole": "PPO, CartPole, one environment, 2,048 steps, 10 epochs in minibatches of 64, 2 x 64",
    "ppo-cartpole-4x128": "PPO, CartPole, 4 environments, 128 steps, 4 epochs in minibatches of 128, 2 x 64",
}
NAMES = {"sb3": "Stable-Baselines3", "sbx": "sbx", "cleanrl": "CleanRL"}
COPIES = 64
BATCH, CHOICES, HIDDEN, SIMULATIONS, SHARE = 64, 9, 256, 50, 0.9


def ours(name: str, steps: int) -> Callable[[], float]:
    """Measures the steps per second of the public `train`, compiled before; all that a call of it costs counts."""
    import policylab as lab
    from policylab.environments.hosted import Gymnasium

    if name == "sac-halfcheetah":
        environment, learner, per_update = Gymnasium("HalfCheetah-v5"), lab.SAC(), 1
        source: Any = lab.Replay(environment, warmup=100)
    else:
        environment = Gymnasium("HalfCheetah-v5") if name == "ppo-halfcheetah" else lab.load_task("cartpole").environment()
        wide = {"environments": 4, "steps": 128, "batch_size": 128, "epochs": 4, "entropy_weight": 0.01}
        learner = lab.PPO(normalise=False, **(wide if name == "ppo-cartpole-4x128" else {}))
        source, per_update = lab.Rollout(environment), learner.environments * learner.steps
    lab.train(learner, source, steps=2)

    def rate() -> float:
        start = time.perf_counter()
        lab.train(learner, source, steps=max(2, steps // per_update))
        return max(2, steps // per_update) * per_update / (time.perf_counter() - start)

    return rate


def copies(count: int, updates: int) -> dict[str, Callable[[], float]]:
    """Measure PPO's steps per second on so many copies of HalfCheetah, in Gymnasium's simulator and, where it is installed, envpool's."""
    import policylab as lab
    from policylab.environments.hosted import Gymnasium

    learner = lab.PPO(environments=count, steps=64, batch_size=512)

    def rate(source: Any) -> Callable[[], float]:
        def measured(times: int = updates) -> float:
            start = time.perf_counter()
            lab.train(learner, source, steps=times)
            return times * count * learner.steps / (time.perf_counter() - start)

        measured(2)
        return measured

    kinds = {"gymnasium": Gymnasium, **({"envpool": lab.EnvPool} if importlib.util.find_spec("envpool") else {})}
    return {name: rate(lab.Rollout(kind("HalfCheetah-v5"))) for name, kind in kinds.items()}


def searches() -> tuple[Callable[[], float], Callable[[], float]]:
    """Measure simulations per second of our planner and of mctx alone, on the same model: perceptrons for what follows, the prior and
    the value."""
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    import mctx

    import policylab as lab
    from policylab.environment import Environment, Step
    from policylab.networks.mlp import MLP

    keys = jax.random.split(jax.random.key(0), 4)
    forward = MLP(HIDDEN + CHOICES, HIDDEN, width=HIDDEN, depth=2, key=keys[0])
    prior, worth = MLP(HIDDEN, CHOICES, width=HIDDEN, depth=1, key=keys[1]), MLP(HIDDEN, 1, width=HIDDEN, depth=1, key=keys[2])

    class Latent(Environment):
        """What the model says follows."""

        model: MLP

        @property
        def spec(self) -> lab.Spec:
            return lab.Spec(lab.Box((HIDDEN,)), lab.Discrete(CHOICES))

        def reset(self, key: Any) -> tuple:
            state = jax.random.normal(key, (HIDDEN,))
            return state, state

        def at(self, observation: Any) -> Any:
            return observation

        def step(self, state: Any, action: Any, key: Any) -> tuple:
            state = self.model(jnp.concatenate([state, jax.nn.one_hot(action, CHOICES)]))
            return state, Step(state, jnp.zeros(()), jnp.zeros((), bool), jnp.zeros((), bool))

    class Worth(eqx.Module):
        """The value as a number."""

        model: MLP

        def __call__(self, observation: Any) -> Any:
            return self.model(observation)[0]

    planner = lab.MonteCarloTreeSearch(Latent(forward), prior, Worth(worth), discount=0.99, simulations=SIMULATIONS)
    roots = jax.random.normal(keys[3], (BATCH, HIDDEN))

    @jax.jit
    def with_planner(planner: Any, roots: Any, key: Any) -> Any:
        return jax.vmap(lambda root, k: planner.search(root, key=k).visits)(roots, jax.random.split(key, BATCH))

    def recurrent(models: Any, key: Any, action: Any, hidden: Any) -> tuple:
        forward, prior, worth = models
        hidden = jax.vmap(forward)(jnp.concatenate([hidden, jax.nn.one_hot(action, CHOICES)], -1))
        nothing, discount = jnp.zeros(BATCH), jnp.full(BATCH, 0.99)
        logits, value = jax.vmap(prior)(hidden), jax.vmap(worth)(hidden)[:, 0]
        return mctx.RecurrentFnOutput(reward=nothing, discount=discount, prior_logits=logits, value=value), hidden

    @jax.jit
    def bare(models: Any, roots: Any, key: Any) -> Any:
        root = mctx.RootFnOutput(
            prior_logits=jax.vmap(models[1])(roots), value=jax.vmap(models[2])(roots)[:, 0], embedding=roots
        )
        found = mctx.muzero_policy(models, key, root, recurrent, SIMULATIONS, dirichlet_fraction=0.0, temperature=0.0)
        return found.search_tree.summary().visit_probs

    def rate(search: Callable, first: Any) -> Callable[[], float]:
        def measured(count: int = 20) -> float:
            start = time.perf_counter()
            for i in range(count):
                jax.block_until_ready(search(first, roots, jax.random.key(i)))
            return count * BATCH * SIMULATIONS / (time.perf_counter() - start)

        measured(1)
        return measured

    return rate(with_planner, planner), rate(bare, (forward, prior, worth))


def peers_of(name: str, options: argparse.Namespace) -> list[str]:
    """The peers of a case that there is something to measure with."""
    return [peer for peer in PEERS[name] if options.peer_python and (peer != "cleanrl" or options.cleanrl)]


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """All cases: rates and ratios of every round."""
    share, versions, rows = 0.02 if options.tiny else 1.0, {}, []
    for name in options.cases:
        mine, rounds = ours(name, int(STEPS[name] * share)), []
        with contextlib.ExitStack() as stack:
            peers = {}
            for library in peers_of(name, options):
                script, more = Path(__file__).with_name("online_peer_rates.py"), [options.cleanrl] * (library == "cleanrl")
                peers[library] = stack.enter_context(Peer(options.peer_python, library, name, *more, script=script))
                versions |= {f"{key} ({library})" if key == "jax" else key: v for key, v in peers[library].versions.items()}
            for _ in range(options.rounds):
                found = {"ours": mine()}
                for library, peer in peers.items():
                    found[library] = peer.work(max(4, int(PEER_STEPS[name] * share)))["rate"]
                rounds.append(found)
                print(name, {key: f"{value:,.0f}" for key, value in found.items()}, file=sys.stderr, flush=True)
        rows.append({"case": name, "rounds": rounds})
    pools = copies(COPIES, 2 if options.tiny else 8)
    pooled = [{name: rate() for name, rate in pools.items()} for _ in range(options.rounds)]
    print(f"{COPIES} copies", pooled, file=sys.stderr, flush=True)
    planner, bare = searches()
    rounds = [{"ours": planner(), "mctx": bare()} for _ in range(options.rounds)]
    print("search", rounds, file=sys.stderr, flush=True)
    rows.append({"case": "search", "rounds": rounds})
    own = {name: version(name) for name in ("policylab", "jax", "gymnasium", "mujoco", "mctx", *list(pools)[1:])}
    return {"rows": rows, "pooled": pooled, "rounds": options.rounds, "load": options.load, "versions": own | versions}


def ratio(row: dict[str, Any], peer: str) -> dict[str, float] | None:
    """The spread of ours over a peer's, within rounds."""
    return spread([one["ours"] / one[peer] for one in row["rounds"]]) if peer in row["rounds"][0] else None


def goals(document: dict[str, Any]) -> list[Goal]:
    """Speed beside each peer."""
    rows = {row["case"]: row for row in document["rows"]}
    found = [
        at_least(f"{name}: {least:g}x {NAMES[peer]}", ratio(rows[name], peer), least, "{:.2f}x")
        for (name, peer), least in GOALS.items()
        if name in rows
    ]
    return [*found, at_least(f"tree search: {SHARE:.0%} of mctx alone", ratio(rows["search"], "mctx"), SHARE, "{:.0%}")]


def pool_text(rounds: list[dict[str, float]]) -> str:
    """What envpool brings, in words."""
    if "envpool" not in rounds[0]:
        return "envpool was not installed."
    middle = {name: spread([one[name] for one in rounds])["median"] for name in rounds[0]}
    times = spread_text(spread([one["envpool"] / one["gymnasium"] for one in rounds]), "{:.2f}x")
    return (
        f"PPO on {COPIES} copies of HalfCheetah-v5 (64 steps each, 10 epochs in minibatches of 512) makes {middle['envpool']:,.0f} steps/s in\n"
        f"envpool's simulators (`lab.EnvPool`) and {middle['gymnasium']:,.0f} in Gymnasium's, {times}."
    )


def section(document: dict[str, Any]) -> str:
    """The part of the page, in Markdown."""
    text = lambda row, name: (
        f"{spread([one[name] for one in row['rounds']])['median']:,.0f}" if name in row["rounds"][0] else ""
    )
    times = lambda row, name: spread_text(found, "{:.2f}x") if (found := ratio(row, name)) else ""
    cases = [row for row in document["rows"] if row["case"] != "search"]
    steps = table(
        ("", "policylab, steps/s", *NAMES.values(), *(f"policylab / {name}" for name in NAMES.values())),
        [(WORDS[r["case"]], text(r, "ours"), *(text(r, n) for n in NAMES), *(times(r, n) for n in NAMES)) for r in cases],
    )
    search = document["rows"][-1]
    return f"""## Learning online, and search

Written by `{COMMAND}` on {len(os.sched_getaffinity(0))} CPU core(s),
{document["rounds"]} rounds; medians, and the range of the ratios over rounds. Before it began {document["load"]:.1f} processes were busy
in the mean of a minute. CartPole is compiled with the learner here and stepped in Python there; HalfCheetah is the same simulator on
both sides, without envpool. A column is empty where a library was not measured in this run.

{goal_table(goals(document))}

{steps}

{pool_text(document["pooled"])}

Tree search, {BATCH} searches at once of {SIMULATIONS} simulations over {CHOICES} choices in a model of perceptrons of {HIDDEN}:
{text(search, "ours")} simulations/s, mctx alone {text(search, "mctx")}.

Versions: {versions_text(document["versions"])}.
"""


def main() -> None:
    """Print the section, write it into the page, or print one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", help="the Python of an environment with stable-baselines3 and sbx-rl")
    parser.add_argument("--cleanrl", help="a checkout of CleanRL, whose ppo.py is timed too (needs tyro and tensorboard there)")
    parser.add_argument("--cases", nargs="+", default=list(STEPS), choices=list(STEPS), help="default: all")
    parser.add_argument("--rounds", type=int, default=3, help="how often everything is measured (default: 3)")
    parser.add_argument("--markdown", type=Path, help=f"write the section into this page, between {BEGIN} and {END}")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--tiny", action="store_true", help="try the script with sizes that say nothing")
    options = parser.parse_args()
    options.load = os.getloadavg()[0]
    document = measured(options)
    if options.markdown:
        write_section(options.markdown, BEGIN, END, section(document))
    else:
        print(json.dumps(document) if options.json else section(document))


if __name__ == "__main__":
    main()
