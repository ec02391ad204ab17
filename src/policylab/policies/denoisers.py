"""Diffusion over sequences of actions by networks that know that they are sequences: a U-Net, and a transformer (Chi et al. 2023,
"Diffusion Policy", arXiv 2303.04137, section 3.1)."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from policylab import spaces
from policylab.errors import BadInput
from policylab.experience import Spec
from policylab.networks.mlp import MLP
from policylab.networks.transformer import Transformer
from policylab.networks.unet import UNet
from policylab.policies.diffusion import Diffusion, DiffusionPolicy
from policylab.policies.generative import EMBEDDING


def sequence(spec: Spec, name: str) -> tuple[int, int]:
    """How many actions, of how many numbers, one action of this spec is. Raises `BadInput` where it is no sequence."""
    shape = spec.action.shape if isinstance(spec.action, spaces.Box) else ()
    if len(shape) != 2:
        raise BadInput(f"{name} denoises sequences of actions and this action is a single one: write Receding(policy={name}())")
    return shape[0], shape[1]


class PlanDiffusion(DiffusionPolicy):
    """A `DiffusionPolicy` whose estimates of the clean plan stay within the range of actions, as the authors' sampler keeps them.

    Training as "ddpm" begins with noise some 150 times as large as an action; there, a small error of the network would otherwise
    lead to a plan far outside that no later level mends.
    """

    def denoise(
        self, observation: PyTree, noisy: Float[Array, " action"], level: Float[Array, ""], memory: PyTree = None
    ) -> Float[Array, " action"]:
        """The estimate of the clean plan in units of half the action range, between -1 and 1 where actions have bounds."""
        clean = DiffusionPolicy.denoise(self, observation, noisy, level, memory)
        return jnp.clip(clean, -1.0, 1.0) if self.action_space.bounded else clean


def denoised_by(form: Diffusion, network: eqx.Module, spec: Spec, *, key: PRNGKeyArray) -> PlanDiffusion:
    """The policy that `form` stands for, with this network in the place of its perceptron."""
    policy = Diffusion.build(replace(form, width=1, depth=1), spec, key=key)
    parts: dict[str, Any] = {part.name: getattr(policy, part.name) for part in fields(policy)}
    parts["network"] = network
    return PlanDiffusion(**parts)


@dataclass(frozen=True)
class UNetDiffusion(Diffusion):
    """`Diffusion` by a U-Net over the steps of a plan, for `Receding`. Defaults are those of the paper for low-dimensional observations
    (65 million parameters at 2 observations of 10 numbers), trained as "ddpm"; there, the level is told by 256 numbers that an MLP makes
    of sines, here of fewer sines. `width`, `depth`, `activation` and `layer_norm` are not used."""

    training: Literal["edm", "ddpm"] = "ddpm"
    widths: tuple[int, ...] = (256, 512, 1024)
    kernel: int = 5
    groups: int = 8
    embedding: int = 256

    def build(self, spec: Spec, *, key: PRNGKeyArray) -> PlanDiffusion:
        """Raises `BadInput` unless an action is a sequence of actions, and for sizes that do not go together."""
        steps, channels = sequence(spec, "UNetDiffusion")
        policy_key, network_key = jax.random.split(key)
        network = UNet(
            spaces.size(spec.observation), steps, channels, EMBEDDING, widths=self.widths, kernel=self.kernel, groups=self.groups,
            embedding=self.embedding, key=network_key,
        )  # fmt: skip
        return denoised_by(self, network, spec, key=policy_key)


class DenoisingTransformer(eqx.Module):
    """Tokens: the level, each observation, each noisy action; a causal transformer; what stands at an action is its denoised value."""

    told: MLP
    observed: MLP
    noisy: MLP
    out: MLP
    transformer: Transformer
    seen: int = eqx.field(static=True)
    steps: int = eqx.field(static=True)

    def __init__(
        self, seen: int, observation: int, steps: int, channels: int, level: int, *, width: int, layers: int, heads: int,
        key: PRNGKeyArray,
    ):  # fmt: skip
        keys = jax.random.split(key, 5)
        linear = lambda inputs, outputs, key: MLP(inputs, outputs, width=1, depth=0, key=key)
        self.told, self.observed = linear(level, width, keys[0]), linear(observation, width, keys[1])
        self.noisy, self.out = linear(channels, width, keys[2]), linear(width, channels, keys[3])
        self.transformer = Transformer(width, layers=layers, heads=heads, key=keys[4])
        self.seen, self.steps = seen, steps

    def __call__(self, x: Float[Array, " input"]) -> Float[Array, " output"]:
        """One sample: condition, sequence and level in one vector."""
        size = self.observed.layers[0].weight.shape[0]
        channels = self.noisy.layers[0].weight.shape[0]
        condition, noisy, level = jnp.split(x, [self.seen * size, self.seen * size + self.steps * channels])
        observed = jax.vmap(self.observed)(condition.reshape(self.seen, size))
        actions = jax.vmap(self.noisy)(noisy.reshape(self.steps, channels))
        tokens = jnp.concatenate([self.told(level)[None], observed, actions])
        return jax.vmap(self.out)(self.transformer(tokens, jnp.ones(len(tokens), bool))[-self.steps :]).reshape(-1)


@dataclass(frozen=True)
class TransformerDiffusion(Diffusion):
    """`Diffusion` by a causal transformer over level, observations and the actions of a plan, for `Receding`: small, and it needs no
    powers of two. The paper's one attends to the observations in a second stream; here all are tokens of one."""

    training: Literal["edm", "ddpm"] = "ddpm"
    width: int = 64
    layers: int = 3
    heads: int = 4

    def build(self, spec: Spec, *, key: PRNGKeyArray) -> PlanDiffusion:
        """Raises `BadInput` unless an action is a sequence of actions."""
        steps, channels = sequence(spec, "TransformerDiffusion")
        shape = spec.observation.shape if isinstance(spec.observation, spaces.Box) and len(spec.observation.shape) == 2 else ()
        seen, size = shape or (1, spaces.size(spec.observation))
        policy_key, network_key = jax.random.split(key)
        network = DenoisingTransformer(
            seen, size, steps, channels, EMBEDDING, width=self.width, layers=self.layers, heads=self.heads, key=network_key
        )
        return denoised_by(self, network, spec, key=policy_key)
