"""Problems in words: solutions pass, everything else does not, and no instance is in two splits."""

from __future__ import annotations

import dataclasses
import itertools
import operator
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from policylab.environments import sandbox
from policylab.environments.text import functions, wording
from policylab.environments.text.dialogues import TicTacToeByText, TwentyQuestions, value
from policylab.environments.text.environments import Dialogues, Questions
from policylab.environments.text.functions import Functions
from policylab.environments.text.numbers import Arithmetic, Countdown, Sorting, evaluated
from policylab.environments.text.places import Maze, Retrieval
from policylab.environments.text.problems import SPLITS, Family, final, problems, split_of
from policylab.errors import BadInput
from policylab.experience import Tokens
from policylab.policies.language import Language, is_text
from policylab.policy import Policy
from policylab.scorers.verifier import Verifier
from policylab.tasks import load_task
from policylab.tasks.text import FAMILIES, text_task
from policylab.tokenizer import byte_pairs, characters

KEY = jax.random.key(0)
SINGLE = (Arithmetic, Countdown, Sorting, Retrieval, Maze)
ALL = (*SINGLE, Functions, TwentyQuestions, TicTacToeByText)
LETTERS = characters()
CHAT = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</{{ m.role }}>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"


@pytest.mark.parametrize("family", ALL)
def test_splits_share_no_problem_and_hold_what_their_shares_say(family):
    hard = family(3)
    pools = {split: problems(hard, split, 30) for split in SPLITS}
    questions = {split: {problem.question for problem in pool} for split, pool in pools.items()}
    for one, other in itertools.combinations(SPLITS, 2):
        assert not questions[one] & questions[other]
    assert all(len(questions[split]) == len(pools[split]) == 30 for split in SPLITS)
    assert pools["test"] == problems(family(3), "test", 30), "the same seed gives the same problems"
    other = {problem.question for problem in problems(hard, "test", 10, seed=1)}
    assert all(split_of(question) == "test" for question in other), "whatever the seed"
    random = np.random.default_rng(0)
    drawn = [split_of(Arithmetic(6).draw(random).question) for _ in range(1500)]
    assert abs(drawn.count("train") / 1500 - 0.8) < 0.04


@pytest.mark.parametrize("family", SINGLE)
@pytest.mark.parametrize("difficulty", [1, 2, 4, 7])
def test_solutions_pass_and_those_of_other_problems_hardly(family, difficulty):
    hard = family(difficulty)
    pool = problems(hard, "train", 20)
    questions, solutions = [p.question for p in pool], [p.solution for p in pool]
    assert hard.verify_all(questions, solutions) == [1.0] * len(pool)
    assert hard.verify_all(questions, [f"Let me think.\n <answer> {s} </answer>!" for s in solutions]) == [1.0] * len(pool)
    assert sum(hard.verify_all(questions, solutions[1:] + solutions[:1])) <= len(pool) / 3
    assert sum(hard.verify_all(questions, [""] * len(pool))) == 0.0
    assert max(map(len, solutions)) <= hard.longest_answer
    with pytest.raises(BadInput, match="verify answers with the family"):
        hard.verify("How are you?", "fine")


def test_difficulty_makes_it_longer_and_is_bounded():
    for family in SINGLE:
        sizes = [len(problems(family(level), "train", 1)[0].question) for level in (1, 3, 6)]
        assert sizes[0] < sizes[1] < sizes[2]
    with pytest.raises(BadInput, match="difficulty"):
        Arithmetic(0)
    with pytest.raises(BadInput, match="no split"):
        problems(Arithmetic(), "dev", 3)


def test_expressions_are_read_and_never_run():
    random = np.random.default_rng(0)
    for _ in range(50):
        a, b, c = random.integers(1, 50, 3)
        first, second = random.choice(list("+-*"), 2)
        does = {"+": operator.add, "-": operator.sub, "*": operator.mul}
        found = evaluated(f"({a}{first}{b}){second}{c}")
        assert found is not None
        assert found[0] == does[second](does[first](int(a), int(b)), int(c))
    for bad in (
        "2**99999",
        "__import__('os')",
        "1/0",
        "(" * 150 + ")" * 150,
        "1 if 2 else 3",
        "9" * 500,
        "1.5+1",
        "[1]",
        "1,2",
    ):
        assert evaluated(bad) is None
    countdown = Countdown()
    assert countdown.verify("2 3 4 -> 14", "2+3*4") == 1.0
    assert countdown.verify("2 3 4 -> 14", "(2 + 12) = 14") == 0.0
    assert countdown.verify("2 3 4 -> 12", "3*4 = 12") == 1.0
    assert countdown.verify("2 3 4 -> 9", "3*3") == 0.0
    assert Arithmetic().verify("7+5=", "7+5=12") == 1.0
    assert Arithmetic().verify("7+5=", "12.0") == 0.0


def test_a_maze_is_walked_field_by_field():
    maze = "S.#\n#.#\n#.G"
    walks = ("RDDR", "RDD", "DRDR", "RDDRR", "RDURDDR", "RDDRL", "rd, dr", "RDDX", "R" * 100)
    assert [Maze().verify(maze, walk) for walk in walks] == [1, 0, 0, 0, 0, 0, 1, 0, 0]
    assert Maze().verify(maze, "RDUDDR") == 1.0
    assert final("one\n\n two \n\n") == "two"


@pytest.mark.skipif(bool(sandbox.refusal()), reason="this machine cannot lock programs in")
def test_functions_pass_where_they_do_as_told_and_nothing_else_does(monkeypatch):
    monkeypatch.setattr(functions, "_SANDBOX", dataclasses.replace(functions._SANDBOX, seconds=0.8))
    family = Functions(2)
    pool = problems(family, "train", 8)
    answers = [f"Sure:\n```python\n{pool[0].solution}\n```\nDone."] + [problem.solution for problem in pool[1:]]
    assert family.verify_all([p.question for p in pool], answers) == [1.0] * 8
    question = "f(x: list[int]): add 2 to every number, then return the sum."
    right = "def f(x): return sum(a + 2 for a in x)"
    tries = {
        right: 1.0,
        "def f(x): return sum(x) + 2 * len(x)": 1.0,
        "def f(x): return sum(x)": 0.0,
        "def f(x): return [sum(x) + 2 * len(x)]": 0.0,
        "def f(x): return float(sum(x) + 2 * len(x))": 0.0,
        "def f(x: return 1": 0.0,
        "def f(x):\n while True: pass": 0.0,
        "print('[1]' * 99)\nraise SystemExit(0)": 0.0,
        "class E:\n __eq__ = lambda *a: True\ndef f(x): return E()": 0.0,
        "import os\ndef f(x): return os.listdir('/etc')": 0.0,
    }
    assert family.verify_all([question] * len(tries), list(tries)) == list(tries.values())
    with pytest.raises(BadInput, match="no step"):
        family.verify("f(x: list[int]): bake a cake, then return the sum.", right)


def _play(family, instance, say, seed=0):
    reply, said = family.start(instance, seed), []
    while not reply.over:
        said.append(say(instance, reply.state))
        reply = family.reply(instance, reply.state, said[-1])
    return reply.reward, said


@pytest.mark.parametrize("level", [1, 3, 5])
def test_an_expert_finds_every_thing_within_twenty_turns(level):
    family = TwentyQuestions(level)
    for problem in problems(family, "train", 12):
        reward, said = _play(family, problem.question, family.expert)
        assert reward == 1.0
        assert len(said) <= 20
        assert family.verify(problem.question, "\n".join(said)) == 1.0
    assert _play(family, problem.question, lambda *_: "eh")[0] == 0.0
    assert len(_play(family, problem.question, lambda *_: "eh")[1]) == 20
    reply = family.reply(problem.question, family.start(problem.question, 0).state, "green ring!")
    assert (reply.over, reply.reward) == (True, 0.0)
    yes = family.reply(problem.question, reply.state, f"{problem.question.split()[0].title()}?")
    assert yes.text == "yes"


def test_perfect_tic_tac_toe_never_loses_and_the_other_side_gets_better_with_difficulty():
    assert value("." * 9, "X") == 0
    random = np.random.default_rng(0)
    free = lambda _, state: str(random.choice([i + 1 for i in range(9) if state[i] == 0]))
    scores = []
    for level in (1, 2, 3, 4):
        family = TicTacToeByText(level)
        pool = [problem.question for problem in problems(family, "train", 40)]
        assert all(_play(family, board, family.expert, seed=i)[0] >= 0.5 for i, board in enumerate(pool))
        scores.append(np.mean([_play(family, board, free, seed=i)[0] for i, board in enumerate(pool)]))
    assert scores[0] > scores[1] > scores[3]
    assert family.reply("XO.......", [1, 2, *[0] * 7, 5], "2").over
    assert family.reply("XX.OO....", [1, 1, 0, 2, 2, 0, 0, 0, 0, 5], "I take 3.").reward == 1.0
    with pytest.raises(BadInput, match="no board"):
        family.start("XO", 0)


def test_questions_as_an_environment_score_whole_batches_on_the_host():
    environment = Questions.of(Arithmetic(2), LETTERS, split="test", count=32)
    assert is_text(environment.spec)
    assert environment.spec.horizon == 1
    calls = []
    original = Arithmetic.verify_all

    def counted(self, questions, answers):
        calls.append(len(questions))
        return original(self, questions, answers)

    rows = jnp.arange(environment.count)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Family, "verify_all", counted)
        right = environment.solutions()
        wrong = jax.tree.map(lambda leaf: jnp.roll(leaf, 1, axis=0), right)
        both = jax.tree.map(lambda a, b: jnp.stack([a, b]), right, wrong)
        step = jax.jit(jax.vmap(jax.vmap(environment.step, in_axes=(0, 0, None)), in_axes=(None, 0, None)))
        _, steps = step(rows, both, KEY)
    np.testing.assert_array_equal(steps.reward[0], 1.0)
    assert steps.reward[1].mean() < 0.2
    assert calls == [2 * environment.count], "one call for the whole batch"
    assert bool(steps.terminal.all())
    np.testing.assert_array_equal(steps.info["success"], steps.reward)
    state, observation = environment.reset(KEY)
    assert LETTERS.texts(observation)[0].endswith("=\n")
    np.testing.assert_array_equal(observation.ids, environment.prompts.ids[state])
    assert observation.ids.shape == environment.spec.observation.shape
    verifier = Verifier(environment.pool.family, LETTERS.json)
    scores = jax.jit(jax.vmap(verifier.scores))(environment.prompts, right)
    np.testing.assert_array_equal(scores.sum(1), 1.0)
    last = np.asarray(right.kind == 2).sum(1) - 1
    assert (np.asarray(scores)[np.arange(32), last] == 1.0).all(), "the reward stands on the end token"


def test_thousands_of_answers_are_checked_in_a_moment():
    family = Countdown(3)
    pool = problems(family, "train", 500)
    questions, answers = [p.question for p in pool] * 4, [p.solution for p in pool] * 4
    started = time.perf_counter()
    assert sum(family.verify_all(questions, answers)) == 2000
    assert time.perf_counter() - started < 5.0


@pytest.mark.parametrize(
    "tokenizer", [LETTERS, byte_pairs(["red? yes no\n12345"], vocabulary=270, template=CHAT)], ids=["letters", "chat"]
)
def test_dialogues_grow_turn_by_turn_without_gaps(tokenizer):
    environment = Dialogues.of(TwentyQuestions(1), tokenizer, count=8, answer=24)
    state, observation = jax.jit(jax.vmap(environment.reset))(jax.random.split(KEY, 3))
    step = jax.jit(jax.vmap(environment.step, in_axes=(0, 0, None)))
    pool = problems(environment.pool.family, "train", 8)
    things = [pool[int(row)].question for row in state.row]
    asked = tokenizer.tokens(["green?"] * 3, length=24, kind=2, ended=True)
    state, first = step(state, asked, KEY)
    assert not bool(first.terminal.any())
    for i, thing in enumerate(things):
        heard = "yes" if "green" in thing else "no"
        text = tokenizer.texts(Tokens(first.observation.ids[i], first.observation.kind[i]))[0]
        assert text.startswith(tokenizer.texts(Tokens(observation.ids[i], observation.kind[i]))[0])
        assert f"green?{'</assistant><user>' if tokenizer.template else chr(10)}{heard}" in text
        kind = np.asarray(first.observation.kind[i])
        assert (np.diff((kind > 0).astype(int)) <= 0).all(), "padding stands at the end alone"
        assert wording.read(tokenizer, np.asarray(first.observation.ids[i]), kind) == "green?"
    guess = tokenizer.tokens([f"{thing}!" for thing in things], length=24, kind=2, ended=True)
    _, last = step(state, guess, KEY)
    np.testing.assert_array_equal(last.reward, 1.0)
    assert bool(last.terminal.all())
    assert last.observation.ids.shape[1:] == environment.spec.observation.shape


def test_tic_tac_toe_draws_the_other_side_from_the_reset_key():
    environment = Dialogues.of(TicTacToeByText(1), LETTERS, count=4)
    state, _ = jax.vmap(environment.reset)(jax.random.split(KEY, 40))
    assert len(set(np.asarray(state.memory[:, 9]).tolist())) == 40
    free = [str(int(np.argmin(memory[:9])) + 1) for memory in np.asarray(state.memory)]
    after, _ = jax.vmap(environment.step, in_axes=(0, 0, None))(
        state, LETTERS.tokens(free, length=environment.answer, kind=2, ended=True), KEY
    )
    boards = {(int(row), tuple(np.asarray(memory[:9]).tolist())) for row, memory in zip(after.row, after.memory)}
    assert len(boards) > 8, "the same start and the same move meet several answers"


class Knowing(Policy):
    """Answers the prompts of a list as told, and anything else with nothing."""

    prompts: Tokens
    answers: Tokens

    def act(self, observation, memory, *, key):
        row = jnp.argmax(jnp.all(self.prompts.ids == observation.ids, axis=-1))
        return jax.tree.map(lambda leaf: leaf[row], self.answers), memory


def test_trials_meet_every_problem_of_a_split_once():
    task = text_task("arithmetic", count=8)
    environment = task.environment()
    solutions = environment.solutions()
    half = Tokens(solutions.ids, solutions.kind.at[:4].set(0))
    trials = task.trials(Knowing(environment.prompts, half), name="half")
    assert trials.outcome.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert task.metric(trials) == {"return": 0.5, "score": 50.0, "success": 0.5}
    assert trials.length.tolist() == [1] * 8


def test_language_policies_play_whole_episodes():
    task = text_task("tic-tac-toe", count=4)
    environment = task.environment()
    policy = Language(width=8, layers=1, heads=1).build(environment.spec, key=KEY)
    trials = task.trials(policy)
    assert len(trials) == environment.count
    assert ((trials.length >= 1) & (trials.length <= 5)).all()
    assert ((trials.outcome >= 0.0) & (trials.outcome <= 1.0)).all()


@pytest.mark.parametrize("name", FAMILIES)
def test_every_task_in_words_makes_environments_of_its_splits(name):
    task = load_task(f"text/{name}")
    small = text_task(name, difficulty=2, count=4)
    assert task.spec.tokenizer
    names = {split: small.environment(*small.instances(split)).spec.environment for split in SPLITS}
    assert [name.split()[-1] for name in names.values()] == list(SPLITS)
    assert small.problems("test")[0].question != small.problems("train")[0].question
    assert "difficulty 2" in small.title
    with pytest.raises(BadInput, match="no instance 3"):
        small.environment(3)


def test_wrong_names_are_told():
    with pytest.raises(BadInput, match="no task in words"):
        text_task("chess")
    with pytest.raises(BadInput, match="several turns"):
        text_task("tic-tac-toe").verifier()
    with pytest.raises(BadInput, match="several turns"):
        Questions.of(TwentyQuestions(), LETTERS)
    with pytest.raises(BadInput, match="one turn"):
        Dialogues.of(Arithmetic(), LETTERS)
