"""Any Gymnasium environment as a functional Environment inside the compiled loop."""

from __future__ import annotations

import atexit
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import equinox as eqx
import gymnasium
import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jaxtyping import Array, Bool, Int, PRNGKeyArray, PyTree

from policylab import spaces
from policylab.environment import Environment, Step
from policylab.environments.calling import call_host, forget_failure
from policylab.environments.hosting import Host, build_by_id, limited
from policylab.environments.pools import Pools
from policylab.environments.seeding import key_words
from policylab.errors import BadInput
from policylab.experience import Spec

_HOSTS: dict[Any, Host] = {}


class Place(eqx.Module):
    """The state of a hosted environment: which slot of the host, and how often it has been moved (stale states are refused)."""

    slot: Int[Array, ""]
    moves: Int[Array, ""]


class Gymnasium(Environment):
    """A Gymnasium environment, by its registered id or a function that makes one.

    One call moves all slots at once: `vmap` over environments, and over seeds around that, folds into the same
    single call. Random numbers of an episode come from the key of its `reset`, so equal keys give equal starts. The step
    that ends an episode shows the last observation, not the one after a reset; `truncated` is the environment's own time
    limit (`horizon`, in steps, replaces the registered one; 0 keeps it). `control_rate` is in steps per second (0: as the
    environment says). `info["success"]` is there when the environment reports `success` or `is_success`. Observations of
    float64 arrive as float32.

    Never step it inside a `lax.cond` under `vmap`: both branches would run. Start new episodes with `renew`.
    Raises `BadInput` for unknown ids, missing packages (naming the extra to install) and spaces without array form.
    """

    host: Host = eqx.field(static=True)

    def __init__(
        self, source: str | Callable[..., gymnasium.Env], *, horizon: int = 0, control_rate: float = 0.0, **arguments: Any
    ) -> None:
        # Environments that are made the same way share one host, so that programs compiled for one serve the other.
        name = (source, horizon, control_rate, repr(sorted(arguments.items())))
        if name not in _HOSTS:
            if isinstance(source, str):
                build, label = build_by_id(source, horizon, arguments), source
            elif arguments:
                raise BadInput("a function that makes an environment takes no further arguments: set them inside the function")
            else:
                build, label = limited(source, horizon), getattr(source, "__name__", "environment")
            _HOSTS[name] = Host(build, label, control_rate)
        self.host = _HOSTS[name]

    @property
    def spec(self) -> Spec:
        """Spaces, time limit and control rate as the environment declares them."""
        return self.host.spec

    @property
    def hosted(self) -> bool:
        """Steps leave the compiled program."""
        return True

    @property
    def restorable(self) -> bool:
        """A simulator cannot be put back into an earlier state."""
        return False

    def reset(self, key: PRNGKeyArray) -> tuple[Place, PyTree]:
        """Open a slot for an episode whose seed is drawn from `key`."""
        slot, observation = _one(_reset(self.host), jax.random.bits(key))
        return Place(slot, jnp.zeros((), jnp.int32)), observation

    def step(self, state: Place, action: PyTree, key: PRNGKeyArray) -> tuple[Place, Step]:
        """Move the slot; `key` is unused, since the simulator draws from the seed of its episode."""
        action = _cast(self.spec.action, action)
        slot, observation, reward, terminal, truncated, success = _one(_step(self.host), state.slot, state.moves, action)
        info = {"success": success} if self.host.success else {}
        return Place(slot, state.moves + 1), Step(observation, reward, terminal, truncated, None, info)

    def renew(self, state: Place, observation: PyTree, ended: Bool[Array, ""], key: PRNGKeyArray) -> tuple[Place, PyTree]:
        """Start a new episode in the same slot where `ended`."""
        seed = jax.random.bits(key)
        slot, moves, observation = _one(_renew(self.host), state.slot, state.moves, ended, seed, observation)
        return Place(slot, moves), observation

    def step_and_renew(
        self, state: Place, action: PyTree, step_key: PRNGKeyArray, reset_key: PRNGKeyArray
    ) -> tuple[Place, PyTree, Step]:
        """`step` and `renew` in one call; the seed of a new episode is drawn on the host, only where one begins."""
        action, words = _cast(self.spec.action, action), key_words(reset_key)
        place, observation, row = _one(_advance(self.host), state.slot, state.moves, words, action)
        last, reward, terminal, truncated, success = row
        info = {"success": success} if self.host.success else {}
        return Place(*place), observation, Step(last, reward, terminal, truncated, None, info)


@contextmanager
def explained() -> Generator[None, None, None]:
    """Turn the failure of a callback, which XLA reports as its own, back into what the host raised."""
    try:
        yield
    except Exception as error:  # of any kind: XLA wraps what a callback raised, and what no host raised goes on as it is
        for host in _HOSTS.values():
            failure, host.failure = host.failure, None
            if failure is not None:
                raise failure from error
        raise


def _one(many: Callable, *values: PyTree) -> PyTree:
    """Call a function of batches with a batch of one."""
    return jax.tree.map(lambda leaf: leaf[0], many(*jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], values)))


def _cast(space: spaces.Space, action: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf, zero: jnp.asarray(leaf).astype(zero.dtype), action, spaces.zeros(space))


def _folding(host: Host | Pools, method: Callable, results: Callable[[int], PyTree]) -> Callable:
    """`method` of the host as a function of batches [n, ...] whose `vmap` is itself with the new axis folded into n."""

    def guarded(*values: Any) -> Any:
        try:
            with host.lock:  # calls that do not depend on each other may come at the same time
                return method(*values)
        except Exception as error:  # of any kind: kept for `explained`, and raised on
            host.failure = error
            atexit.register(forget_failure)
            raise

    @custom_vmap
    def many(*values: PyTree) -> PyTree:
        count = jax.tree.leaves(values)[0].shape[0]
        return call_host(guarded, results(count), *values)

    @many.def_vmap
    def _(axis_size: int, batched: list, *values: PyTree) -> tuple[PyTree, PyTree]:
        spread = jax.tree.map(
            lambda leaf, has: leaf if has else jnp.broadcast_to(leaf, (axis_size, *leaf.shape)), values, tuple(batched)
        )
        folded = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), spread)
        out = jax.tree.map(lambda leaf: leaf.reshape(axis_size, -1, *leaf.shape[1:]), many(*folded))
        return out, jax.tree.map(lambda _: True, out)

    return many


def _shape(count: int, dtype: Any, shape: tuple[int, ...] = ()) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((count, *shape), dtype)


def _observations(host: Host | Pools, count: int) -> PyTree:
    return jax.tree.map(lambda leaf: _shape(count, leaf.dtype, leaf.shape), spaces.zeros(host.space))


def _remember(make: Callable[[Host | Pools], Callable]) -> Callable[[Host | Pools], Callable]:
    made: dict[Host | Pools, Callable] = {}

    def get(host: Host | Pools) -> Callable:
        if host not in made:
            made[host] = make(host)
        return made[host]

    return get


@_remember
def _reset(host: Host | Pools) -> Callable:
    return _folding(host, host.reset, lambda n: (_shape(n, jnp.int32), _observations(host, n)))


@_remember
def _renew(host: Host | Pools) -> Callable:
    return _folding(host, host.renew, lambda n: (_shape(n, jnp.int32), _shape(n, jnp.int32), _observations(host, n)))


@_remember
def _step(host: Host | Pools) -> Callable:
    return _folding(host, host.step, lambda n: _step_results(host, n))


@_remember
def _advance(host: Host | Pools) -> Callable:
    def results(n: int) -> PyTree:
        slot, *row = _step_results(host, n)
        return (slot, slot), _observations(host, n), tuple(row)

    return _folding(host, host.step_and_renew, results)


def _step_results(host: Host | Pools, count: int) -> PyTree:
    reward = _shape(count, jnp.float32, host.spec.reward_shape)
    flags = (_shape(count, bool), _shape(count, bool), _shape(count, jnp.float32))
    return _shape(count, jnp.int32), _observations(host, count), reward, *flags
