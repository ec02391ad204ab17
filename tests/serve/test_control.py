"""A control policy behind HTTP: the same actions as in the process, whoever else asks at the same time."""

from __future__ import annotations

import re
import socket
from concurrent.futures import ThreadPoolExecutor

import httpx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import policylab as lab
from policylab import spaces
from policylab.cli import main
from policylab.data.checkpoint_folders import save_language
from policylab.experience import Spec
from policylab.hyperparameters import traced
from policylab.policies.gaussian import Gaussian
from policylab.policies.language import Language, text_spec
from policylab.policy import Policy
from policylab.serve import hosting
from policylab.serve.control import control_app
from policylab.serve.hosting import served
from policylab.tokenizer import characters

SPEC = Spec(spaces.Box((3,)), spaces.Box((2,), -2.0, 2.0), units=(("action", "N"),))
NAMED = Spec(
    spaces.Composite((("place", spaces.Box((2,))), ("gear", spaces.Discrete(3)), ("count", spaces.Box((), 0, 255, "uint8")))),
    spaces.Composite((("push", spaces.Box((2,))), ("gear", spaces.Discrete(3)))),
)


class Adding(Policy):
    """Remembers the sum of what it has seen."""

    shift: jax.Array

    def initial_memory(self, *, key):
        return jnp.zeros(2)

    def act(self, observation, memory, *, key):
        memory = memory + observation["place"] + self.shift
        return {"push": memory, "gear": observation["gear"]}, memory


@pytest.fixture(scope="module")
def policy():
    return Gaussian(width=8, depth=1).build(SPEC, key=jax.random.key(0)).mode()


@pytest.fixture(scope="module")
def client(policy):
    app = control_app(policy, SPEC, name="arm", token="t", batch=16, waiting=64, most=50_000)
    headers = {"authorization": "Bearer t"}
    with served(app) as url, httpx.Client(base_url=url, headers=headers, timeout=20.0, verify=False) as client:
        yield client


def test_actions_are_those_of_the_policy_for_many_clients_at_once(client, policy):
    observations = np.random.default_rng(0).standard_normal((64, 3)).round(3)
    wanted = jax.vmap(lambda o: policy.act(o, None, key=jax.random.key(0))[0])(jnp.asarray(observations, jnp.float32))
    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(lambda o: client.post("/act", json={"observation": o.tolist()}).json(), observations))
    np.testing.assert_allclose([answer["action"] for answer in answers], wanted, atol=1e-5)
    several = client.post("/act", json={"observations": observations[:16].tolist()}).json()["actions"]
    np.testing.assert_allclose(several, wanted[:16], atol=1e-5)


def test_the_schema_says_what_it_takes(client):
    schema = client.get("/schema").json()
    assert spaces.from_json(schema["observation"]) == SPEC.observation
    assert spaces.from_json(schema["action"]) == SPEC.action
    assert (schema["name"], schema["units"], schema["sessions"], schema["most_observations"]) == (
        "arm",
        {"action": "N"},
        False,
        16,
    )
    assert client.get("/health").json()["status"] == "ok"


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({}, "observation"),
        ([], "object"),
        ({"observation": [1, 2]}, r"shape \[3\]"),
        ({"observation": [1, 2, "a"]}, r"shape \[3\]"),
        ({"observation": [[1], 2, 3]}, r"shape \[3\]"),
        ({"observation": None}, r"shape \[3\]"),
        ({"observation": [1, 2, 1e999]}, "finite"),
        ({"observation": [1, 2, 3], "observations": []}, "observation"),
        ({"observations": []}, "1 to 16"),
        ({"observations": [[1, 2, 3]] * 17}, "1 to 16"),
        ({"observations": [[1, 2, 3], [1, 2]]}, r"observations\[1\]"),
        ({"observation": [1, 2, 3], "noise": 1}, "noise is not known"),
        ({"observation": [1, 2, 3], "session": 5}, "session"),
    ],
)
def test_mistakes_are_told(client, body, says):
    content = str(body).replace("'", '"').replace("None", "null").replace("inf", "1e999")
    response = client.post("/act", content=content)
    assert response.status_code == 400
    assert re.search(says, response.json()["error"]["message"])


def test_tokens_sizes_and_paths(client):
    assert client.post("/act", json={"observation": [1, 2, 3]}, headers={"authorization": "Bearer u"}).status_code == 401
    assert client.post("/act", content=b"[" + b"1," * 30_000).status_code == 413
    assert client.get("/act").status_code == 405
    assert client.get("/nothing").json()["error"]["message"]


def test_a_policy_that_remembers_has_sessions():
    app = control_app(Adding(jnp.ones(2)), NAMED, batch=8)
    see = lambda x: {"place": [x, 0.5], "gear": 2, "count": 7}
    with served(app) as url, httpx.Client(base_url=url, timeout=20.0, verify=False) as client:
        ask = lambda **body: client.post("/act", json=body)
        assert client.get("/schema").json()["sessions"]
        first = ask(observation=see(1.0), session="a", reset=True).json()["action"]
        assert first == {"push": [2.0, 1.5], "gear": 2}
        assert ask(observation=see(1.0), session="b", reset=True).json()["action"]["push"] == [2.0, 1.5]
        assert ask(observation=see(0.0), session="a").json()["action"]["push"] == [3.0, 3.0]
        assert ask(observation=see(0.0), session="a", reset=True).json()["action"]["push"] == [1.0, 1.5]
        assert ask(observation=see(0.0), session="c").status_code == 409
        assert "name a session" in ask(observation=see(0.0)).json()["error"]["message"]
        for part, value in (("gear", 3), ("gear", True), ("count", 256), ("count", 1.5), ("place", [1.0])):
            assert f"observation.{part}" in ask(observation={**see(0.0), part: value}, session="a").json()["error"]["message"]
        assert "place, gear, count" in ask(observation={"place": [1, 2]}, session="a").json()["error"]["message"]


def test_sampled_actions_differ_from_call_to_call():
    free = Gaussian(width=8, depth=1).build(SPEC, key=jax.random.key(0))
    with served(control_app(free, SPEC, seed=1)) as url, httpx.Client(base_url=url, timeout=20.0, verify=False) as client:
        actions = [tuple(client.post("/act", json={"observation": [0, 0, 0]}).json()["action"]) for _ in range(4)]
    assert len(set(actions)) == 4


def test_the_command_refuses_what_it_cannot_serve(capsys, tmp_path, monkeypatch):
    monkeypatch.delenv("POLICYLAB_TOKEN", raising=False)
    assert main(["serve", "nothing"]) == 2
    assert "there is no nothing" in capsys.readouterr().err
    assert main(["serve", "nothing", "--host", "0.0.0.0"]) == 2
    assert "POLICYLAB_TOKEN" in capsys.readouterr().err
    (tmp_path / "policy.safetensors").write_bytes(b"damaged")
    assert main(["serve", str(tmp_path / "policy.safetensors")]) == 2
    assert "damaged" in capsys.readouterr().err
    assert main(["serve", str(tmp_path / "policy.safetensors"), "--prompt", "8"]) == 2
    assert "only a language model has" in capsys.readouterr().err


def test_the_command_serves_a_checkpoint_folder_until_interrupted(tmp_path, monkeypatch, capsys):
    spec = text_spec(characters(), prompt=32, answer=16)
    save_language(Language(width=16, layers=1, heads=2).build(spec, key=jax.random.key(0)), tmp_path / "tiny")
    monkeypatch.setenv("POLICYLAB_TOKEN", "secret-token")
    seen = []

    def visit():
        line = capsys.readouterr().err
        url = line.split(" at ")[1].split(",")[0]
        body = {"model": "tiny", "prompt": "a", "max_tokens": 4}
        with httpx.Client(base_url=url, timeout=30.0, verify=False) as client:
            seen.extend([line, client.post("/v1/completions", json=body).status_code])
            seen.append(client.post("/v1/completions", json=body, headers={"authorization": "Bearer secret-token"}).json())
        raise KeyboardInterrupt

    monkeypatch.setattr(hosting, "_wait", visit)
    assert main(["serve", str(tmp_path / "tiny"), "--port", "0", "--answer", "8", "--batch", "2"]) == 0
    assert "served the language model tiny at http://127.0.0.1:" in capsys.readouterr().out
    assert "serving the language model tiny" in seen[0]
    assert "secret-token" not in seen[0]
    assert seen[1] == 401
    assert seen[2]["usage"]["completion_tokens"] <= 4
    taken = socket.create_server(("127.0.0.1", 0))
    with taken:
        port = str(taken.getsockname()[1])
        assert main(["serve", str(tmp_path / "tiny"), "--port", port]) == 2
        assert "choose another --port" in capsys.readouterr().err


def test_the_command_serves_the_mode_of_a_saved_policy(tmp_path, monkeypatch, capsys):
    learner = lab.BC(policy=Gaussian(width=8, depth=1))
    state = jax.tree.map(lambda leaf: leaf[None], traced(learner).init(SPEC, key=jax.random.key(0)))
    run = lab.Run(learner, SPEC, (0,), state)
    path = run.save_policy(tmp_path / "arm.safetensors")
    seen = []

    def visit():
        url = capsys.readouterr().err.split(" at ")[1].split(",")[0]
        seen.extend(httpx.post(f"{url}/act", json={"observation": [0, 0, 1]}).json()["action"] for _ in range(2))
        raise KeyboardInterrupt

    monkeypatch.delenv("POLICYLAB_TOKEN", raising=False)
    monkeypatch.setattr(hosting, "_wait", visit)
    assert main(["serve", str(path), "--port", "0", "--json"]) == 0
    assert '"the policy arm"' in capsys.readouterr().out
    wanted = run.policy().mode().act(jnp.array([0.0, 0.0, 1.0]), None, key=jax.random.key(0))[0]
    np.testing.assert_allclose(seen, [wanted, wanted], atol=1e-5)
