"""How a network reads an observation follows from its space, in policies and critics alike."""

from __future__ import annotations

from jaxtyping import PRNGKeyArray

from policylab import spaces
from policylab.networks.bilinear import AnchoredSpace, Bilinear
from policylab.networks.mlp import MLP

Network = MLP | Bilinear


def network_for(
    observation: spaces.Space,
    outputs: int,
    *,
    beside: int = 0,
    width: int,
    depth: int,
    activation: str = "relu",
    layer_norm: bool = False,
    key: PRNGKeyArray,
) -> Network:
    """A network of a flattened observation of this space, joined with `beside` further numbers (an action).

    A perceptron; for an observation that was taken apart into an anchor and the difference to it, a bilinear pair of them.
    """
    size = spaces.size(observation)
    shape = {"width": width, "depth": depth, "activation": activation, "layer_norm": layer_norm}
    if isinstance(observation, AnchoredSpace):
        return Bilinear(size // 2, beside, outputs, rank=observation.rank, **shape, key=key)
    return MLP(size + beside, outputs, **shape, key=key)
