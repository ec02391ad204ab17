"""How Hugging Face names things: config.json <-> `Architecture`, and the tensors of a folder <-> the arrays of a `Decoder`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from policylab.errors import BadInput
from policylab.networks.decoder import Architecture, Decoder
from policylab.networks.rotary import Stretch

# What a setting must be where it is present: with any other value the network would compute something else.
_MUST = {
    "attention_bias": (False,), "mlp_bias": (False,), "use_sliding_window": (False,), "hidden_act": ("silu", "swish"),
    "activation_function": ("gelu_new", "gelu_pytorch_tanh"), "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,), "add_cross_attention": (False,),
}  # fmt: skip
_FAMILIES = {"llama": "Llama", "qwen2": "Qwen2", "qwen3": "Qwen3", "gpt2": "GPT2"}

# ours: theirs, below a layer. Their matrices are [output, input] but for GPT-2's.
_ROTARY = {
    "attention_norm": "input_layernorm", "query": "self_attn.q_proj", "key": "self_attn.k_proj", "value": "self_attn.v_proj",
    "out": "self_attn.o_proj", "query_norm": "self_attn.q_norm", "key_norm": "self_attn.k_norm",
    "forward_norm": "post_attention_layernorm", "gate": "mlp.gate_proj", "up": "mlp.up_proj", "down": "mlp.down_proj",
}  # fmt: skip
_GPT2 = {
    "attention_norm": "ln_1", "out": "attn.c_proj", "forward_norm": "ln_2", "up": "mlp.c_fc", "down": "mlp.c_proj",
}  # fmt: skip


def family_of(architecture: Architecture) -> str:
    """The `model_type` that computes this. Raises `BadInput` where none does."""
    a = architecture
    shape = (a.positions, a.norm, a.forward, a.bias)
    if shape == ("learned", "layer", "gelu", True) and a.tied and a.groups == a.heads and a.size * a.heads == a.width:
        return "gpt2"
    if shape == ("rotary", "rms", "swiglu", False) and not (a.head_norm and a.attention_bias):
        return "qwen3" if a.head_norm else "qwen2" if a.attention_bias else "llama"
    raise BadInput(f"no family of checkpoint folders computes {a}: use the settings of GPT-2, Llama, Qwen2 or Qwen3")


def architecture_of(config: Mapping[str, Any], where: str) -> Architecture:
    """The architecture that config.json describes. Raises `BadInput` for a family or a setting that there is not."""
    kind = config.get("model_type")
    if kind not in _FAMILIES:
        raise BadInput(f"{where} is a model of type {kind!r}: policylab reads {', '.join(_FAMILIES)}")
    for name, good in _MUST.items():
        if config.get(name, good[0]) not in good:
            raise BadInput(f"{where} has {name} {config[name]!r}, which policylab does not compute: only {good[0]!r}")
    dtype = config.get("dtype") or config.get("torch_dtype") or "float32"
    dtype = dtype if dtype in ("float32", "bfloat16") else "float32"  # half precision is widened: nothing is lost
    try:
        if kind == "gpt2":
            width = config["n_embd"]
            return Architecture(
                vocabulary=config["vocab_size"], width=width, layers=config["n_layer"], heads=config["n_head"],
                groups=config["n_head"], size=width // config["n_head"], hidden=config.get("n_inner") or 4 * width,
                context=config["n_positions"], positions="learned", norm="layer", forward="gelu", bias=True,
                epsilon=config.get("layer_norm_epsilon", 1e-5), dtype=dtype,
            )  # fmt: skip
        base, stretch = _rotation(config, where)
        heads = config["num_attention_heads"]
        return Architecture(
            vocabulary=config["vocab_size"], width=config["hidden_size"], layers=config["num_hidden_layers"], heads=heads,
            groups=config.get("num_key_value_heads") or heads,
            size=config.get("head_dim") or (128 if kind == "qwen3" else config["hidden_size"] // heads),
            hidden=config["intermediate_size"], context=config["max_position_embeddings"],
            attention_bias=kind == "qwen2", head_norm=kind == "qwen3", tied=config.get("tie_word_embeddings", False),
            epsilon=config.get("rms_norm_eps", 1e-6), base=base, stretch=stretch, dtype=dtype,
        )  # fmt: skip
    except KeyError as missing:
        raise BadInput(f"{where} does not say {missing}: it is damaged, save the checkpoint again") from None
    except TypeError:
        raise BadInput(f"{where} has a setting of a wrong type: it is damaged, save the checkpoint again") from None


def _rotation(config: Mapping[str, Any], where: str) -> tuple[float, Stretch | None]:
    """Base and stretch of rotary positions, as transformers 5 (`rope_parameters`) or 4 (`rope_theta`, `rope_scaling`) write them."""
    rope = config.get("rope_parameters") or {
        "rope_theta": config.get("rope_theta", 10_000.0),
        **(config.get("rope_scaling") or {}),
    }
    base, kind = (
        float(rope.get("rope_theta", config.get("rope_theta", 10_000.0))),
        rope.get("rope_type", rope.get("type", "default")),
    )
    if kind == "default":
        return base, None
    if kind != "llama3":
        raise BadInput(f"{where} stretches its rotary positions by {kind!r}: policylab reads 'default' and 'llama3'")
    numbers = (rope["factor"], rope["low_freq_factor"], rope["high_freq_factor"])
    return base, Stretch(*map(float, numbers), original=int(rope["original_max_position_embeddings"]))


def config_of(architecture: Architecture) -> dict[str, Any]:
    """The config.json of an architecture, readable by transformers 4 and 5; without the ids of special tokens."""
    a, kind = architecture, family_of(architecture)
    shared = {
        "model_type": kind, "architectures": [f"{_FAMILIES[kind]}{'LMHeadModel' if kind == 'gpt2' else 'ForCausalLM'}"],
        "vocab_size": a.vocabulary, "dtype": a.dtype, "torch_dtype": a.dtype, "tie_word_embeddings": a.tied, "use_cache": True,
    }  # fmt: skip
    if kind == "gpt2":
        return shared | {
            "n_embd": a.width, "n_layer": a.layers, "n_head": a.heads, "n_inner": a.hidden, "n_positions": a.context,
            "activation_function": "gelu_new", "layer_norm_epsilon": a.epsilon,
        }  # fmt: skip
    scaling: dict[str, Any] = {}
    if a.stretch is not None:
        numbers = {"factor": a.stretch.factor, "low_freq_factor": a.stretch.low, "high_freq_factor": a.stretch.high}
        scaling = {"rope_type": "llama3", **numbers, "original_max_position_embeddings": a.stretch.original}
    return shared | {
        "hidden_size": a.width, "num_hidden_layers": a.layers, "num_attention_heads": a.heads,
        "num_key_value_heads": a.groups, "head_dim": a.size, "intermediate_size": a.hidden,
        "max_position_embeddings": a.context, "hidden_act": "silu", "rms_norm_eps": a.epsilon, "rope_theta": a.base,
        "rope_scaling": scaling or None, "rope_parameters": {"rope_theta": a.base, **(scaling or {"rope_type": "default"})},
    }  # fmt: skip


def shapes_of(architecture: Architecture) -> Decoder:
    """The decoder of an architecture as shapes alone."""
    return eqx.filter_eval_shape(lambda: Decoder(architecture, key=jax.random.key(0)))


def as_dtype(network: Decoder, dtype: str) -> Decoder:
    """The same decoder with parameters of another kind of number."""
    kind: Any = dtype
    shapes = shapes_of(replace(network.architecture, dtype=kind))
    leaves = [leaf.astype(dtype) for leaf in jax.tree.leaves(network)]
    return jax.tree.unflatten(jax.tree.structure(shapes), leaves)


def tensors_of(network: Decoder) -> dict[str, np.ndarray]:
    """The arrays of a decoder by their names in a checkpoint folder."""
    gpt2, found = family_of(network.architecture) == "gpt2", {}
    thirds: dict[str, dict[int, np.ndarray]] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(jax.device_get(network)):
        name, change = _place(_dotted(path), gpt2)
        rows = enumerate(leaf) if "{}" in name else [(0, leaf)]
        for i, array in rows:
            if isinstance(change, int):
                thirds.setdefault(name.format(i), {})[change] = array
            else:
                found[name.format(i)] = array.T if change == "transposed" else array
    for name, parts in thirds.items():
        found[name] = np.concatenate([parts[j] for j in range(3)], axis=-1)
    return {name: np.ascontiguousarray(value) for name, value in found.items()}


def decoder_from(architecture: Architecture, read: Callable[[str], np.ndarray]) -> Decoder:
    """The decoder whose arrays `read(name)` gives. Raises `BadInput` for one of another shape."""
    gpt2, dtype, shapes = family_of(architecture) == "gpt2", jnp.dtype(architecture.dtype), shapes_of(architecture)

    def one(name: str, change: str | int, shape: tuple[int, ...]) -> np.ndarray:
        wanted = (*shape[:-1], 3 * shape[-1]) if isinstance(change, int) else shape[::-1] if change else shape
        array = read(name)
        if array.shape != wanted:
            raise BadInput(f"the checkpoint's tensor {name} has shape {array.shape}, where config.json asks for {wanted}")
        if isinstance(change, int):
            return np.split(array, 3, axis=-1)[change]
        return array.T if change == "transposed" else array

    leaves = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(shapes):
        name, change = _place(_dotted(path), gpt2)
        if "{}" in name:
            array = np.stack([one(name.format(i), change, leaf.shape[1:]) for i in range(architecture.layers)])
        else:
            array = one(name, change, leaf.shape)
        leaves.append(jnp.asarray(array.astype(dtype)))
    return jax.tree.unflatten(jax.tree.structure(shapes), leaves)


def _dotted(path: tuple) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")


def _place(path: str, gpt2: bool) -> tuple[str, str | int]:
    """The tensor that holds the array at `path` of a decoder ("{}" stands for the layer), and how: as it is (""), "transposed", or as one
    third of its last axis (0, 1, 2)."""
    *owner, part = path.split(".")
    tail = "bias" if part == "bias" else "weight"
    matrix = "transposed" if part == "weight" and not gpt2 else ""  # theirs are [output, input] but for GPT-2's
    match owner:
        case []:
            tables = (
                {"embedding": "transformer.wte", "positions": "transformer.wpe"}
                if gpt2
                else {"embedding": "model.embed_tokens"}
            )
            return f"{tables[part]}.weight", ""
        case ["head"]:
            return "lm_head.weight", "transposed"
        case ["norm"]:
            return f"{'transformer.ln_f' if gpt2 else 'model.norm'}.{tail}", ""
        case ["layers", ("query" | "key" | "value") as line] if gpt2:
            return f"transformer.h.{{}}.attn.c_attn.{tail}", ("query", "key", "value").index(line)
        case ["layers", line]:
            names, prefix = (_GPT2, "transformer.h.{}") if gpt2 else (_ROTARY, "model.layers.{}")
            return f"{prefix}.{names[line]}.{tail}", matrix
    raise BadInput(f"a checkpoint folder has no place for {path}: merge the adapter first")
