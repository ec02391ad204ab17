"""The U-Net's parts against sums written out in NumPy, and its size against the published one."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from policylab.errors import BadInput
from policylab.networks.unet import Block, Convolution, Doubling, UNet, mish, parameters

KEY, RANDOM = jax.random.key(0), np.random.default_rng(0)


def test_mish_is_x_tanh_softplus_also_far_out():
    x = np.asarray([-90.0, -5.0, -0.5, 0.0, 0.5, 5.0, 90.0], np.float32)
    np.testing.assert_allclose(mish(jnp.asarray(x)), x * np.tanh(np.logaddexp(0.0, x)), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("kernel", "stride"), [(5, 1), (3, 2), (1, 1)])
def test_a_convolution_sums_over_its_window(kernel, stride):
    layer, x = Convolution(3, 4, kernel, stride=stride, key=KEY), RANDOM.normal(size=(8, 3)).astype(np.float32)
    bias = np.asarray(layer.bias)
    expected = np.zeros((8 // stride, 4)) + bias
    for out in range(8 // stride):
        for i in range(kernel):
            at = out * stride + i - kernel // 2
            if 0 <= at < 8:
                expected[out] += np.asarray(layer.weights[i]) @ x[at]
    np.testing.assert_allclose(layer(jnp.asarray(x.T)).T, expected, atol=1e-5)


def test_doubling_is_the_transposed_convolution_of_kernel_4_and_stride_2():
    layer, x = Doubling(3, key=KEY), RANDOM.normal(size=(5, 3)).astype(np.float32)
    even, odd = (np.asarray(half.weights).swapaxes(1, 2) for half in (layer.even, layer.odd))
    kernel = np.stack([odd[1], even[1], odd[0], even[0]])  # of out = 2 in - 1 + i, with one step cut off at either side
    expected = np.zeros((12, 3))
    for at in range(5):
        for i in range(4):
            expected[2 * at + i] += x[at] @ kernel[i]
    expected = expected[1:11] + np.tile([np.asarray(layer.even.bias), np.asarray(layer.odd.bias)], (5, 1))
    np.testing.assert_allclose(layer(jnp.asarray(x.T)).T, expected, atol=1e-5)


def test_a_block_normalises_groups_of_channels_over_all_steps():
    block, x = Block(3, 4, 3, 2, key=KEY), RANDOM.normal(size=(8, 3)).astype(np.float32)
    raw = np.asarray(block.convolution(jnp.asarray(x.T))).T
    halves = [raw[:, :2], raw[:, 2:]]
    normed = np.concatenate([(half - half.mean()) / np.sqrt(half.var() + 1e-5) for half in halves], axis=1)
    np.testing.assert_allclose(block(jnp.asarray(x.T)).T, mish(jnp.asarray(normed)), atol=1e-4)


def test_the_published_sizes_have_sixty_five_million_parameters():
    net = eqx.filter_eval_shape(
        lambda key: UNet(10, 16, 2, 16, widths=(256, 512, 1024), kernel=5, groups=8, embedding=256, key=key), KEY
    )
    assert (
        65.0e6
        < sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(net, lambda x: isinstance(x, jax.ShapeDtypeStruct))))
        < 65.5e6
    )


def test_it_maps_a_sequence_to_one_of_its_size_and_hears_condition_and_level():
    net = UNet(3, 4, 2, 5, widths=(8, 16), kernel=3, groups=4, embedding=8, key=KEY)
    run, x = jax.jit(lambda x: net(x)), RANDOM.normal(size=16).astype(np.float32)
    out = run(jnp.asarray(x))
    assert out.shape == (8,)
    assert parameters(net) == sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(net, eqx.is_array)))
    for place in (0, 3, 12):  # the condition, the sequence, the level
        assert np.abs(run(jnp.asarray(x + 0.5 * (np.arange(16) == place))) - out).max() > 1e-4


@pytest.mark.parametrize("wrong", [{"steps": 6}, {"kernel": 4}, {"groups": 3}])
def test_sizes_that_do_not_go_together_are_named(wrong):
    sizes = {"steps": 8, "kernel": 3, "groups": 4} | wrong
    steps = sizes.pop("steps")
    with pytest.raises(BadInput, match="U-Net of widths"):
        UNet(3, steps, 2, 5, widths=(8, 8, 8), embedding=8, key=KEY, **sizes)
