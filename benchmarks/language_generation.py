"""Tokens written per second, beside `transformers.generate`: GPT-2 shapes of 0.8 and 10.8 million random weights, float32, 64 tokens
after prompts of 64, sampled at temperature 1.

    python benchmarks/language_generation.py --peer-python peer/bin/python [--rounds 3]

Both sides run in processes of their own, one after the other in every round; ratios are of medians. The peer's environment needs torch
and transformers.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time

SHAPES = {"0.8M": (4, 128, 4), "10.8M": (6, 384, 6)}  # layers, width, heads
BATCHES = (1, 16, 64)
VOCABULARY, PROMPT, NEW, REPEATS = 99, 64, 64, 4
GOALS = {("0.8M", 16): 2.0, ("10.8M", 16): 1.5}


def rates(write) -> list[float]:
    """Tokens per second of every repetition but the first, which compiles."""
    found = []
    for _ in range(REPEATS + 1):
        start = time.perf_counter()
        count = write()
        found.append(count / (time.perf_counter() - start))
    return found[1:]


def ours(shape: str) -> dict[int, list[float]]:
    import jax
    import jax.numpy as jnp

    from policylab.experience import Tokens
    from policylab.networks.decoder import Architecture, Decoder
    from policylab.policies.generation import Sampling, write

    layers, width, heads = SHAPES[shape]
    network = Decoder(
        Architecture(
            vocabulary=VOCABULARY, width=width, layers=layers, heads=heads, groups=heads, size=width // heads, hidden=4 * width,
            context=256, positions="learned", norm="layer", forward="gelu", bias=True, epsilon=1e-5,
        ),
        key=jax.random.key(0),
    )  # fmt: skip
    sampling = Sampling(jnp.ones(()), jnp.ones(()), jnp.asarray(VOCABULARY))
    found = {}
    for batch in BATCHES:
        ids = jax.random.randint(jax.random.key(1), (batch, PROMPT), 4, VOCABULARY)
        prompts, keys = Tokens(ids, jnp.ones_like(ids)), jax.random.split(jax.random.key(2), batch)

        def write_once(prompts=prompts, keys=keys, batch=batch) -> int:
            written = write(
                network, sampling, None, prompts, keys, length=NEW, end=(VOCABULARY,), pad=0
            )  # an end that never comes
            jax.block_until_ready(written)
            return batch * NEW

        found[batch] = rates(write_once)
    return found


def theirs(shape: str) -> dict[int, list[float]]:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    layers, width, heads = SHAPES[shape]
    config = GPT2Config(vocab_size=VOCABULARY, n_positions=256, n_embd=width, n_layer=layers, n_head=heads, pad_token_id=0)
    config.bos_token_id, config.eos_token_id = 2, 1
    model = GPT2LMHeadModel(config).eval()
    found = {}
    for batch in BATCHES:
        ids = torch.randint(4, VOCABULARY, (batch, PROMPT))

        def write_once(ids=ids, batch=batch) -> int:
            mask = torch.ones_like(ids)
            model.generate(ids, attention_mask=mask, max_new_tokens=NEW, min_new_tokens=NEW, do_sample=True, top_k=0)
            return batch * NEW

        found[batch] = rates(write_once)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer-python", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", choices=("ours", "theirs"))
    parser.add_argument("--shape", choices=SHAPES)
    options = parser.parse_args()
    if options.side:
        print(json.dumps({"ours": ours, "theirs": theirs}[options.side](options.shape)))
        return
    for shape in SHAPES:
        found: dict[str, dict[str, list[float]]] = {"ours": {}, "theirs": {}}
        for _ in range(options.rounds):
            for side, python in (("ours", sys.executable), ("theirs", options.peer_python)):
                command = [python, __file__, "--peer-python", "-", "--side", side, "--shape", shape]
                answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout
                for batch, values in json.loads(answer.strip().splitlines()[-1]).items():
                    found[side].setdefault(batch, []).extend(values)
        for batch in BATCHES:
            mine, peer = (statistics.median(found[side][str(batch)]) for side in ("ours", "theirs"))
            goal = GOALS.get((shape, batch))
            verdict = "" if goal is None else f"  goal {goal}x: {'met' if mine / peer >= goal else 'missed'}"
            print(f"{shape} batch {batch}: {mine:,.0f} tokens/s beside {peer:,.0f}, {mine / peer:.2f}x{verdict}", flush=True)


if __name__ == "__main__":
    main()
