"""Diffusion policies: actions drawn from noise, level by level (Karras et al. 2022, arXiv 2206.00364; Ho, Jain and Abbeel 2020)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from policylab import spaces
from policylab.errors import BadInput
from policylab.experience import Spec, Window
from policylab.networks.frozen import Frozen, Normaliser, Scaler, action_scaler, observation_normaliser
from policylab.networks.reading import network_for
from policylab.policies.continuous import box_of
from policylab.policies.generative import EMBEDDING, FromNoNoise, action_of, embed
from policylab.policy import Form, Policy

_WORDS = {
    "sampler": ("ddim", "euler", "heun", "ancestral"),
    "spacing": ("exponential", "karras"),
    "training": ("edm", "ddpm"),
}  # of the form's settings


class Levels(Frozen):
    """The noise levels that a sampler visits, the largest first and 0 last."""

    sigma: Float[Array, " level"]


def schedule(kind: str, steps: int, low: float, high: float) -> Float[np.ndarray, " level"]:
    """`steps` levels from `high` down to `low`, then 0: spaced evenly in sigma^(1/7) ("karras", equation 5) or in log sigma ("exponential")."""
    ramp = np.linspace(0.0, 1.0, steps) if steps > 1 else np.zeros(1)
    if kind == "karras":
        levels = (high ** (1 / 7) + ramp * (low ** (1 / 7) - high ** (1 / 7))) ** 7
    else:
        levels = np.exp(np.log(high) + ramp * (np.log(low) - np.log(high)))
    return np.append(levels, 0.0).astype(np.float32)


class DiffusionPolicy(Policy):
    """D(x; s, sigma) = c_skip x + c_out F(c_in x, s, sigma) estimates the clean action x0 (in [-1, 1] per dimension) of x = x0 + sigma n.

    "edm": c_skip = d^2 / (sigma^2 + d^2), c_out = sigma d / sqrt(sigma^2 + d^2), c_in = 1 / sqrt(sigma^2 + d^2), with d = `data_std`
    (Karras et al., table 1); "ddpm": F predicts the noise, c_skip = 1, c_out = -sigma, c_in = 1 / sqrt(sigma^2 + 1), which is DDPM in
    the variable x = x_ddpm / sqrt(alpha_bar), sigma^2 = (1 - alpha_bar) / alpha_bar. In this variable DDIM is Euler's method.

    With a part of the observation called `masked`, the denoiser also works without it (zeros), and samples follow
    D_without + guidance (D_with - D_without) (Ho and Salimans 2022): 0 ignores the part, 1 uses it, more exaggerates.
    """

    network: Callable[[Array], Array]
    levels: Levels
    guidance: Float[Array, ""]
    normaliser: Normaliser
    scaler: Scaler
    observation_space: spaces.Space = eqx.field(static=True)
    action_space: spaces.Box = eqx.field(static=True)
    training: str = eqx.field(static=True)
    sampler: str = eqx.field(static=True)
    data_std: float = eqx.field(static=True)
    sigma_range: tuple[float, float] = eqx.field(static=True)
    masked: str = eqx.field(static=True)
    mask_share: float = eqx.field(static=True)

    @property
    def noise_space(self) -> spaces.Box:
        """Where `decode` starts: one number per action dimension, standard normal."""
        return spaces.Box((spaces.size(self.action_space),))

    def _condition(self, observation: PyTree, with_part: Array | bool = True) -> Float[Array, " size"]:
        flat = self.normaliser(spaces.flatten(self.observation_space, observation))
        if not self.masked:
            return flat
        assert isinstance(self.observation_space, spaces.Composite)
        kept = [jnp.full(spaces.size(part), name != self.masked) for name, part in self.observation_space.parts]
        return jnp.where(jnp.concatenate(kept) | jnp.asarray(with_part), flat, 0.0)

    def _raw(
        self, condition: Float[Array, " size"], noisy: Float[Array, " action"], sigma: Float[Array, ""]
    ) -> tuple[Float[Array, " action"], tuple[Array, Array]]:
        """F, and c_skip with c_out."""
        if self.training == "edm":
            total, d = jnp.sqrt(sigma**2 + self.data_std**2), self.data_std
            skip, out, scale = d**2 / total**2, sigma * d / total, 1.0 / total
        else:
            skip, out, scale = jnp.ones(()), -sigma, jax.lax.rsqrt(sigma**2 + 1.0)
        level = embed(jnp.log(jnp.maximum(sigma, 1e-6)) / 4.0)
        return self.network(jnp.concatenate([condition, scale * noisy, level])), (skip, out)

    def _clean(self, condition: Array, noisy: Array, sigma: Array) -> Float[Array, " action"]:
        raw, (skip, out) = self._raw(condition, noisy, sigma)
        return skip * noisy + out * raw

    def denoise(
        self, observation: PyTree, noisy: Float[Array, " action"], level: Float[Array, ""], memory: PyTree = None
    ) -> Float[Array, " action"]:
        """The estimate of the clean action, in units of half the action range, from `noisy` = clean + level * noise."""
        if not self.masked:
            return self._clean(self._condition(observation), noisy, level)
        free = self._clean(self._condition(observation, False), noisy, level)
        return free + self.guidance * (self._clean(self._condition(observation), noisy, level) - free)

    def decode(self, observation: PyTree, noise: Float[Array, " action"], memory: PyTree = None) -> PyTree:
        """The action that this noise leads to: an ordinary differential equation from the largest level to 0."""
        method = "heun" if self.sampler == "heun" else "ddim"
        return action_of(self.action_space, self.scaler, self._solve(observation, noise, method, jax.random.key(0)))

    def _solve(self, observation: PyTree, noise: Array, method: str, key: PRNGKeyArray) -> Float[Array, " action"]:
        sigma = self.levels.sigma

        def step(x: Array, level: tuple[Array, Array, PRNGKeyArray]) -> tuple[Array, None]:
            now, after, step_key = level
            slope = (x - self.denoise(observation, x, now)) / now
            if method == "ancestral":  # noise is added back so that every level has its marginal distribution
                up = jnp.sqrt(jnp.maximum(after**2 * (now**2 - after**2) / now**2, 0.0))
                down = jnp.sqrt(jnp.maximum(after**2 - up**2, 0.0))
                return x + (down - now) * slope + up * jax.random.normal(step_key, x.shape), None
            euler = x + (after - now) * slope
            if method == "ddim":
                return euler, None
            again = (euler - self.denoise(observation, euler, jnp.maximum(after, 1e-6))) / jnp.maximum(after, 1e-6)
            return jnp.where(after > 0, x + (after - now) * 0.5 * (slope + again), euler), None

        keys = jax.random.split(key, len(sigma) - 1)
        return jax.lax.scan(step, sigma[0] * noise, (sigma[:-1], sigma[1:], keys))[0]

    def act(self, observation: PyTree, memory: PyTree, *, key: PRNGKeyArray) -> tuple[PyTree, PyTree]:
        """A sample in environment units."""
        noise_key, solve_key = jax.random.split(key)
        noise = jax.random.normal(noise_key, self.noise_space.shape)
        return action_of(self.action_space, self.scaler, self._solve(observation, noise, self.sampler, solve_key)), memory

    def mode(self) -> Policy:
        """The policy that starts from noise 0 and adds none."""
        return FromNoNoise(self)

    def imitation_loss(self, window: Window, *, key: PRNGKeyArray) -> Float[Array, " time"]:
        """|F - target|^2 as a mean over action dimensions, at a level drawn from the training distribution: for "edm" log-logistic around
        `data_std` with scale 0.5 (as BESO), cut to the range of levels; for "ddpm" uniform over 1000 steps of beta from 1e-4 to 0.02.
        """

        def one(observation: PyTree, action: PyTree, key: PRNGKeyArray) -> Float[Array, ""]:
            level_key, noise_key, mask_key = jax.random.split(key, 3)
            clean = self.scaler.to_unit(spaces.flatten(self.action_space, action))
            sigma, noise = self._training_level(level_key), jax.random.normal(noise_key, clean.shape)
            noisy = clean + sigma * noise
            condition = self._condition(observation, ~jax.random.bernoulli(mask_key, self.mask_share))
            raw, (skip, out) = self._raw(condition, noisy, sigma)
            return jnp.mean((raw - (clean - skip * noisy) / out) ** 2)

        return jax.vmap(one)(window.observation, window.action, jax.random.split(key, len(window.valid))) * window.valid

    def _training_level(self, key: PRNGKeyArray) -> Float[Array, ""]:
        if self.training == "ddpm":
            kept = jnp.cumprod(1.0 - jnp.linspace(1e-4, 0.02, 1000))[jax.random.randint(key, (), 0, 1000)]
            return jnp.sqrt((1.0 - kept) / kept)
        low, high = (jax.nn.sigmoid((jnp.log(s) - jnp.log(self.data_std)) / 0.5) for s in self.sigma_range)
        share = jax.random.uniform(key, minval=low, maxval=high)
        return self.data_std * jnp.exp(0.5 * jnp.log(share / (1.0 - share)))


@dataclass(frozen=True)
class Diffusion(Form):
    """A perceptron that denoises actions. `levels` is how many times it is asked per action; `sampler` "ddim" or "euler" (in this variable
    the same), "heun" (asks twice per level) or "ancestral" (adds noise back). `training` "edm" goes down from `sigma_range`, "ddpm" from
    the levels of its 1000 training steps. `masked` names a part of the observation, such as a goal, that is hidden with `mask_share`."""

    width: int = 256
    depth: int = 3
    activation: str = "gelu"
    layer_norm: bool = False
    levels: int = 10
    sampler: Literal["ddim", "euler", "heun", "ancestral"] = "ddim"
    spacing: Literal["exponential", "karras"] = "exponential"
    training: Literal["edm", "ddpm"] = "edm"
    sigma_range: tuple[float, float] = (0.005, 1.0)
    data_std: float = 0.5
    masked: str = ""
    mask_share: float = 0.1
    guidance: float = 1.0
    normalise: bool = True

    def build(self, spec: Spec, *, key: PRNGKeyArray) -> DiffusionPolicy:
        """Raises `BadInput` unless actions are a Box, `masked`, where given, is a part of the observation, and every word is one of those
        listed."""
        space = box_of(spec, "Diffusion")
        for name, words in _WORDS.items():
            if (said := getattr(self, name)) not in words:
                raise BadInput(f"Diffusion.{name} is {said!r}: choose one of {', '.join(words)}")
        parts = dict(spec.observation.parts) if isinstance(spec.observation, spaces.Composite) else {}
        if self.masked and self.masked not in parts:
            there = ", ".join(parts) or "no named parts"
            raise BadInput(f"Diffusion masks the part {self.masked!r} but the observation has {there}: name one of its parts")
        if self.levels < 1:
            raise BadInput(f"Diffusion.levels is {self.levels}: give at least 1")
        low, high = self.sigma_range
        if self.training == "ddpm":
            kept = np.cumprod(1.0 - np.linspace(1e-4, 0.02, 1000))
            low, high = (float(np.sqrt((1 - k) / k)) for k in (kept[0], kept[-1]))
        if not 0 < low < high:
            raise BadInput(f"Diffusion.sigma_range is {self.sigma_range}: give two levels above 0, the smaller one first")
        size = spaces.size(space)
        network = network_for(
            spec.observation, size, beside=size + EMBEDDING, width=self.width, depth=self.depth,
            activation=self.activation, layer_norm=self.layer_norm, key=key,
        )  # fmt: skip
        return DiffusionPolicy(
            network, Levels(jnp.asarray(schedule(self.spacing, self.levels, low, high))), jnp.asarray(self.guidance, jnp.float32),
            observation_normaliser(spec, enabled=self.normalise), action_scaler(space, spec.statistics.get("action")),
            spec.observation, space, self.training, "ddim" if self.sampler == "euler" else self.sampler, self.data_std, (low, high),
            self.masked,
            self.mask_share if self.masked else 0.0,
        )  # fmt: skip
