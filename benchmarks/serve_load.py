"""Load on a language policy's endpoint: many clients for a while, among them broken ones. Prints one JSON document.

    python benchmarks/serve_load.py [--seconds 60] [--clients 64] [--width 128] [--layers 4]

Clients ask for answers, stream, hang up in mid-stream, send malformed and oversized requests and wrong tokens. Whatever is no clean
answer or clean HTTP error (an exception of the client, status 500, an error without a sentence) is counted as `unclean`.
"""

from __future__ import annotations

import argparse
import json
import random
import threading
import time
from collections import Counter

import httpx
import jax
import numpy as np

from policylab.policies.language import Language, text_spec
from policylab.serve.hosting import served
from policylab.serve.language import language_app
from policylab.tokenizer import characters

TOKEN = "load"
KINDS = ("chat", "chat", "chat", "stream", "stream", "hang up", "malformed", "oversized", "wrong token", "n")


def once(client: httpx.Client, kind: str, number: int) -> tuple[int, int]:
    """(status, tokens written) of one request."""
    body = {"model": "load", "prompt": "Once upon a time", "max_tokens": 32, "seed": number}
    match kind:
        case "malformed":
            return client.post("/v1/completions", content=b'{"model": "load", "prompt": ').status_code, 0
        case "oversized":
            return client.post("/v1/completions", json={**body, "prompt": "a" * 200_000}).status_code, 0
        case "wrong token":
            return client.post("/v1/completions", json=body, headers={"authorization": "Bearer no"}).status_code, 0
        case "stream" | "hang up":
            written, told = 0, {"stream": True, "stream_options": {"include_usage": True}}
            with client.stream("POST", "/v1/completions", json={**body, **told}) as response:
                for line in response.iter_lines():
                    if kind == "hang up" and line:
                        break
                    usage = json.loads(line[6:]).get("usage") if line.startswith("data: {") else None
                    written = usage["completion_tokens"] if usage else written
                return response.status_code, written
        case _:
            response = client.post("/v1/completions", json={**body, "n": 2 if kind == "n" else 1})
            usage = response.json().get("usage", {})
            return response.status_code, usage.get("completion_tokens", 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("seconds", 60), ("clients", 64), ("width", 128), ("layers", 4), ("rows", 16)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    spec = text_spec(characters(), prompt=64, answer=64)
    policy = Language(width=options.width, layers=options.layers).build(spec, key=jax.random.key(0))
    app = language_app(policy, name="load", token=TOKEN, rows=options.rows, prompt=64, answer=64, most=100_000)
    wanted = {"malformed": {400}, "oversized": {413}, "wrong token": {401}}
    statuses: Counter[str] = Counter()
    unclean: list[str] = []
    seconds: list[float] = []
    tokens = [0]
    lock = threading.Lock()

    with served(app) as url:
        headers = {"authorization": f"Bearer {TOKEN}"}
        with httpx.Client(base_url=url, headers=headers, timeout=60.0) as client:
            for kind in set(KINDS):
                once(client, kind, 0)  # compiled before the time runs
        end = time.monotonic() + options.seconds

        def work(number: int) -> None:
            draw = random.Random(number)
            with httpx.Client(base_url=url, headers=headers, timeout=60.0) as client:
                while time.monotonic() < end:
                    kind, started = draw.choice(KINDS), time.monotonic()
                    try:
                        status, written = once(client, kind, draw.randrange(1000))
                    except Exception as problem:
                        with lock:
                            unclean.append(f"{kind}: {problem!r}")
                        continue
                    with lock:
                        statuses[f"{kind} {status}"] += 1
                        tokens[0] += written
                        if status not in wanted.get(kind, {200, 503}):
                            unclean.append(f"{kind}: status {status}")
                        if kind == "chat":
                            seconds.append(time.monotonic() - started)

        threads = [threading.Thread(target=work, args=(i,)) for i in range(options.clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with httpx.Client(base_url=url, headers=headers) as client:
            time.sleep(1.0)
            after = client.get("/health").json()
    print(json.dumps({
        "clients": options.clients, "seconds": options.seconds, "parameters": sum(x.size for x in jax.tree.leaves(policy.network)),
        "requests": sum(statuses.values()), "tokens_per_second": round(tokens[0] / options.seconds),
        "seconds_per_answer": {f"p{q}": round(float(np.percentile(seconds, q)), 3) for q in (50, 95, 99)},
        "statuses": dict(sorted(statuses.items())), "unclean": unclean[:20], "unclean_count": len(unclean), "after": after,
    }, indent=1))  # fmt: skip


if __name__ == "__main__":
    main()
