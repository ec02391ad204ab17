import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from policylab.environments import calling

LIKE = {"sum": jax.ShapeDtypeStruct((3,), jnp.float32), "any": jax.ShapeDtypeStruct((), bool)}


def total(parts):
    return {"sum": parts["a"].sum(axis=0) + parts["b"], "any": np.any(parts["b"] > 2)}


@pytest.mark.parametrize("taken", [True, False])
def test_the_host_is_called_in_turn_and_gives_every_kind_of_result(taken, monkeypatch):
    if not taken:  # as on another kind of device, or with a version of XLA that refuses the handler
        monkeypatch.setattr(calling, "_registered", lambda: False)

    @jax.jit
    def program(b):
        def body(_, b):
            made = calling.call_host(total, LIKE, {"a": jnp.ones((2, 3)), "b": b})
            return jnp.where(made["any"], -1.0, made["sum"])

        return jax.lax.fori_loop(0, 2, body, b)

    np.testing.assert_array_equal(program(jnp.array([-1.0, -0.5, 0.0])), [3.0, 3.5, 4.0])
    np.testing.assert_array_equal(program(jnp.array([0.0, 0.5, 1.5])), [-1.0, -1.0, -1.0])


def test_a_result_of_another_shape_is_refused():
    with pytest.raises(Exception, match=r"has shape \(2,\), not \(3,\)"):
        jax.block_until_ready(jax.jit(lambda: calling.call_host(lambda: np.zeros(2), LIKE["sum"]))())
    calling.forget_failure()


def test_a_failure_is_told_once():
    program = """
import gymnasium, jax
from policylab.environments.hosted import Gymnasium, explained
class Broken(gymnasium.Env):
    observation_space = action_space = gymnasium.spaces.Box(-1, 1, (1,))
    moves = 0
    def reset(self, *, seed=None, options=None):
        return self.observation_space.sample(), {}
    def step(self, action):
        Broken.moves += 1
        if Broken.moves > 1: raise RuntimeError("the arm is stuck")
        return action, 0.0, False, False, {}
environment, key = Gymnasium(Broken), jax.random.key(0)
try:
    with explained():
        jax.block_until_ready(jax.jit(lambda: environment.step(environment.reset(key)[0], jax.numpy.zeros(1), key))())
except RuntimeError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "the arm is stuck\n"
    assert "atexit" not in done.stderr
