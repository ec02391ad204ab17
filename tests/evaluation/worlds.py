"""Small worlds whose recordings are clean by construction, and ways to spoil them: ground truth for the dataset card."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from policylab.data.recording import Recording
from policylab.experience import Spec
from policylab.spaces import Box, Discrete


def _recording(observed: list, action: list, reward: list, ended: list, space: Box, action_space: Box | Discrete) -> Recording:
    lengths = np.asarray([len(part) for part in action])
    terminal = np.zeros(lengths.sum(), bool)
    truncated = np.zeros(lengths.sum(), bool)
    last = np.cumsum(lengths) - 1
    terminal[last], truncated[last] = ended, ~np.asarray(ended)
    kind = np.float32 if isinstance(action_space, Box) else np.int64
    return Recording(
        np.concatenate(observed).astype(np.float32), np.concatenate(action).astype(kind),
        np.concatenate(reward).astype(np.float32), terminal, truncated, lengths, Spec(space, action_space),
    )  # fmt: skip


def walled_room(episodes: int = 60, length: int = 150, *, seed: int = 0) -> Recording:
    """A point mass that stops dead at the walls of a box and ends at a goal; some episodes wander, others steer to the goal."""
    random = np.random.default_rng(seed)
    observed, actions, rewards, ended = [], [], [], []
    for episode in range(episodes):
        place, speed = random.uniform(-0.9, 0.9, 2), np.zeros(2)
        seen, done, force = [np.concatenate([place, speed])], False, np.zeros(2)
        taken, gained = [], []
        for _ in range(length):
            wish = random.uniform(-1, 1, 2)
            force = 0.8 * force + 0.5 * wish if episode % 2 else np.clip(3 * (0.8 - place) - 2 * speed + 0.3 * wish, -1, 1)
            force = np.clip(force, -1, 1)
            speed = 0.95 * speed + 0.1 * force
            place = place + 0.1 * speed
            hit = np.abs(place) > 1
            place, speed = np.clip(place, -1, 1), np.where(hit, 0.0, speed)
            seen.append(np.concatenate([place, speed]))
            done = bool(np.linalg.norm(place - 0.8) < 0.1)
            taken.append(force)
            gained.append(float(done))
            if done:
                break
        observed.append(seen), actions.append(taken), rewards.append(gained), ended.append(done)
    return _recording(observed, actions, rewards, ended, Box((4,)), Box((2,), -1.0, 1.0))


def pendulum(episodes: int = 40, length: int = 200, *, seed: int = 0) -> Recording:
    """A torque-limited pendulum (cos, sin, velocity) with Gymnasium's reward, never terminal; from idle to energetic pilots."""
    random = np.random.default_rng(seed)
    observed, actions, rewards, ended = [], [], [], []
    for episode in range(episodes):
        angle, speed, torque = random.uniform(-np.pi, np.pi), random.uniform(-1, 1), 0.0
        gain = 2 * episode / episodes
        seen, taken, gained = [[np.cos(angle), np.sin(angle), speed]], [], []
        for _ in range(length):
            torque = np.clip(0.7 * torque + gain * random.standard_normal() + gain * np.sign(speed), -2, 2)
            wrapped = (angle + np.pi) % (2 * np.pi) - np.pi
            gained.append(-(wrapped**2 + 0.1 * speed**2 + 0.001 * torque**2))
            speed = np.clip(speed + 0.05 * (15 * np.sin(angle) + 3 * torque), -8, 8)
            angle = angle + 0.05 * speed
            taken.append([torque]), seen.append([np.cos(angle), np.sin(angle), speed])
        observed.append(seen), actions.append(taken), rewards.append(gained), ended.append(False)
    return _recording(observed, actions, rewards, ended, Box((3,)), Box((1,), -2.0, 2.0))


def heavy_tails(episodes: int = 60, length: int = 150, *, seed: int = 0) -> Recording:
    """A stable linear system in six dimensions whose disturbances are Student t with 3 degrees of freedom, quadratic costs."""
    random = np.random.default_rng(seed)
    matrix = np.linalg.qr(np.random.default_rng(5).standard_normal((6, 6)))[0] * 0.2 + np.eye(6) * 0.75
    gain = np.random.default_rng(6).standard_normal((3, 6)) * 0.5
    observed, actions, rewards, ended = [], [], [], []
    for _ in range(episodes):
        state, seen, taken, gained = random.standard_normal(6), [], [], []
        seen.append(state)
        for _ in range(length):
            action = np.clip(-gain @ state + 0.5 * random.standard_normal(3), -1, 1)
            gained.append(-np.sum(state**2) - 0.1 * np.sum(action**2))
            state = matrix @ state + gain.T @ action + 0.1 * random.standard_t(3, 6)
            taken.append(action), seen.append(state)
        observed.append(seen), actions.append(taken), rewards.append(gained), ended.append(False)
    return _recording(observed, actions, rewards, ended, Box((6,)), Box((3,), -1.0, 1.0))


def contacts(episodes: int = 60, length: int = 120, *, seed: int = 0) -> Recording:
    """Five oscillators of which three may touch a floor: their contact forces, clipped to [0, 1], are 0 in most episodes and large in
    the one of seven where the floor is near (as in MuJoCo's ant, which lands on its back now and then)."""
    random = np.random.default_rng(seed)
    observed, actions, rewards, ended = [], [], [], []
    for _ in range(episodes):
        place, speed, taken, gained = random.standard_normal(5) * 0.3, np.zeros(5), [], []
        floor, seen = -2.5 if random.uniform() < 6 / 7 else -0.1, []
        for step in range(length + 1):
            force = np.clip(40 * np.maximum(0.0, floor - place[:3]), 0.0, 1.0)
            seen.append(np.concatenate([place, speed, force]))
            if step == length:
                break
            action = random.uniform(-1, 1, 5)
            speed = 0.97 * speed - 0.1 * place + 0.1 * action + 0.05 * np.append(force, [0.0, 0.0])
            place = place + 0.2 * speed
            taken.append(action), gained.append(float(speed[3] - 0.1 * np.sum(action**2)))
        observed.append(seen), actions.append(taken), rewards.append(gained), ended.append(False)
    return _recording(observed, actions, rewards, ended, Box((13,)), Box((5,), -1.0, 1.0))


def falling_pole(episodes: int = 200, *, seed: int = 0) -> Recording:
    """Gymnasium's CartPole equations: two choices, reward 1 a step, terminal when the pole falls, cut after 200 steps."""
    random = np.random.default_rng(seed)
    observed, actions, rewards, ended = [], [], [], []
    for episode in range(episodes):
        state, done, taken = random.uniform(-0.05, 0.05, 4), False, []
        seen = [state]
        while not done and len(taken) < 200:
            _place, speed, angle, spin = state
            good = int(angle + 0.3 * spin > 0)
            choice = good if random.uniform() < (0.5, 0.7, 0.95)[episode % 3] else int(random.integers(2))
            push = 10.0 if choice else -10.0
            part = (push + 0.05 * spin**2 * np.sin(angle)) / 1.1
            bend = (9.8 * np.sin(angle) - np.cos(angle) * part) / (0.5 * (4 / 3 - 0.1 * np.cos(angle) ** 2 / 1.1))
            pull = part - 0.05 * bend * np.cos(angle) / 1.1
            state = state + 0.02 * np.asarray([speed, pull, spin, bend])
            done = bool(abs(state[0]) > 2.4 or abs(state[2]) > 0.2095)
            taken.append(choice), seen.append(state)
        observed.append(seen), actions.append(taken), rewards.append([1.0] * len(taken)), ended.append(done)
    return _recording(observed, actions, rewards, ended, Box((4,)), Discrete(2))


def gridworld(episodes: int = 150, size: int = 6, *, seed: int = 0) -> Recording:
    """A square grid, goal in the far corner, half of the moves at random; the state is the number of the cell."""
    random = np.random.default_rng(seed)
    observed, actions, rewards, ended = [], [], [], []
    for _ in range(episodes):
        place, done, taken, gained = np.zeros(2, int), False, [], []
        seen = [0]
        while not done and len(taken) < 60:
            choice = int(random.integers(4)) if random.uniform() < 0.5 else int(random.integers(2))
            place = np.clip(place + ((1, 0), (0, 1), (-1, 0), (0, -1))[choice], 0, size - 1)
            done = bool((place == size - 1).all())
            taken.append(choice), gained.append(float(done)), seen.append(place[0] * size + place[1])
        observed.append(seen), actions.append(taken), rewards.append(gained), ended.append(done)
    found = _recording(observed, actions, rewards, ended, Box(()), Discrete(4))
    return replace(found, observation=found.observation.astype(np.int64), spec=Spec(Discrete(size * size), Discrete(4)))


CLEAN: dict[str, Callable[..., Recording]] = {
    "walled_room": walled_room, "pendulum": pendulum, "heavy_tails": heavy_tails, "falling_pole": falling_pole,
    "gridworld": gridworld, "contacts": contacts,
}  # fmt: skip


def bandit(rows: int = 4000, *, choices: int = 10, seed: int = 0) -> Recording:
    """Impressions: 4 features, a logging policy with propensities from 0.02 on, clicks with a rate of some percent."""
    random = np.random.default_rng(seed)
    features = random.standard_normal((rows, 4)).astype(np.float32)
    logits = features @ np.random.default_rng(3).standard_normal((4, choices)) * 0.5
    chance = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    chance = 0.8 * chance + 0.2 / choices
    action = (random.uniform(size=(rows, 1)) > np.cumsum(chance, axis=1)).sum(axis=1).clip(max=choices - 1)
    reward = (random.uniform(size=rows) < 0.02 + 0.06 * (action == features[:, 0].clip(0, 1).round())).astype(np.float32)
    observed = np.repeat(features, 2, axis=0)
    flags = np.ones(rows, bool)
    return Recording(
        observed, action, reward, flags, ~flags, np.ones(rows, int), Spec(Box((4,)), Discrete(choices)),
        {"propensity": chance[np.arange(rows), action].astype(np.float32)},
    )  # fmt: skip
