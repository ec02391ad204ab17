"""Runs in the peer's environment: for every line on stdin, a number of steps, trains so many with TRL and answers one JSON line.

    peer-language/bin/python benchmarks/language_peer_rates.py METHOD SHAPE PRECISION

METHOD is `dpo` or `grpo`, SHAPE `0.8M` or `10.8M`, PRECISION `float32` (without gradient checkpointing) or `default` (TRL's own choice:
bfloat16 with gradient checkpointing). The first line it writes holds the versions. A rate is of the median step, as TRL's callbacks see it.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import statistics
import sys
import tempfile
import time
from importlib.metadata import version
from typing import Any

os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error", WANDB_MODE="disabled", TOKENIZERS_PARALLELISM="false")

SHAPES = {"0.8M": (4, 128, 4), "10.8M": (6, 384, 6)}  # layers, width, heads
CHARACTERS = [chr(code) for code in range(32, 127)]
BATCH, PROMPT, ANSWER, GROUP = 16, 64, 64, 8


def tokenizer() -> Any:
    """Characters as tokens, 99 in all."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "<eos>", "<bos>", "<unk>"]
    made = Tokenizer(models.WordLevel({name: i for i, name in enumerate([*special, *CHARACTERS])}, unk_token="<unk>"))
    made.pre_tokenizer, made.decoder = pre_tokenizers.Split("", behavior="isolated"), decoders.Fuse()
    pad, end, begin, unknown = special
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token=pad, eos_token=end, bos_token=begin, unk_token=unknown, padding_side="left"
    )


def main() -> None:
    """Serve until stdin ends."""
    method, shape, precision = sys.argv[1:]
    import torch
    from datasets import Dataset
    from transformers import GPT2Config, GPT2LMHeadModel, TrainerCallback

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.manual_seed(0)
    layers, width, heads = SHAPES[shape]
    words = tokenizer()
    sizes = {"vocab_size": len(words), "n_positions": 256, "n_embd": width, "n_layer": layers, "n_head": heads}
    folder, draw = tempfile.mkdtemp(), random.Random(0)
    GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=2, eos_token_id=1, pad_token_id=0)).save_pretrained(folder)
    words.save_pretrained(folder)
    text = lambda count: "".join(draw.choice(CHARACTERS) for _ in range(count))

    class Steps(TrainerCallback):
        """How long every step takes."""

        def __init__(self) -> None:
            self.seconds: list[float] = []

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.start = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.seconds.append(time.perf_counter() - self.start)

    def trained(count: int) -> list[float]:
        common: dict[str, Any] = {
            "output_dir": os.path.join(folder, "out"), "report_to": "none", "save_strategy": "no", "logging_steps": 10**6,
            "use_cpu": True, "disable_tqdm": True, "per_device_train_batch_size": BATCH, "max_steps": count,
        }  # fmt: skip
        if precision == "float32":
            common |= {"bf16": False, "gradient_checkpointing": False}
        steps = Steps()
        if method == "dpo":
            from trl import DPOConfig, DPOTrainer

            rows = [
                {"prompt": text(PROMPT), "chosen": text(ANSWER - 1), "rejected": text(ANSWER - 1)} for _ in range(BATCH * count)
            ]
            trainer = DPOTrainer(
                model=folder, args=DPOConfig(max_length=PROMPT + ANSWER, **common), train_dataset=Dataset.from_list(rows),
                processing_class=words, callbacks=[steps],
            )  # fmt: skip
        else:
            from trl import GRPOConfig, GRPOTrainer

            settings = GRPOConfig(
                max_completion_length=ANSWER, num_generations=GROUP, generation_kwargs={"min_new_tokens": ANSWER}, **common
            )
            count_a = lambda completions, **_: [float(one.count("a")) for one in completions]
            count_a.__name__ = "count_a"
            trainer = GRPOTrainer(
                model=folder, reward_funcs=count_a, args=settings, processing_class=words, callbacks=[steps],
                train_dataset=Dataset.from_list([{"prompt": text(PROMPT)} for _ in range(BATCH * count)]),
            )  # fmt: skip
        with contextlib.redirect_stdout(sys.stderr):  # the trainer prints a summary
            trainer.train()
        return steps.seconds[1:]

    print(json.dumps({name: version(name) for name in ("trl", "transformers", "torch")}), flush=True)
    for line in sys.stdin:
        print(json.dumps({"rate": 1.0 / statistics.median(trained(1 + int(line)))}), flush=True)


if __name__ == "__main__":
    main()
