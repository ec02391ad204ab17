"""`policylab chat`: talk with a language model of a checkpoint folder; its answers appear as they are written."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from policylab.commands.arguments import Parser, real, whole
from policylab.commands.output import Result

if TYPE_CHECKING:
    from policylab.policies.language import LanguagePolicy


def run(argv: Sequence[str]) -> tuple[argparse.Namespace, Result]:
    """Read what the user says, line by line or all at once, and answer."""
    parser = Parser(
        "chat",
        "Every line that you write is answered; an empty line or Ctrl-D ends the chat. Without a terminal the lines come from standard\n"
        "input. The folder's generation_config.json says how tokens are drawn, unless you do. A model without a chat template goes on with\n"
        "the text that it has seen.",
        "Example:\n  policylab chat models/qwen3 --temperature 0.7 --answer 256\n"
        "  policylab chat models/qwen3 --say 'What is 6 times 7?' --greedy --json",
        words="FOLDER",
        seed="of the sampled tokens: the same seed and words give the same answers",
    )
    parser.add_argument("folder", metavar="FOLDER", help="a checkpoint folder: config.json, safetensors, tokenizer.json")
    parser.add_argument("--say", metavar="TEXT", action="append", help="say this (several times: several turns) and stop")
    parser.add_argument("--system", metavar="TEXT", help="a system message before the first turn")
    parser.add_argument("--temperature", type=real(0, 100), metavar="T", help="of the sampling, above 0")
    parser.add_argument("--top-k", type=whole(0), metavar="K", help="draw among the K likeliest tokens; 0: all")
    parser.add_argument("--top-p", type=real(0, 1), metavar="P", help="draw among the likeliest tokens that have P together")
    parser.add_argument("--greedy", action="store_true", help="always the likeliest token")
    parser.add_argument("--stop", metavar="TEXT", action="append", help="end an answer with this text")
    parser.add_argument("--answer", type=whole(), default=256, metavar="N", help="longest answer, in tokens")
    options = parser.read(argv)
    policy = _policy(options)
    talk = Talk(policy, options.system, options.seed)
    live = sys.stdin.isatty() and not options.json and options.say is None
    lines = iter(options.say) if options.say is not None else _typed() if live else (line.rstrip("\n") for line in sys.stdin)
    for line in lines:
        if not line:
            break
        for piece in talk.answer(line):
            if live or (sys.stderr.isatty() and not options.json):
                print(piece, end="", file=sys.stderr, flush=True)
        if live:
            print(file=sys.stderr)
    rate = talk.tokens / talk.seconds if talk.seconds else 0.0
    document = {
        "messages": talk.messages, "tokens": talk.tokens, "seconds": round(talk.seconds, 3), "seed": options.seed,
    }  # fmt: skip
    said = "\n".join(m["content"] for m in talk.messages if m["role"] == "assistant")
    return options, Result(document, f"{talk.tokens} tokens, {rate:.0f} a second" if live else said)


def _typed() -> Any:
    while True:
        print("> ", end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline()
        if not line.strip():
            return
        yield line.rstrip("\n")


def _policy(options: argparse.Namespace) -> LanguagePolicy:
    from policylab.compilation import enable_cache
    from policylab.data.checkpoint_folders import generation_settings, load_language

    enable_cache()
    policy = load_language(options.folder, answer=options.answer)
    asked = {"temperature": options.temperature, "top_k": options.top_k, "top_p": options.top_p}
    settings = generation_settings(options.folder) | {name: value for name, value in asked.items() if value is not None}
    policy = policy.sampled(**settings, stop=options.stop)
    return policy.mode() if options.greedy else policy


class Talk:
    """A conversation with a policy: what was said, and what the next answer is to."""

    def __init__(self, policy: LanguagePolicy, system: str | None, seed: int):
        from policylab.tokenizer import Tokenizer

        self.policy, self.seed = policy, seed
        self.tokenizer = Tokenizer.of(policy.tokenizer)
        self.messages: list[dict[str, str]] = [{"role": "system", "content": system}] if system else []
        self.tokens, self.seconds = 0, 0.0

    def answer(self, said: str) -> Any:
        """The pieces of the answer to what was said, as they are written."""
        from policylab.policies.writing import stream

        self.messages.append({"role": "user", "content": said})
        prompt, text, turn = self._prompt(), "", sum(m["role"] == "user" for m in self.messages)
        start = time.perf_counter()
        for piece in stream(self.policy, prompt, seed=self.seed + turn):
            text += piece
            yield piece
        self.seconds += time.perf_counter() - start
        self.tokens += len(self.tokenizer.encode(text))
        self.messages.append({"role": "assistant", "content": text})

    def _prompt(self) -> list[int]:
        if self.tokenizer.template:
            return self.tokenizer.encode(self.tokenizer.chat(self.messages))
        return self.tokenizer.prompt("".join(message["content"] for message in self.messages))
