"""SequenceMatch: imitation of texts by matching occupancies of prefixes, with a backspace (Cundy and Ermon 2023, arXiv 2306.05426)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from policylab import spaces
from policylab.errors import BadInput
from policylab.experience import Spec, Tokens, Window
from policylab.hyperparameters import setting, settings
from policylab.learner import Clock, Learner, Request, Sometimes, Steps
from policylab.networks.optimisation import descend, trained
from policylab.policies.backtracking import Backtracking, BacktrackingPolicy
from policylab.policies.mistakes import with_mistakes
from policylab.policy import Form


class Traces(eqx.Module):
    """Logits along traces: of the action that was taken (`taken`), logsumexp before it (`here`) and after it (`after`), whether it counts
    (`learned`) and whether it is the end."""

    taken: Float[Array, "batch part"]
    here: Float[Array, "batch part"]
    after: Float[Array, "batch part"]
    learned: Bool[Array, "batch part"]
    ended: Bool[Array, "batch part"]


def occupied(
    traces: Traces, *, linear: float, half: float, square: Array | float, discount: Array | float, absorbing: str
) -> Float[Array, " batch"]:
    """sum_t discount^t [ linear r_t - half (V(s_t) - discount V(s_t+1)) - square r_t^2 ] of every trace, r_t = l(a_t|s_t) - discount V(s_t+1).

    After the end the text stays as it is for ever: with `absorbing` "loop" these steps, whose r is (1 - discount) V, are summed up in closed
    form; with "zero" V is 0 there.
    """
    length = traces.taken.shape[-1]
    power = discount ** jnp.arange(length)
    after = jnp.where(traces.ended & (absorbing == "zero"), 0.0, traces.after)
    each = lambda r, gap: linear * r - half * gap - square * r**2
    steps = each(traces.taken - discount * after, traces.here - discount * after) * power * traces.learned
    rest = (1.0 - discount) * traces.after
    loops = each(rest, rest) * power * discount / (1.0 - discount) * (traces.learned & traces.ended)
    return jnp.sum(steps + (loops if absorbing == "loop" else 0.0), axis=-1)


def matching(
    data: Traces,
    own: Traces,
    *,
    alpha: Array | float,
    discount: Array | float,
    divergence: str = "chi-square-mixture",
    absorbing: str = "loop",
) -> tuple[Float[Array, " batch"], Float[Array, " own"]]:
    """The terms of J of every trace of the data and of the model's own; J is the sum of their means."""
    of_data, of_own = {"chi-square-mixture": (0.125, 0.125), "chi-square": (0.25, 0.0), "none": (0.0, 0.0)}[divergence]
    with_ = {"half": 0.5, "discount": discount, "absorbing": absorbing}
    return (
        occupied(data, linear=1.0, square=of_data / alpha, **with_),
        occupied(own, linear=0.0, square=of_own / alpha, **with_),
    )


class Own(eqx.Module):
    """Prompts with the answers of the data and the traces that the policy wrote itself, the oldest replaced first, and where it did not slip;
    `count` of them so far."""

    prompt: Tokens
    answer: Tokens
    trace: Tokens
    meant: Bool[Array, "own part"]
    weight: Float[Array, " own"]
    count: Int[Array, ""]


@settings
class SequenceMatch(Learner):
    r"""States are texts, actions tokens, the end and the backspace; the logits are Q values: V(s) = logsumexp l(.|s), pi = softmax l.

        J = E_data[ r - r^2/8a ] - 1/2 E_data[ V(s) - g V(s') ] - 1/2 E_own[ V(s) - g V(s') ] - E_own[ r^2/8a ],   r = l(a|s) - g V(s')

    is the chi-square divergence to the mixture of both occupancies (section 3.2; `divergence` "chi-square" has E_data[ r^2/4a ] for both squares,
    and "none" no squares: discounted likelihood). Its maximum over l is where r = 4a (rho_data - rho) / (rho_data + rho). The loss is
    (1 - b) (minus log-likelihood) - b J, with b rising from 0 to `weight` while the run goes from `begin` to `begin + ramp`.

    Before each token of the data, with probability `chance`, a wrong one and a backspace are put (at most `most` in an answer); the wrong one
    is not learned. Own answers are written in the same world: their tokens slip as often, and what was not meant does not count. Every
    `refresh` updates the policy answers the prompts of the batch, and of the latest `replay` answers the own ones are drawn, beside those of
    the data to the same prompts. `weight=0` is cloning of corrected mistakes, `weight=0, chance=0` plain likelihood.

    The paper names no alpha, discount or ramp; ours are 1, 0.98, and all of the second half of the run.
    """

    alpha: float = setting(1.0, "scale of the divergence; the larger, the closer to likelihood", above=0.0)
    discount: float = setting(0.98, "per action", above=0.0, below=1.0)
    weight: float = setting(1.0, "of the matching objective in the end; the likelihood has the rest", low=0.0, high=1.0)
    begin: float = setting(0.5, "share of the run after which the matching objective comes in", low=0.0, high=1.0)
    ramp: float = setting(0.25, "share of the run in which its weight rises", above=0.0)
    chance: float = setting(0.1, "of a mistake and its correction before a token of the data", low=0.0, high=1.0)
    learning_rate: float = setting(3e-4, "of Adam", above=0.0)
    batch_size: int = setting(64, "texts per update, and as many own ones", low=1)
    most: int = setting(2, "mistakes put into an answer", low=0)
    refresh: int = setting(5, "updates from one drawing of own answers to the next", low=1)
    replay: int = setting(512, "own answers that are kept", low=1)
    divergence: Literal["chi-square-mixture", "chi-square", "none"] = setting(
        "chi-square-mixture", "chi-square-mixture, chi-square or none"
    )
    absorbing: Literal["loop", "zero"] = setting("loop", "value after the end: loop (it stays there for ever) or zero")
    policy: Form | None = setting(None, "the form of the policy; None is Backtracking()")

    title: ClassVar[str] = "Occupancy matching of texts, with a backspace"
    takes: ClassVar[tuple[str, ...]] = ("start",)

    @property
    def needs(self) -> Mapping[str, Request]:
        """Prompts and answers."""
        return {"steps": Steps(self.batch_size)}

    def init(self, spec: Spec, *, key: PRNGKeyArray, given: Mapping[str, Any] = {}) -> dict[str, Any]:
        """A fresh policy or `start`, and room for its own answers. Raises `BadInput` unless the policy has a backspace."""
        start = given["start"] if "start" in given else (self.policy or Backtracking()).build(spec, key=key)
        if not isinstance(start, BacktrackingPolicy):
            raise BadInput(
                f"SequenceMatch needs a policy with a backspace, not {type(start).__name__}: choose the form Backtracking"
            )
        empty = lambda length: Tokens(*(jnp.zeros((self.replay, length), jnp.int32) for _ in range(2)))
        meant = jnp.zeros((self.replay, start.trace), bool)
        prompt, answer = empty(spaces.size(spec.observation)), empty(spaces.size(spec.action))
        own = Own(prompt, answer, empty(start.trace), meant, jnp.zeros(self.replay), jnp.zeros((), jnp.int32))
        return {"policy": trained(start, optax.adam(self.learning_rate)), "own": own}

    def update(
        self, state: dict[str, Any], batch: Window, *, clock: Clock, key: PRNGKeyArray
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """One step on the mixed loss."""
        mistake_key, write_key, draw_key = jax.random.split(key, 3)
        policy: BacktrackingPolicy = state["policy"].model
        # Nothing is written, and nothing of it is read, before the matching objective counts. From then on the data are the answers to the
        # prompts of the own traces: the values of prompts, the largest part of both means, then cancel as they do where texts have none.
        share = self.weight * jnp.clip((clock.progress - self.begin) / self.ramp, 0.0, 1.0)
        soon = (self.weight > 0.0) & ((clock.step + self.refresh) / clock.total >= self.begin)
        renewed = lambda own: remembered(own, policy, batch, self.chance, write_key)
        own = jax.lax.cond(soon & (clock.step % self.refresh == 0), renewed, lambda own: own, state["own"])
        rows = jax.random.randint(draw_key, (self.batch_size,), 0, jnp.clip(own.count, 1, self.replay))
        kept = (own.prompt, own.answer, own.weight, own.trace, own.meant)
        *fresh, own_trace, meant = jax.tree.map(lambda leaf: leaf[rows], kept)
        given = [batch.observation, batch.action, batch.weight]
        prompt, answer, weight = jax.tree.map(lambda a, b: jnp.where(share > 0.0, a, b), fresh, given)
        shown = with_mistakes(
            answer,
            chance=self.chance,
            most=self.most,
            ordinary=policy.ordinary.ids,
            backspace=policy.backspace,
            pad=policy.pad,
            key=mistake_key,
        )
        mean = lambda each: jnp.sum(weight * each) / jnp.maximum(jnp.sum(weight), 1e-6)

        def loss(policy: BacktrackingPolicy) -> tuple[Array, tuple[Array, Array]]:
            data = along(policy, prompt, shown.trace, shown.learned)
            likelihood = mean(jnp.sum((data.taken - data.here) * data.learned, axis=-1))

            def objective() -> Array:
                written = along(policy, prompt, own_trace, meant)
                of_data, of_own = matching(
                    data,
                    written,
                    alpha=self.alpha,
                    discount=self.discount,
                    divergence=self.divergence,
                    absorbing=self.absorbing,
                )
                return mean(of_data) + mean(of_own)

            matched = jax.lax.cond(share > 0.0, objective, lambda: jnp.zeros(()))
            return -(1.0 - share) * likelihood - share * matched, (likelihood, matched)

        trained_policy, _, (likelihood, matched) = descend(state["policy"], loss, optax.adam(self.learning_rate))
        counted = Sometimes(matched, share > 0.0)
        return {"policy": trained_policy, "own": own}, {"imitation_loss": -likelihood, "matching": counted}

    def products(self, state: dict[str, Any]) -> dict[str, Any]:
        """`policy` and `explorer` (the policy sampling)."""
        return {"policy": state["policy"].model, "explorer": state["policy"].model}


def along(policy: BacktrackingPolicy, prompt: Tokens, trace: Tokens, learned: Bool[Array, "batch part"]) -> Traces:
    """The logits of a policy, at temperature 1, along traces [batch, part] after prompts [batch, prompt]."""
    before, after = policy.trace_logits(prompt, trace)
    taken = jnp.take_along_axis(before, trace.ids[..., None], axis=-1)[..., 0]
    ended = jnp.any(trace.ids[..., None] == jnp.asarray(policy.end, jnp.int32), axis=-1)
    total = lambda logits: jax.nn.logsumexp(logits, axis=-1)
    return Traces(taken, total(before), total(after), learned, ended)


def remembered(own: Own, policy: BacktrackingPolicy, batch: Window, slip: Array | float, key: PRNGKeyArray) -> Own:
    """The own traces with new ones to the prompts of a batch in the place of the oldest, written by somebody who slips as often."""
    room = own.weight.shape[0]
    kept = min(batch.weight.shape[0], room)
    prompt, answer, weight = jax.tree.map(lambda leaf: leaf[:kept], (batch.observation, batch.action, batch.weight))
    written = jax.lax.stop_gradient(policy.write(prompt, jax.random.split(key, kept), slip=slip))
    meant = (written.trace.kind == 2) & ~written.slipped
    places = (own.count + jnp.arange(kept)) % room
    old, new = (own.prompt, own.answer, own.trace, own.meant, own.weight), (prompt, answer, written.trace, meant, weight)
    return Own(*jax.tree.map(lambda table, rows: table.at[places].set(rows), old, new), own.count + kept)
