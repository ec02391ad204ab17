"""solve for language models: judged answers in, a judged model out, and one sentence for whatever is wrong."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import policylab as lab
from policylab import aligning
from policylab.cli import main
from policylab.data.preferences import Chat, Judged, Pair, Rating
from policylab.errors import BadInput
from policylab.evidence import alignment
from policylab.evidence.answers import agreement
from policylab.evidence.jury import Judging, Jury, decided, win_rate

WORDS = lab.characters("0123456789>")
PAIRS = [(f"{i}{j}>", f"{min(i, j)}{max(i, j)}", f"{max(i, j)}{min(i, j)}") for i in range(5) for j in range(5) if i != j]
KEYLESS = ["--judge-model", "m", "--judge-key", "NO_KEY"]


class Referee(BaseHTTPRequestHandler):
    """A judge: `server.rule(first answer, second answer)` is its reply."""

    def log_message(self, *_):
        pass

    def do_POST(self):
        text = json.loads(self.rfile.read(int(self.headers["content-length"])))["messages"][-1]["content"]
        between = lambda name: text.partition(f"<{name}>\n")[2].partition(f"\n</{name}>")[0]
        self.server.asked.append((between("first"), between("second")))
        message = {"role": "assistant", "content": self.server.rule(*self.server.asked[-1])}
        data = json.dumps({"model": "m", "choices": [{"message": message, "finish_reason": "stop"}]}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture(scope="module")
def referee():
    with ThreadingHTTPServer(("127.0.0.1", 0), Referee) as server:
        server.asked, server.rule = [], lambda first, second: "first"
        server.url = f"http://127.0.0.1:{server.server_port}/v1"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("aligning")
    form = lab.Language(width=8, layers=1, heads=2, context=16)
    policy = form.build(lab.text_spec(WORDS, prompt=8, answer=4), key=jax.random.key(0))
    lab.save_language(policy.sampled(temperature=0.5, top_k=7, top_p=0.75), folder / "model")
    rows = [json.dumps({"prompt": p, "chosen": a, "rejected": b}) for p, a, b in PAIRS]
    (folder / "prefs.jsonl").write_text("\n".join(rows))
    return folder


def test_a_judge_that_always_says_first_gives_no_winner_and_a_stopped_run_goes_on(place, referee, monkeypatch):
    judging = Judging(referee.url, "m", key="", prompts=4)
    out, given = place / "out", {"judging": judging, "methods": ["dpo"], "budget": "1s", "progress": False}
    monkeypatch.setattr(aligning, "decided", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        aligning.align(place / "prefs.jsonl", place / "model", out=out, **given)
    assert not (out / "result.json").exists()
    monkeypatch.undo()
    with pytest.raises(BadInput, match="holds work that was begun"):
        aligning.align(place / "prefs.jsonl", place / "model", out=out, **given)
    with pytest.raises(BadInput, match="begun with another seed"):
        aligning.align(place / "prefs.jsonl", place / "model", out=out, seed=3, resume=True, **given)
    monkeypatch.setattr(aligning, "train", None)  # what is trained is not trained again
    found = lab.solve(place / "prefs.jsonl", model=place / "model", out=out, resume=True, **given)
    assert found.winner is None
    document = json.loads((out / "result.json").read_text())
    confirmed = document["confirmed"]
    assert confirmed["win_rate"] == 0.5
    assert confirmed["prompts"] == 2
    assert confirmed["wins"] == confirmed["losses"] == 1.0 - confirmed["ties"] / 2  # first, in either order
    assert document["diagnostics"]["dpo"]["over"] == "4 pairs"
    assert "No winner" in (out / "report.html").read_text()
    assert "AutoModelForCausalLM" in (out / "report.html").read_text()
    assert not (out / "runs").exists()

    from transformers import AutoConfig, AutoTokenizer, GenerationConfig

    folder = out / "checkpoints" / "dpo"
    assert AutoConfig.from_pretrained(folder).hidden_size == 8
    assert AutoTokenizer.from_pretrained(folder)("12>")["input_ids"] == WORDS.encode("12>")
    advised = GenerationConfig.from_pretrained(folder)
    assert (advised.temperature, advised.top_k, advised.top_p) == (0.5, 7, 0.75)
    before, after = (lab.load_language(path).network.embedding for path in (place / "model", folder))
    assert float(jnp.abs(before - after).max()) > 0


def test_one_half_of_the_prompts_chooses_and_the_other_confirms_in_both_orders(referee, tmp_path):
    referee.rule = lambda first, second: "first" if "good" in first else "second" if "good" in second else "tie"
    jury = Jury(Judging(referee.url, "m", key=""))
    jury.ready(1_000, 10**6, cache=tmp_path / "judge.sqlite")
    referee.asked.clear()
    prompts, start = [f"q{i}" for i in range(16)], ["plain"] * 16
    answers = {"better": ["good"] * 15 + ["plain"], "worse": ["bad"] * 16}
    found = decided(jury.compare, answers, start, prompts)
    assert found.chosen == "better"
    assert found.won
    assert found.selection["worse"].value == 0.5
    assert (found.confirmed.wins, found.confirmed.ties) == (7.0, 1.0)  # equal answers are a tie that nobody is asked about
    assert found.confirmed.value == 7.5 / 8
    assert len(referee.asked) == 2 * (8 + 8 + 7)
    assert jury.cost(2, prompts, 100)[0] == 2 * (8 + 8 + 8) + 2
    with pytest.raises(BadInput, match="raise --judge-budget"):
        Jury(Judging(referee.url, "m", key="", budget="10 calls")).ready(50, 100)
    shares = np.array([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1.0]])
    assert win_rate(shares).value == 0.75
    assert win_rate(shares).prompts == 2


def test_a_checker_of_a_task_judges_without_an_endpoint():
    jury = Jury(Judging("text/sorting"))
    shares = jury.compare(["sort 17 81 64 91:"] * 2, ["17 64 81 91", "17"], ["17 81 64 91", "3"])
    np.testing.assert_array_equal(shares, [[1, 0, 0, 0], [0, 1, 0, 0]])
    with pytest.raises(BadInput):
        jury.require(["2+2="] * 4)
    with pytest.raises(BadInput, match="several turns"):
        Jury(Judging("text/twenty-questions"))


def test_data_of_every_layout_find_the_methods_that_fit_them():
    ratings = Judged(
        "ratings", (Rating("1>", "1", 5.0), Rating("1>", "2", 3.0), Rating("1>", "3", 3.0), Rating("2>", "2", 4.0))
    )
    pairs = alignment.paired(ratings)
    assert [(row.a, row.b) for row in pairs.rows] == [("1", "2"), ("1", "3")]
    assert alignment.threshold(ratings) == 3.5
    assert alignment.fitting(ratings, None) == ("sft", "kto", "dpo")
    alone = Judged("ratings", (Rating("1>", "1", 1.0), Rating("2>", "2", 0.0)))
    assert alignment.fitting(alone, None) == ("sft", "kto")
    assert alignment.threshold(alone) == 0.5
    chats = Judged("chats", (Chat(({"role": "user", "content": "a"}, {"role": "assistant", "content": "b"})),))
    assert alignment.fitting(chats, None) == ("sft",)
    with pytest.raises(BadInput, match="dpo needs two answers"):
        alignment.fitting(alone, ["dpo"])
    both = alignment.rated(Judged("pairs", (Pair("1>", "1", "2", 0.8),)))
    assert [(row.answer, round(row.rating, 3)) for row in both.rows] == [("1", 0.8), ("2", 0.2)]
    policy = lab.Language(width=8, layers=1, heads=2, context=16).build(
        lab.text_spec(WORDS, prompt=8, answer=4), key=jax.random.key(0)
    )
    spec = alignment.room(ratings, policy, None)
    plan = alignment.make_plan(ratings, spec, policy, methods=3, seconds=60, rank=4, tune=False)
    assert plan.updates == 3  # three epochs of one batch
    assert plan.scale == 1000.0  # a hundred times for the size, ten times for adapters
    learners = {one.name: one.learner for one in alignment.candidates(ratings, plan, ("sft", "kto", "dpo"))}
    assert learners["kto"].threshold == 3.5
    assert learners["dpo"].learning_rate == pytest.approx(1e-3)


def test_diagnostics_count_what_gained_more_than_the_start():
    random = np.random.default_rng(0)
    start, now = random.normal(size=(2, 40))
    judged = Judged("pairs", tuple(Pair("1>", "1", "2", p) for p in [1.0, 0.0, 0.5, 0.9] * 5))
    gain = now - start
    right = [(gain[i] > gain[20 + i]) == (row.p > 0.5) for i, row in enumerate(judged.rows) if row.p != 0.5]
    assert agreement(judged, now, start).value == pytest.approx(np.mean(right))
    good = random.uniform(size=40) < 0.5
    labelled = Judged("ratings", tuple(Rating("1>", "1", float(one)) for one in good))
    area = scipy.stats.mannwhitneyu(gain[good], gain[~good]).statistic / (good.sum() * (~good).sum())
    found = agreement(labelled, now, start)
    assert found.value == pytest.approx(area)
    assert found.interval[0] < area < found.interval[1]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--data", "{}/prefs.jsonl", "--model", "{}/nowhere"], "there is no folder"),
        (["--data", "{}/prefs.jsonl", "--model", "{}"], "config.json"),
        (["--data", "{}/bad.jsonl", "--model", "{}/model"], "no layout that is known"),
        (["--data", "{}/long.jsonl", "--model", "{}/model"], "row 2 has a prompt of 20 tokens"),
        (["--data", "{}/prefs.jsonl", "--model", "{}/model", "--judge", "http://127.0.0.1:9/v1"], "--judge-model"),
        (["--data", "{}/prefs.jsonl", "--model", "{}/model", "--judge", "URL", *KEYLESS], "NO_KEY is not set"),
        (["--data", "{}/prefs.jsonl", "--model", "{}/damaged"], "is not finite"),
        (["--data", "{}/prefs.jsonl", "--model", "{}/model", "--methods", "ppo"], "no method 'ppo'"),
        (["--data", "{}/prefs.jsonl", "--judge", "text/sorting"], "give --model"),
        (["--data", "{}/prefs.jsonl", "--model", "{}/model", "--task", "cartpole"], "does not go with --model"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_sentence_and_status_2(place, referee, words, sentence, capsys, tmp_path):
    if not (place / "damaged").exists():
        (place / "bad.jsonl").write_text('{"question": "1", "answer": "2"}\n')
        row = {"prompt": "1>", "chosen": "1", "rejected": "2"}
        (place / "long.jsonl").write_text("\n".join(json.dumps(one) for one in (row, {**row, "prompt": "1" * 20})))
        policy = lab.load_language(place / "model")
        broken = jax.tree.map(lambda leaf: leaf * jnp.nan, policy.network)
        lab.save_language(
            lab.load_language(place / "model").__class__(broken, *list(vars(policy).values())[1:]), place / "damaged"
        )
    said = [word.replace("{}", str(place)).replace("URL", referee.url) for word in words]
    assert main(["solve", *said, "--out", str(tmp_path / "out")]) == 2
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert sentence in told
    assert "Traceback" not in told


def test_an_endpoint_that_is_down_and_the_forecast_are_told_before_anything_is_spent(place, tmp_path, capsys):
    judging = Judging("http://127.0.0.1:9/v1", "m", key="", prompts=4, retries=0)
    with pytest.raises(BadInput, match="did not answer"):
        aligning.align(place / "prefs.jsonl", place / "model", out=tmp_path / "down", judging=judging, progress=False)
    assert not (tmp_path / "down").exists()
    words = [
        "--data",
        str(place / "prefs.jsonl"),
        "--model",
        str(place / "model"),
        "--judge",
        "http://127.0.0.1:9/v1",
        "--judge-model",
        "m",
    ]
    assert main(["solve", *words, "--dry-run", "--out", str(tmp_path / "dry")]) == 0
    told = capsys.readouterr().out
    assert "at most 22 times" in told  # 4 methods on 2 prompts and one on 2, in both orders, and a pair to begin with
    assert not (tmp_path / "dry").exists()
