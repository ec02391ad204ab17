"""A model behind an API, played by a small server on this machine."""

from __future__ import annotations

import json
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import jax
import numpy as np
import pytest

from policylab.errors import BadInput
from policylab.policies.remote.budget import Budget, BudgetSpent
from policylab.policies.remote.cache import RequestCache
from policylab.policies.remote.endpoint import Endpoint
from policylab.policies.remote.policy import REFUSAL, Remote, chosen
from policylab.scorers.judge import Judge
from policylab.tokenizer import characters

SECRET = "sk-very-secret-4711"
LETTERS = characters()


class Host(ThreadingHTTPServer):
    """Answers by `reply(body, number of the call) -> text, status or dict`; counts what arrives."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.lock = threading.Lock()
        self.clear()

    def clear(self):
        self.bodies, self.keys, self.active, self.most = [], [], 0, 0
        self.reply, self.headers, self.gate = (lambda body, number: f"answer {number}"), {}, None

    def handle_error(self, request, client_address):
        """A client that hung up is no matter."""

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_POST(self):
        host = self.server
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with host.lock:
            host.bodies.append(body)
            host.keys.append(self.headers.get("authorization"))
            host.active += 1
            host.most, number = max(host.most, host.active), len(host.bodies) - 1
        if host.gate is not None:
            host.gate.wait()
        reply = host.reply(body, number)
        with host.lock:
            host.active -= 1
        status, document = 200, reply
        if isinstance(reply, int):
            status, document = reply, {"error": {"message": f"no, and your key is {self.headers.get('authorization')}"}}
        elif isinstance(reply, str):
            message = {"role": "assistant", "content": reply}
            document = {
                "model": f"{body['model']}-2026", "system_fingerprint": "fp_1", "usage": {"total_tokens": 10},
                "choices": [{"message": message, "finish_reason": "stop"}],
            }  # fmt: skip
        data = json.dumps(document).encode()
        self.send_response(status)
        for name, value in (*host.headers.items(), ("content-length", str(len(data)))):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture(scope="module")
def server():
    with Host() as host:
        thread = threading.Thread(target=host.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield host
        host.shutdown()
        thread.join()


@pytest.fixture
def host(server, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    server.clear()
    return server


@pytest.fixture
def make(host, tmp_path):
    made = []

    def build(**options):
        told, waits = options.pop("told", []), options.pop("waits", [])
        given = {"cache": tmp_path / "answers.sqlite", "announce": told.append, "pause": waits.append, **options}
        made.append(Remote(host.url, model="m", **given))
        return made[-1]

    yield build
    for remote in made:
        remote.endpoint.close()


def test_ten_samples_are_ten_answers_and_a_resumed_run_replays_them(make, host, tmp_path):
    answers = make().answers(["Hello", "Bye"], n=10)
    assert len({text for row in answers for text in row}) == 20
    assert len(host.bodies) == 20
    assert make().answers(["Hello", "Bye"], n=10) == answers
    assert len(host.bodies) == 20, "nothing was asked again"
    assert make().answers(["Hello"], n=12)[0][:10] == answers[0]
    assert make().answers(["Hello"], n=1, first=3)[0][0] == answers[0][3]
    assert len(host.bodies) == 22
    make().with_settings(temperature=0.5).answers(["Hello"])
    other = Remote(host.url, model="other", cache=tmp_path / "answers.sqlite", announce=print)
    other.answers(["Hello"])
    other.endpoint.close()
    assert len(host.bodies) == 24, "another request is another answer"
    assert host.bodies[-1]["messages"] == [{"role": "user", "content": "Hello"}]
    assert set(host.bodies[0]) == {"model", "messages", "temperature", "max_tokens"}


def test_every_record_says_who_answered_when_and_holds_no_key(make, host, tmp_path):
    remote = make()
    record = remote.records(["Hello"])[0][0]
    assert (record["model"], record["answered_by"], record["fingerprint"]) == ("m", "m-2026", "fp_1")
    assert record["date"].endswith("+00:00")
    assert (record["usage"], record["draw"], record["attempts"]) == ({"total_tokens": 10}, 0, 1)
    assert host.keys == [f"Bearer {SECRET}"]
    host.reply = lambda body, number: 400
    with pytest.raises(BadInput, match="it refuses the request") as refused:
        remote.answers(["Other"])
    assert SECRET not in str(refused.value)
    assert "***" in str(refused.value)
    assert SECRET not in repr(remote)
    assert all(SECRET.encode() not in file.read_bytes() for file in tmp_path.iterdir())
    assert (tmp_path / "answers.sqlite").stat().st_mode & 0o077 == 0


def test_busy_and_broken_servers_are_asked_again_and_wrong_keys_are_not(make, host):
    host.reply = lambda body, number: (429, 503, 500, "done")[number]
    host.headers = {"retry-after": "7"}
    waits = []
    remote = make(waits=waits)
    assert remote.records(["a"])[0][0]["attempts"] == 4
    assert waits == [7.0, 7.0, 7.0]
    assert remote.endpoint.retried == 3
    assert remote.endpoint.budget.spent_calls == 4
    host.clear()
    host.reply = lambda body, number: 502
    waits.clear()
    with pytest.raises(BadInput, match=r"after 4 attempts \(status 502"):
        make(waits=waits, retries=3).answers(["b"])
    assert len(waits) == 3
    assert all(0.75 * 0.5 * 2**i <= wait <= 1.25 * 0.5 * 2**i for i, wait in enumerate(waits))
    host.clear()
    host.reply = lambda body, number: 401
    with pytest.raises(BadInput, match="the key is not accepted"):
        make().answers(["c"])
    assert len(host.bodies) == 1
    host.reply = lambda body, number: {"hello": "world"}
    with pytest.raises(BadInput, match="no chat completion"):
        make().answers(["d"])
    host.headers = {"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}
    host.reply = lambda body, number: "late" if number else 429
    host.bodies.clear()
    assert make(waits=waits).answers(["e"]) == [["late"]]
    assert waits[-1] == 0.0


def test_time_outs_and_absent_servers_end_in_a_sentence(make, host):
    host.gate = threading.Event()
    with pytest.raises(BadInput, match=r"after 2 attempts \(ReadTimeout"):
        make(timeout=0.1, retries=1).answers(["a"])
    host.gate.set()
    absent = Endpoint("http://127.0.0.1:9/v1", "m", key="", retries=1, cache=make().endpoint.cache, announce=print, pause=print)
    with pytest.raises(BadInput, match="did not answer after 2 attempts"):
        Remote(absent).answers(["a"])
    absent.close()


def test_many_calls_run_at_once_and_no_more_than_allowed(make, host):
    host.gate = threading.Barrier(8, timeout=5.0)  # nobody is answered before eight have come
    make(concurrency=8).answers([str(i) for i in range(24)])
    assert host.most == 8


def test_a_budget_is_shown_before_and_held(make, host):
    told = []
    remote = make(budget="5 calls, 10k tokens", told=told)
    plan = remote.plan(["one", "two"], n=2)
    assert (plan.calls, plan.cached) == (4, 0)
    assert plan.tokens == 4 * (3 + 16 + 512)
    assert not host.bodies
    remote.answers(["one", "two"], n=2)
    assert "4 calls, at most 2,124 tokens" in told[0]
    assert (remote.endpoint.budget.spent_calls, remote.endpoint.budget.spent_tokens) == (4, 40)
    with pytest.raises(BudgetSpent, match="5 calls has 1 left where 2 may be needed"):
        remote.answers(["three", "four"])
    assert len(host.bodies) == 4, "nothing of the batch was asked"
    assert remote.answers(["one"], n=2), "the cache costs nothing"
    assert remote.plan(["one", "five"], n=2).cached == 2
    with pytest.raises(BudgetSpent, match="tokens"):
        make(budget="100 tokens").answers(["six"])
    host.reply = lambda body, number: 429
    with pytest.raises(BudgetSpent):
        make(budget="3 calls").answers(["seven"])
    assert len(host.bodies) == 7, "every attempt counts"
    assert repr(Budget.of("20k calls")) == "Budget(0 of 20,000 calls, 0 tokens)"
    for bad in ("20", "many calls", "-1 calls", ""):
        with pytest.raises(BadInput, match="does not read"):
            Budget.of(bad)


def test_a_batch_that_fails_half_way_keeps_what_came_and_gives_back_the_rest(make, host):
    host.reply = lambda body, number: 400 if body["messages"][0]["content"] == "2" else "fine"
    remote = make(concurrency=1, budget="10 calls")
    with pytest.raises(BadInput):
        remote.answers([str(i) for i in range(5)])
    assert remote.endpoint.budget.spent_calls == 2
    host.reply = lambda body, number: "fine"
    assert remote.answers([str(i) for i in range(5)]) == [["fine"]] * 5
    assert Counter(body["messages"][0]["content"] for body in host.bodies) == {"0": 1, "1": 1, "2": 2, "3": 1, "4": 1}


def test_canaries_tell_when_the_model_behind_the_name_changes(make, host):
    host.reply = lambda body, number: "four" if len(host.bodies) < 7 else "4"
    remote = make(canaries=("2 + 2?", "Name a colour."), canary_every=4, concurrency=1)
    for start in (0, 4, 8):
        remote.answers([str(i) for i in range(start, start + 4)])
    drift = remote.drift()
    assert [len(one.answers) for one in drift] == [4, 4]
    assert drift[0].answers == ("four", "4", "4", "4")
    assert drift[0].changed
    assert drift[0].fingerprints == ("fp_1",) * 4
    count = len(host.bodies)
    assert remote.drift() == drift
    again = make(canaries=("2 + 2?",))
    again.answers(["0", "1"])
    assert again.drift()[0].answers == ()
    assert len(host.bodies) == count, "a run that only replays asks no canaries"


def test_choices_have_refusal_as_an_option(make, host):
    said = ["A", "b)", "B) to wait", "I cannot help with that.", "to go", "**A**", "Answer: B", "C", "", "A and B"]
    assert [chosen(text, ["to go", "to wait"]) for text in said] == [0, 1, 1, 2, 0, 0, 1, 2, 2, 2]
    host.reply = lambda body, number: said[number]
    choice = make(concurrency=1).choice("What now?", ["to go", "to wait"], n=10)
    assert choice.options == ("to go", "to wait", REFUSAL)
    np.testing.assert_allclose(choice.probabilities, [0.3, 0.3, 0.4])
    assert (choice.method, choice.count) == ("samples", 10)
    assert "A) to go\nB) to wait" in host.bodies[0]["messages"][0]["content"]
    top = [
        {"token": "A", "logprob": np.log(0.5)},
        {"token": " b", "logprob": np.log(0.3)},
        {"token": "I", "logprob": np.log(0.1)},
    ]
    message = {
        "message": {"content": "A"},
        "finish_reason": "length",
        "logprobs": {"content": [{"token": "A", "logprob": -0.7, "top_logprobs": top}]},
    }
    host.reply = lambda body, number: {"choices": [message]}
    exact = make().choice("What now?", ["to go", "to wait"], method="logprobs")
    np.testing.assert_allclose(exact.probabilities, [0.5, 0.3, 0.2])
    assert host.bodies[-1]["top_logprobs"] == 20
    host.reply = lambda body, number: "A"
    with pytest.raises(BadInput, match="no log-probabilities"):
        make().choice("And now?", ["to go", "to wait"], method="logprobs")
    with pytest.raises(BadInput, match="1 options"):
        make().choice("What?", ["only"])


def test_it_acts_on_tokens_inside_a_compiled_program(make, host):
    host.reply = lambda body, number: f"{len(body['messages'])} {body['messages'][-1]['content']}"
    remote = make(tokenizer=LETTERS, answer=16)
    prompts = LETTERS.tokens(["red?\n", "blue?"], length=8)
    act = jax.jit(jax.vmap(lambda prompt, key: remote.act(prompt, None, key=key)[0]))
    keys = jax.random.split(jax.random.key(0), 2)
    answers = act(prompts, keys)
    assert LETTERS.texts(answers) == ["1 red?", "1 blue?"]
    assert (answers.ids[0, 6], answers.kind[0, 6], answers.kind[0, 7]) == (LETTERS.end[0], 2, 0)
    count = len(host.bodies)
    act(prompts, keys)
    assert len(host.bodies) == count, "the same keys find the same draws"
    act(prompts, jax.random.split(jax.random.key(1), 2))
    assert len(host.bodies) == count + 2
    assert remote.hosted
    assert remote.mode().settings.temperature == 0.0


def test_a_judge_sees_both_orders_and_may_abstain(make, host):
    def verdict(body, number):
        text = body["messages"][0]["content"]
        first, second = text.split("<first>\n")[1].split("\n")[0], text.split("<second>\n")[1].split("\n")[0]
        if "biased" in text:
            return "First."
        return "I would rather not." if "bad" in (first, second) else "first" if len(first) > len(second) else "second"

    host.reply = verdict
    judge = Judge(make(tokenizer=LETTERS))
    shares = judge.preferences(["q", "q", "biased"], ["long", "bad", "long"], ["no", "no", "no"])
    np.testing.assert_allclose(shares, [[1, 0, 0, 0], [0, 0, 0, 1], [0.5, 0, 0.5, 0]])
    tokens = [LETTERS.tokens([text], length=8, kind=kind) for text, kind in (("q", 1), ("long", 2), ("no", 2))]
    np.testing.assert_allclose(jax.vmap(lambda p, a, b: judge.prefer(p, a, b, key=jax.random.key(0)))(*tokens), [[1, 0, 0, 0]])
    host.reply = lambda body, number: (
        "7/10" if "good" in body["messages"][0]["content"].split("<answer>")[1].split("</")[0] else "11"
    )
    np.testing.assert_allclose(judge.ratings(["q", "q"], ["good", "poor"]), [0.7, np.nan])
    scores = jax.vmap(judge.scores)(LETTERS.tokens(["q"], length=8), LETTERS.tokens(["good"], length=8, kind=2))
    np.testing.assert_allclose(scores, [[0, 0, 0, 0.7, 0, 0, 0, 0]])


def test_wrong_addresses_keys_and_files_are_told(host, tmp_path, monkeypatch):
    for url in ("host/v1", "ftp://host", "https://"):
        with pytest.raises(BadInput, match="no address"):
            Remote(url, model="m", cache=tmp_path / "a")
    for url in ("https://me:pass@host/v1", "https://host/v1?key=1"):
        with pytest.raises(BadInput, match="would be recorded"):
            Remote(url, model="m", cache=tmp_path / "a")
    monkeypatch.delenv("OPENAI_API_KEY")
    remote = Remote(host.url, model="m", cache=tmp_path / "a", announce=print)
    with pytest.raises(BadInput, match="OPENAI_API_KEY is not set"):
        remote.answers(["a"])
    assert not host.bodies
    remote.endpoint.close()
    (tmp_path / "b").write_text("this is no database" * 100)
    with pytest.raises(BadInput, match="cannot be used as a cache"):
        RequestCache(tmp_path / "b")
