"""`policylab serve`: a language model behind an OpenAI-compatible endpoint, or a control policy behind a small HTTP API."""

from __future__ import annotations

import argparse
import ipaddress
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from policylab.commands.arguments import Parser, whole
from policylab.commands.output import Result
from policylab.errors import BadInput

VARIABLE = "POLICYLAB_TOKEN"


def run(argv: Sequence[str]) -> tuple[argparse.Namespace, Result]:
    """Serve until interrupted."""
    parser = Parser(
        "serve",
        "A folder with a config.json is a language model: POST /v1/chat/completions and /v1/completions.\n"
        "A run or a saved policy is a control policy: GET /schema, POST /act.",
        f"Clients send the header Authorization: Bearer TOKEN, where the environment variable {VARIABLE} holds the token.\n"
        "Example:\n  policylab serve runs/iql --port 8000",
        words="MODEL_OR_POLICY",
        seed="of the actions that a control policy samples",
    )
    parser.add_argument(
        "subject",
        metavar="MODEL_OR_POLICY",
        help="a language model's folder, the folder of a run, or the file of a saved policy",
    )
    parser.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help="0.0.0.0 answers other machines, too")
    parser.add_argument("--port", type=whole(0), default=8000, metavar="N", help="0 takes a free one")
    parser.add_argument("--name", metavar="NAME", help="what clients call it (default: the name of its folder or file)")
    parser.add_argument("--token-variable", default=VARIABLE, metavar="NAME", help="the environment variable with the token")
    parser.add_argument("--batch", type=whole(), default=16, metavar="N", help="requests in one compiled call")
    parser.add_argument(
        "--waiting", type=whole(), default=1024, metavar="N", help="requests that may wait; more get status 503"
    )
    parser.add_argument("--largest", type=whole(), default=4_000_000, metavar="BYTES", help="of a request; more get status 413")
    parser.add_argument(
        "--prompt", type=whole(), metavar="TOKENS", help="longest prompt of a language model (default: what is left)"
    )
    parser.add_argument(
        "--answer", type=whole(), metavar="TOKENS", help="longest answer (default: half the context, at most 512)"
    )
    parser.add_argument(
        "--sample", action="store_true", help="let a control policy sample its actions (default: take its mode)"
    )
    parser.add_argument("--learner", metavar="FILE:CLASS", help="your own learner's class, where the run is one of yours")
    options = parser.read(argv)
    token = os.environ.get(options.token_variable, "")
    if not token and not _loopback(options.host):
        raise BadInput(
            f"{options.host} can be reached from elsewhere: put a token into the environment variable {options.token_variable}"
        )
    app, what = _app(options, token)
    from policylab.serve.hosting import serve

    address: list[str] = []

    def ready(url: str) -> None:
        address.append(url)
        guard = "with a token" if token else "without a token"
        print(f"serving {what} at {url}, {guard}; Ctrl-C ends it", file=sys.stderr, flush=True)

    serve(app, host=options.host, port=options.port, ready=ready)
    return options, Result({"served": what, "address": address[0]}, f"served {what} at {address[0]}")


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _app(options: argparse.Namespace, token: str) -> tuple[Any, str]:
    """The application of what was named, and a word for it."""
    place = Path(options.subject)
    if not place.exists():
        raise BadInput(
            f"there is no {place}: name a language model's folder, the folder of a run, or the file of a saved policy"
        )
    try:
        import starlette  # noqa: F401  (asked for here, so that its absence is told before anything is loaded)
    except ImportError as missing:
        raise BadInput('serving needs starlette, which is not installed: pip install "policylab[serve]"') from missing
    name = options.name or place.resolve().stem
    shared: dict[str, Any] = {"name": name, "token": token, "waiting": options.waiting, "most": options.largest}
    if (place / "config.json").is_file():
        from policylab.data.checkpoint_folders import load_language
        from policylab.serve.language import language_app

        if options.sample:
            raise BadInput("--sample is for control policies: clients of a language model say how with temperature")
        model, prompt, answer = load_language(place), options.prompt or 0, options.answer or 0
        return language_app(model, rows=options.batch, prompt=prompt, answer=answer, **shared), f"the language model {name}"
    for option in ("prompt", "answer"):
        if getattr(options, option) is not None:
            raise BadInput(f"--{option} is a length in tokens, which only a language model has: leave it out")
    from policylab.serve.control import control_app

    policy, spec = _policy(place, options.learner)
    policy = policy if options.sample else policy.mode()
    return control_app(policy, spec, seed=options.seed, batch=options.batch, **shared), f"the policy {name}"


def _policy(place: Path, own: str | None) -> tuple[Any, Any]:
    """A saved policy, or that of a run's first seed, and its Spec."""
    from policylab import registry
    from policylab.policy import Policy
    from policylab.runs import load_product, load_run

    learner = registry.learner_class(own)() if own else None
    if place.is_dir():
        run = load_run(place, learner=learner)
        return run.policy(), run.spec
    policy, spec = load_product(place, learner=learner)
    if not isinstance(policy, Policy):
        raise BadInput(f"{place} holds a {type(policy).__name__}, which does not act: save the policy of the run")
    return policy, spec
