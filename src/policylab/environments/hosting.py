"""The host's side of a Gymnasium environment: a pool of simulators, stepped by slot number, in NumPy arrays."""

from __future__ import annotations

import contextlib
import difflib
import importlib.util
import io
import os
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium
import jax
import numpy as np

from policylab import spaces
from policylab.environments.seeding import seed_of
from policylab.errors import BadInput
from policylab.experience import Spec

ROBOTICS = ("PointMaze", "AntMaze", "Fetch", "Hand", "Adroit", "FrankaKitchen")
SUCCESS = ("success", "is_success")


@dataclass
class Slot:
    """One episode: its simulator (None once it ended), seed, count of moves at its start and now, and what the last move gave."""

    simulator: gymnasium.Env | None
    seed: int
    start: int
    moves: int
    observation: Any
    terminal: bool = False
    truncated: bool = False
    success: float = 0.0


class Host:
    """Simulators of one kind, made when first needed and used again. Compared by identity, so it can be static in programs.

    Slot numbers are never used twice. An ended episode gives its simulator back at once; when more than `capacity` slots
    are open, the one that rested longest is closed.
    A state at the start of its episode may be stepped any number of times (several policies that share one reset do): the
    host opens another slot from the same seed. Any other old state is refused, since a simulator cannot go back.
    """

    def __init__(self, build: Callable[..., gymnasium.Env], label: str, control_rate: float = 0.0, capacity: int = 128) -> None:
        self.build, self.label, self.capacity = build, label, capacity
        self.failure: Exception | None = None
        self.lock = threading.RLock()
        self.slots: OrderedDict[int, Slot] = OrderedDict()
        self.count = 0
        first = build()
        self.spare = [first]
        self.space = spaces.from_gymnasium(first.observation_space)
        self.write, self.read = writer(first.observation_space), reader(first.action_space)
        self.horizon = int((first.spec.max_episode_steps if first.spec else None) or 0)
        self.success, reward_shape = _probe(first)
        dt = getattr(first.unwrapped, "dt", None)
        self.spec = Spec(
            self.space,
            spaces.from_gymnasium(first.action_space),
            reward_shape=reward_shape,
            horizon=self.horizon,
            control_rate=control_rate or (1.0 / float(dt) if dt else 0.0),
            environment=label,
        )

    def borrow(self, count: int) -> list[gymnasium.Env]:
        """`count` simulators that no slot uses; give them back with `give_back`."""
        taken, self.spare = self.spare[:count], self.spare[count:]
        return taken + [self.build() for _ in range(count - len(taken))]

    def give_back(self, simulators: list[gymnasium.Env]) -> None:
        """Simulators that are free again."""
        self.spare += simulators

    def buffer(self, count: int) -> Any:
        """Zeroed observations of `count` slots, leaves [count, ...]."""
        return empty(self.space, count)

    def reset(self, seeds: np.ndarray) -> tuple:
        """Open one slot per seed: (slot numbers, observations)."""
        seeds = np.asarray(seeds)
        self._make_room(len(seeds))
        observation = self.buffer(len(seeds))
        numbers = np.array([self._open(int(seed), 0) for seed in seeds], np.int32)
        for row, number in enumerate(numbers):
            self.write(observation, row, self.slots[int(number)].observation)
        return numbers, observation

    def renew(self, numbers: np.ndarray, moves: np.ndarray, ended: np.ndarray, seeds: np.ndarray, observation: Any) -> tuple:
        """Start a new episode in the slots whose flag `ended` is set: (slot numbers, moves, observations)."""
        numbers, moves, observation = np.array(numbers), np.array(moves), jax.tree.map(np.array, observation)
        for row in map(int, np.flatnonzero(ended)):
            numbers[row] = self._find(int(numbers[row]), int(moves[row]))
            moves[row] += 1
            self._release(self.slots[int(numbers[row])])
            self._start(int(numbers[row]), int(seeds[row]), int(moves[row]))
            self.write(observation, row, self.slots[int(numbers[row])].observation)
        return numbers, moves, observation

    def step(self, numbers: np.ndarray, moves: np.ndarray, actions: Any) -> tuple:
        """Move every slot by its action: (slot numbers, observations, reward, terminal, truncated, success).

        Ended slots stay as they are and give no reward.
        """
        numbers, count = np.array(numbers), len(numbers)
        observation, reward = self.buffer(count), np.zeros((count, *self.spec.reward_shape), np.float32)
        terminal, truncated, success = np.zeros(count, bool), np.zeros(count, bool), np.zeros(count, np.float32)
        for row in range(count):
            number = numbers[row] = self._find(int(numbers[row]), int(moves[row]))
            slot = self.slots[number]
            slot.moves += 1
            if slot.simulator is not None:
                slot.observation, reward[row], slot.terminal, slot.truncated, info = slot.simulator.step(
                    self.read(actions, row)
                )
                if self.success:
                    slot.success = float(info.get(self.success, slot.success))
                if slot.terminal or slot.truncated:
                    self._release(slot)
            self.write(observation, row, slot.observation)
            terminal[row], truncated[row], success[row] = slot.terminal, slot.truncated, slot.success
        return numbers, observation, reward, terminal, truncated, success

    def step_and_renew(self, numbers: np.ndarray, moves: np.ndarray, words: np.ndarray, actions: Any) -> tuple:
        """`step`, then `renew` of what ended, seeded from the words of a key: ((slot numbers, moves), the observations to go on from,
        (the step's observation, reward, terminal, truncated, success))."""
        numbers, last, reward, terminal, truncated, success = self.step(numbers, moves, actions)
        ended, moves, observation = terminal | truncated, moves + 1, last
        if ended.any():
            seeds = [seed_of(one) if end else 0 for one, end in zip(words, ended, strict=True)]
            numbers, moves, observation = self.renew(numbers, moves, ended, np.array(seeds), last)
        return (numbers, moves), observation, (last, reward, terminal, truncated, success)

    def _make_room(self, count: int) -> None:
        self.capacity = max(self.capacity, 2 * count)
        while self.slots and len(self.slots) + count > self.capacity:
            self._release(self.slots.popitem(last=False)[1])

    def _release(self, slot: Slot) -> None:
        if slot.simulator is not None:
            self.spare.append(slot.simulator)
            slot.simulator = None

    def _open(self, seed: int, moves: int) -> int:
        number, self.count = self.count, self.count + 1
        self._start(number, seed, moves)
        return number

    def _start(self, number: int, seed: int, moves: int) -> None:
        simulator = self.borrow(1)[0]
        self.slots[number] = Slot(simulator, seed, moves, moves, simulator.reset(seed=seed)[0])
        self.slots.move_to_end(number)

    def _find(self, number: int, moves: int) -> int:
        """The slot that is in the asked state: this one, or a new one from the same seed."""
        slot = self.slots.get(number)
        if slot is None:
            raise BadInput(
                f"an episode of {self.label} was left for {self.capacity} newer ones and cannot go on: finish it first"
            )
        if slot.moves == moves:
            self.slots.move_to_end(number)
            return number
        if moves != slot.start:
            raise BadInput(
                f"a state of {self.label} was stepped twice, but a simulator outside the program cannot go back:"
                " step each state once, and start new episodes with `renew`"
            )
        if len(self.slots) >= self.capacity:
            self.capacity *= 2  # never close a slot that this very call may still need
        return self._open(slot.seed, moves)


def build_by_id(name: str, horizon: int, arguments: dict[str, Any]) -> Callable[[], gymnasium.Env]:
    """A function that makes the registered environment, with its own time limit for a `horizon` of 0 and with none for -1.

    Raises `BadInput` for unknown names and missing packages.
    """
    try:
        gymnasium.spec(name)
    except gymnasium.error.Error as error:
        _register_robotics(name)
        if name not in gymnasium.registry:
            close = difflib.get_close_matches(name, gymnasium.registry, 1, 0.5)
            hint = f"did you mean {close[0]}?" if close else "look for its name with gymnasium.pprint_registry()"
            raise BadInput(f"Gymnasium knows no environment called {name!r}: {hint}") from error
    limit = {"max_episode_steps": horizon} if horizon else {}
    if not os.environ.get("DISPLAY"):  # MuJoCo chooses how to draw when it is imported; without a screen EGL does
        os.environ.setdefault("MUJOCO_GL", "egl")

    def build(**extra: Any) -> gymnasium.Env:
        try:
            return gymnasium.make(name, disable_env_checker=True, **limit, **arguments, **extra)
        except (gymnasium.error.DependencyNotInstalled, ImportError) as error:
            raise BadInput(
                f'{name} needs packages that are not installed: pip install "policylab[robotics]" ({error})'
            ) from error
        except TypeError as error:
            raise BadInput(f"{name} cannot be made with {sorted(arguments) or 'no arguments'}: {error}") from error

    return build


def limited(build: Callable[..., gymnasium.Env], horizon: int) -> Callable[..., gymnasium.Env]:
    """The function with a time limit of `horizon` steps around what it makes (0: as it is)."""
    if not horizon:
        return build
    return lambda **extra: gymnasium.wrappers.TimeLimit(build(**extra), horizon)


def _register_robotics(name: str) -> None:
    if not name.startswith(ROBOTICS):
        return
    if importlib.util.find_spec("gymnasium_robotics") is None:
        raise BadInput(f'{name} is part of Gymnasium-Robotics, which is not installed: pip install "policylab[robotics]"')
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")  # its notes about versions of other environments, warned and printed
        import gymnasium_robotics

        gymnasium.register_envs(gymnasium_robotics)


def _probe(simulator: gymnasium.Env) -> tuple[str, tuple[int, ...]]:
    """Under which name the environment reports success ("" if it does not), and the shape of its reward."""
    simulator.reset(seed=0)
    simulator.action_space.seed(0)
    _, reward, _, _, info = simulator.step(simulator.action_space.sample())
    return next((name for name in SUCCESS if name in info), ""), np.shape(reward)


def empty(space: spaces.Space, count: int) -> Any:
    """Zeros for `count` values of a space, leaves [count, ...]."""
    match space:
        case spaces.Box():
            return np.zeros((count, *space.shape), space.dtype)
        case spaces.Discrete():
            return np.zeros(count, np.int32)
        case spaces.Composite():
            return {name: empty(part, count) for name, part in space.parts}


def writer(space: gymnasium.Space) -> Callable[[Any, int, Any], None]:
    """A function (buffer, row, value) that stores one value of a Gymnasium space into our arrays."""
    match space:
        case gymnasium.spaces.Dict():
            named = [(name, name, writer(part)) for name, part in space.spaces.items()]
        case gymnasium.spaces.Tuple():
            named = [(str(i), i, writer(part)) for i, part in enumerate(space.spaces)]
        case gymnasium.spaces.MultiDiscrete():

            def write_choices(buffer: Any, row: int, value: Any) -> None:
                for i, choice in enumerate(np.reshape(value, -1)):
                    buffer[str(i)][row] = choice

            return write_choices
        case _:
            return lambda buffer, row, value: buffer.__setitem__(row, value)

    def write_parts(buffer: Any, row: int, value: Any) -> None:
        for ours, theirs, write in named:
            write(buffer[ours], row, value[theirs])

    return write_parts


def reader(space: gymnasium.Space) -> Callable[[Any, int], Any]:
    """A function (arrays, row) that gives one action as the Gymnasium space has it."""
    match space:
        case gymnasium.spaces.Discrete():
            return lambda arrays, row: int(arrays[row])
        case gymnasium.spaces.Dict():
            parts = {name: reader(part) for name, part in space.spaces.items()}
            return lambda arrays, row: {name: read(arrays[name], row) for name, read in parts.items()}
        case gymnasium.spaces.Tuple():
            items = [reader(part) for part in space.spaces]
            return lambda arrays, row: tuple(read(arrays[str(i)], row) for i, read in enumerate(items))
        case gymnasium.spaces.MultiDiscrete():
            shape = space.nvec.shape
            names = [str(i) for i in range(space.nvec.size)]
            return lambda arrays, row: np.array([arrays[name][row] for name in names], space.dtype).reshape(shape)
        case _:
            return lambda arrays, row: arrays[row].astype(space.dtype)
