"""envpool's simulators, stepped by threads in C++, as a functional Environment inside the compiled loop."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import warnings
from collections.abc import Callable
from typing import Any

import equinox as eqx
import numpy as np

from policylab import spaces
from policylab.environment import Environment
from policylab.environments.hosted import _HOSTS, Gymnasium
from policylab.environments.pools import Pools
from policylab.errors import BadInput
from policylab.experience import Spec

PREFIX = "envpool:"
_SUCCESS = ("success", "is_success")


class EnvPool(Environment):
    """An environment of envpool (Weng et al. 2022, arXiv 2206.10558), by its id: a faster simulator for many copies at once.

    Everything is as `Gymnasium` has it: one call moves all copies of all seeds, the step that ends an episode shows the last
    observation, an ended episode that is stepped on stays as it is, stale states are refused, `horizon` (in steps) replaces the
    registered time limit, observations of float64 arrive as float32, `info["success"]` is there where envpool reports it.
    `control_rate` (steps per second) is what you say, since envpool tells none; `threads` are at most so many per pool (0: as envpool
    thinks best); further arguments are envpool's. Simulators are opened by `reset`, as many as it is called for at once.

    Two promises of `Gymnasium` envpool cannot keep. Its seeds are given when a simulator is made: the episode of a `reset` starts from its
    key, and equal keys give equal episodes, but those that `renew` or `step_and_renew` begin in the same slot go on in the random numbers
    that the first key began (the whole sequence is the same in every run). And an episode that ends by itself in the last step that its
    time limit allows counts as truncated, not as terminal. Starts differ from Gymnasium's, which draws them otherwise.

    Raises `BadInput` where envpool is not installed or does not know the id, for games of several players and for actions of several parts.
    """

    host: Pools = eqx.field(static=True)

    def __init__(self, name: str, *, horizon: int = 0, control_rate: float = 0.0, threads: int = 0, **arguments: Any) -> None:
        # Environments that are made the same way share one host, so that programs compiled for one serve the other.
        known = (PREFIX, name, horizon, control_rate, threads, repr(sorted(arguments.items())))
        if known not in _HOSTS:
            host: Any = _pools(name, horizon, control_rate, threads, arguments)
            _HOSTS[known] = host
        self.host: Any = _HOSTS[known]

    @property
    def spec(self) -> Spec:
        """Spaces and time limit as envpool declares them."""
        return self.host.spec

    @property
    def hosted(self) -> bool:
        """Steps leave the compiled program."""
        return True

    @property
    def restorable(self) -> bool:
        """A simulator cannot be put back into an earlier state."""
        return False

    # The same calls to another host.
    reset = Gymnasium.reset
    step = Gymnasium.step
    renew = Gymnasium.renew
    step_and_renew = Gymnasium.step_and_renew


def _pools(name: str, horizon: int, control_rate: float, threads: int, arguments: dict[str, Any]) -> Pools:
    """The host for one id and its settings."""
    if importlib.util.find_spec("envpool") is None:
        raise BadInput(f'{name} of envpool needs a package that is not installed: pip install "policylab[envpool]"')
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about bounds that lose precision, and other packages' deprecations
        envpool: Any = importlib.import_module("envpool")  # too large for the environment in which types are checked
        if name not in envpool.list_all_envs():
            close = difflib.get_close_matches(name, envpool.list_all_envs(), 1, 0.5)
            hint = f"did you mean {close[0]}?" if close else "envpool.list_all_envs() lists what it has"
            raise BadInput(f"envpool knows no environment called {name!r}: {hint}")
        settings = {**arguments, **({"max_episode_steps": horizon} if horizon else {})}
        try:
            told = envpool.make_spec(name, num_envs=1, num_threads=threads, **settings)
        except (TypeError, ValueError, AssertionError, ImportError, RuntimeError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise BadInput(f"{name} of envpool cannot be made with {sorted(arguments) or 'no arguments'}: {reason}") from error
        observed, moved = told.gymnasium_observation_space, told.gymnasium_action_space
        observation, action = spaces.from_gymnasium(observed), spaces.from_gymnasium(moved)
    if told.config.max_num_players > 1:
        raise BadInput(f"{name} of envpool is a game of several players: give the environment of one of them")
    if isinstance(action, spaces.Composite):
        raise BadInput(f"{name} of envpool takes actions of several parts, {spaces.describe(action)}: use Gymnasium for it")
    success = next((word for word in _SUCCESS if f"info:{word}" in told.state_array_spec), "")

    def open_many(seeds: list[int]) -> Any:
        return envpool.make(
            name, "gymnasium", num_envs=len(seeds), seed=seeds, num_threads=min(threads, len(seeds)), **settings
        )

    spec = Spec(
        observation,
        action,
        horizon=max(0, int(told.config.max_episode_steps)),
        control_rate=control_rate,
        environment=PREFIX + name,
    )
    return Pools(open_many, spec, _converter(observation), success)


def _converter(space: spaces.Space) -> Callable[[Any], Any]:
    """A function that copies envpool's observations into arrays of our kind."""
    match space:
        case spaces.Box():
            return lambda value: np.array(value, space.dtype)
        case spaces.Discrete():
            return lambda value: np.array(value, np.int32)
        case spaces.Composite():
            parts = {name: _converter(part) for name, part in space.parts}
            return lambda value: {name: convert(value[name]) for name, convert in parts.items()}
