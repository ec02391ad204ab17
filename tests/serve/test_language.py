"""The endpoint of a language policy, judged by the official client."""

from __future__ import annotations

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import jax
import jax.numpy as jnp
import numpy as np
import openai
import pytest

from policylab.errors import BadInput
from policylab.experience import Tokens
from policylab.policies.language import Language, text_spec
from policylab.serve.engine import Engine, Full, Job, Piece
from policylab.serve.hosting import served
from policylab.serve.language import language_app
from policylab.serve.writing import Transcript
from policylab.tokenizer import byte_pairs, characters

TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}</>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)
TOKENIZER = characters(template=TEMPLATE)
TOKEN = "a token"
HELLO = [{"role": "user", "content": "Hello"}]


@pytest.fixture(scope="module")
def policy():
    spec = text_spec(TOKENIZER, prompt=96, answer=32)
    return Language(width=16, layers=1, heads=2).build(spec, key=jax.random.key(0))


@pytest.fixture(scope="module")
def url(policy):
    app = language_app(policy, name="tiny", token=TOKEN, rows=8, prompt=64, answer=32, chunk=4, waiting=200, most=20_000)
    with served(app) as address:
        yield address


@pytest.fixture(scope="module")
def client(url):
    with openai.OpenAI(base_url=f"{url}/v1", api_key=TOKEN, max_retries=0, timeout=20.0) as official:
        yield official


def test_chats_are_answered_as_the_policy_itself_answers(client, policy):
    answer = client.chat.completions.create(model="tiny", messages=HELLO, temperature=0, max_tokens=12)
    prompt = TOKENIZER.tokens([TOKENIZER.chat(HELLO)], length=64)
    written = policy.mode().act(Tokens(prompt.ids[0], prompt.kind[0]), None, key=jax.random.key(0))[0]
    expected = TOKENIZER.decode(np.asarray(written.ids)[np.asarray(written.kind) == 2][:12])
    assert answer.choices[0].message.content == expected
    assert answer.choices[0].finish_reason in ("length", "stop")
    assert answer.usage.prompt_tokens == len(TOKENIZER.encode(TOKENIZER.chat(HELLO)))
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.usage.completion_tokens <= 12
    assert answer.model == "tiny"
    assert answer.system_fingerprint


def test_n_answers_differ_a_seed_repeats_them_and_streams_say_the_same(client):
    ask = {"model": "tiny", "messages": HELLO, "max_tokens": 16, "seed": 7, "n": 3}
    first, second = client.chat.completions.create(**ask), client.chat.completions.create(**ask)
    texts = [choice.message.content for choice in first.choices]
    assert len(set(texts)) == 3
    assert texts == [choice.message.content for choice in second.choices]
    assert [choice.index for choice in first.choices] == [0, 1, 2]
    streamed, finish, usage = ["", "", ""], {}, None
    for event in client.chat.completions.create(**ask, stream=True, stream_options={"include_usage": True}):
        for choice in event.choices:
            streamed[choice.index] += choice.delta.content or ""
            finish[choice.index] = choice.finish_reason or finish.get(choice.index)
        usage = event.usage or usage
    assert streamed == texts
    assert finish == {i: choice.finish_reason for i, choice in enumerate(first.choices)}
    assert usage.completion_tokens == first.usage.completion_tokens


def test_log_probabilities_are_those_of_the_policy(client, policy):
    answer = client.completions.create(model="tiny", prompt="Once", max_tokens=8, temperature=1.0, seed=1, logprobs=3)
    told = answer.choices[0].logprobs
    assert "".join(told.tokens) == answer.choices[0].text
    ids = TOKENIZER.encode("Once" + answer.choices[0].text)
    tokens = Tokens(jnp.asarray([ids]), jnp.asarray([[1] * 4 + [2] * (len(ids) - 4)]))
    ours = np.asarray(policy.log_probs(tokens))[0, 4:]
    np.testing.assert_allclose(told.token_logprobs[: len(ours)], ours, atol=1e-4)
    assert all(len(top) == 3 for top in told.top_logprobs)
    assert told.text_offset[:3] == [0, 1, 2]
    chat = client.chat.completions.create(
        model="tiny", messages=HELLO, max_tokens=4, temperature=0, logprobs=True, top_logprobs=2
    )
    for token in chat.choices[0].logprobs.content:
        assert token.token == token.top_logprobs[0].token
        assert token.logprob == pytest.approx(token.top_logprobs[0].logprob, abs=1e-6)


def test_prompts_in_every_form_and_several_at_once(client):
    texts = client.completions.create(model="tiny", prompt=["One", "Two"], max_tokens=5, temperature=0, n=2).choices
    assert len(texts) == 4
    assert texts[0].text == texts[1].text
    ids = client.completions.create(model="tiny", prompt=TOKENIZER.encode("One"), max_tokens=5, temperature=0)
    assert ids.choices[0].text == texts[0].text
    assert client.models.list().data[0].id == "tiny"
    assert client.models.retrieve("tiny").owned_by == "policylab"


def test_top_p_of_almost_nothing_is_the_likeliest(client):
    ask = {"model": "tiny", "prompt": "Once", "max_tokens": 8}
    assert (
        client.completions.create(**ask, top_p=1e-9, seed=3).choices[0].text
        == client.completions.create(**ask, temperature=0).choices[0].text
    )


def test_stop_strings_end_the_text_before_them(client):
    whole = client.completions.create(model="tiny", prompt="Stop", max_tokens=20, seed=5).choices[0].text
    stop = whole[7:10]
    cut = client.completions.create(model="tiny", prompt="Stop", max_tokens=20, seed=5, stop=[stop, "never"])
    assert cut.choices[0].text == whole[: whole.index(stop)]
    assert cut.choices[0].finish_reason == "stop"
    pieces = client.completions.create(model="tiny", prompt="Stop", max_tokens=20, seed=5, stop=stop, stream=True)
    assert "".join(event.choices[0].text for event in pieces) == whole[: whole.index(stop)]


def test_half_characters_and_possible_stops_are_held_back():
    tokenizer = byte_pairs(["a"], vocabulary=259)
    ids = tokenizer.encode("aäb.\n.")
    transcript = Transcript(tokenizer, ("\n\n",), None, 100)
    shown = []
    for id in ids:
        ranked = (np.zeros((1, 1), int), np.zeros((1, 1)))
        shown.append(transcript.add(Piece(np.asarray([id]), np.zeros(1), ranked)).text)
    assert shown == ["a", "", "ä", "b", ".", "", "\n."]


WRONG = {
    "no JSON": (b"{", 400),
    "no object": (b"[]", 400),
    "not a number": (b'{"model": "tiny", "messages": [{"role": "user", "content": "a"}], "temperature": NaN}', 400),
    "deep": (b"[" * 5000, 400),
    "no messages": ({"model": "tiny"}, 400),
    "empty messages": ({"model": "tiny", "messages": []}, 400),
    "no role": ({"model": "tiny", "messages": [{"content": "a"}]}, 400),
    "an image": ({"model": "tiny", "messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400),
    "a character without a token": ({"model": "tiny", "messages": [{"role": "user", "content": "ß"}]}, 400),
    "too long": ({"model": "tiny", "messages": [{"role": "user", "content": "a" * 100}]}, 400),
    "another model": ({"model": "huge", "messages": HELLO}, 404),
    "hot": ({"model": "tiny", "messages": HELLO, "temperature": 3}, 400),
    "true as a number": ({"model": "tiny", "messages": HELLO, "n": True}, 400),
    "too many": ({"model": "tiny", "messages": HELLO, "n": 1000}, 400),
    "no tokens": ({"model": "tiny", "messages": HELLO, "max_tokens": 0}, 400),
    "too many tokens": ({"model": "tiny", "messages": HELLO, "max_tokens": 10**9}, 400),
    "an empty stop": ({"model": "tiny", "messages": HELLO, "stop": ""}, 400),
    "tools": ({"model": "tiny", "messages": HELLO, "tools": [{}]}, 400),
    "a text for a flag": ({"model": "tiny", "messages": HELLO, "stream": "yes"}, 400),
    "a broken character": (b'{"model": "tiny", "messages": [{"role": "user", "content": "\\ud800"}]}', 400),
    "large": ({"model": "tiny", "messages": [{"role": "user", "content": "a" * 30_000}]}, 413),
}


@pytest.fixture(scope="module")
def plain(url):
    with httpx.Client(base_url=url, headers={"authorization": f"Bearer {TOKEN}"}, timeout=20.0, verify=False) as client:
        yield client


@pytest.mark.parametrize("name", WRONG)
def test_mistakes_are_clean_errors(plain, name):
    body, status = WRONG[name]
    sent = {"content": body} if isinstance(body, bytes) else {"json": body}
    response = plain.post("/v1/chat/completions", **sent)
    assert response.status_code == status
    error = response.json()["error"]
    assert error["message"]
    assert "Traceback" not in error["message"]


def test_other_paths_methods_prompts_and_tokens(plain, url):
    assert plain.get("/v1/chat/completions").status_code == 405
    assert plain.post("/v1/nothing", json={}).json()["error"]["message"]
    for prompt in (None, [], [[]], [1.5], [10**6], {"a": 1}, ""):
        assert plain.post("/v1/completions", json={"model": "tiny", "prompt": prompt}).status_code == 400
    assert httpx.get(f"{url}/health").json()["status"] == "ok"
    for token in ("Bearer wrong", "", "Basic abc", f"Bearer {TOKEN}x"):
        response = httpx.post(f"{url}/v1/chat/completions", headers={"authorization": token}, json={})
        assert response.status_code == 401
    with (
        openai.OpenAI(base_url=f"{url}/v1", api_key="wrong", max_retries=0) as stranger,
        pytest.raises(openai.AuthenticationError),
    ):
        stranger.models.list()

    def endless():
        for _ in range(100):
            yield b"a" * 1000

    assert plain.post("/v1/completions", content=endless()).status_code == 413, "also where its length is not told"


def _raw(url, text):
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=5.0) as wire:
        wire.sendall(text)
        return wire.recv(200)


def test_what_is_no_http_at_all_is_refused(url):
    assert b" 400 " in _raw(url, b"\x16\x03\x01 nonsense\r\n\r\n")
    assert b" 400 " in _raw(url, b"POST /v1/completions HTTP/1.1\r\nhost: a\r\ncontent-length: -5\r\n\r\n")
    assert httpx.get(f"{url}/health").status_code == 200


def test_clients_that_hang_up_free_their_rows(plain, url):
    ask = {"model": "tiny", "prompt": "Once", "max_tokens": 32, "n": 8, "stream": True}
    for _ in range(6):
        with plain.stream("POST", "/v1/completions", json=ask) as response:
            next(response.iter_lines())
    deadline = time.monotonic() + 10.0
    while plain.get("/health").json()["busy"]:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert plain.post("/v1/completions", json={**ask, "stream": False, "n": 1}).status_code == 200


def test_sixty_four_clients_at_once(client, plain):
    def one(i):
        if i % 8 == 7:
            return plain.post("/v1/chat/completions", json={"model": "tiny", "messages": HELLO, "n": -i}).status_code == 400
        if i % 8 == 6:
            with plain.stream("POST", "/v1/completions", json={"model": "tiny", "prompt": "a", "stream": True}) as response:
                return response.status_code == 200
        answer = client.chat.completions.create(model="tiny", messages=HELLO, max_tokens=1 + i % 32, seed=i % 4)
        return 1 <= answer.usage.completion_tokens <= 1 + i % 32

    with ThreadPoolExecutor(64) as pool:
        assert all(pool.map(one, range(128)))
    assert plain.get("/health").json()["busy"] <= 8


def test_too_many_are_told_to_come_back(policy):
    engine = Engine(policy, rows=8, prompt=64, answer=32, chunk=4, waiting=2)
    done = threading.Event()
    jobs = [Job([5], 2, 1.0, 1.0, i, lambda piece: done.set() if piece is None else None) for i in range(3)]
    engine.submit(jobs[0])
    engine.submit(jobs[1])
    with pytest.raises(Full):
        engine.submit(jobs[2])
    with engine:
        assert done.wait(20.0)


def test_an_engine_that_fails_tells_who_waits_and_goes_on(policy, monkeypatch):
    engine, told, done = Engine(policy, rows=8, prompt=64, answer=32, chunk=4), [], threading.Event()
    broken = lambda *_, **__: (_ for _ in ()).throw(RuntimeError("no memory"))
    monkeypatch.setattr("policylab.serve.engine._write", broken)
    with engine:
        engine.submit(Job([5], 2, 1.0, 1.0, 0, lambda piece: (told.append(piece), done.set())))
        assert done.wait(20.0)
        monkeypatch.undo()
        done.clear()
        assert isinstance(told[0], RuntimeError)
        engine.submit(Job([5], 2, 1.0, 1.0, 0, lambda piece: done.set() if piece is None else None))
        assert done.wait(20.0)


def test_lengths_beyond_the_context_are_refused(policy):
    with pytest.raises(BadInput, match="do not fit"):
        Engine(policy, prompt=100, answer=100)
