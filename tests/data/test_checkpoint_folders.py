"""Checkpoint folders of Hugging Face: what `transformers` computed with them, we compute; what we write, it reads.

The folders and expected values were made by fixtures/language/make.py, with transformers and torch.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import safe_open

import policylab as lab
from policylab.data.checkpoint_folders import generation_settings, load_language, save_language
from policylab.experience import Tokens
from policylab.policies.generation import write

FOLDERS = Path(__file__).parent.parent / "fixtures" / "language"
NAMES = ("gpt2", "llama", "qwen2", "qwen3")


def tensors(folder: Path) -> dict[str, np.ndarray]:
    found = {}
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="numpy") as file:
            found |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return found


@pytest.mark.parametrize("name", NAMES)
def test_logits_and_greedy_answers_are_those_of_transformers(name):
    policy = load_language(FOLDERS / name).mode()
    expected = np.load(FOLDERS / name / "expected.npz")
    ids, valid = jnp.asarray(expected["ids"], jnp.int32), jnp.asarray(expected["valid"])
    logits = np.asarray(policy.token_logits(Tokens(ids, valid.astype(jnp.int32))))
    assert np.abs(logits * expected["valid"][..., None] - expected["logits"]).max() <= 1e-4
    assert np.abs(expected["logits"]).max() > 3
    prompts = Tokens(ids, valid.astype(jnp.int32))
    keys = jax.random.split(jax.random.key(0), 3)
    written = write(policy.network, policy.sampling, None, prompts, keys, length=20, end=policy.end, pad=policy.pad)
    np.testing.assert_array_equal(written.tokens.ids, expected["greedy"])


@pytest.mark.parametrize("name", NAMES)
def test_what_is_saved_is_what_was_loaded_to_the_bit(name, tmp_path):
    policy = load_language(FOLDERS / name)
    save_language(policy, tmp_path / "again")
    theirs, ours = tensors(FOLDERS / name), tensors(tmp_path / "again")
    assert set(theirs) == set(ours)
    for key, value in theirs.items():
        np.testing.assert_array_equal(ours[key], value)
    again = load_language(tmp_path / "again")
    assert jax.tree.structure(again) == jax.tree.structure(policy)
    assert jax.tree.all(jax.tree.map(np.array_equal, again, policy))


def test_bfloat16_is_kept_and_shards_come_back(tmp_path):
    policy = load_language(FOLDERS / "llama", dtype="bfloat16")
    save_language(policy, tmp_path / "m", shard=4000)
    assert len(list((tmp_path / "m").glob("model-*.safetensors"))) > 2
    again = load_language(tmp_path / "m")
    assert again.network.embedding.dtype == jnp.bfloat16
    assert jax.tree.all(jax.tree.map(np.array_equal, again.network, policy.network))
    expected = np.load(FOLDERS / "llama" / "expected.npz")
    text = Tokens(jnp.asarray(expected["ids"], jnp.int32), 2 * jnp.asarray(expected["valid"], jnp.int32))
    wide = load_language(FOLDERS / "llama").log_probs(text)
    np.testing.assert_allclose(again.log_probs(text), wide, atol=0.3)
    written = again.mode().act_many(jax.tree.map(lambda leaf: leaf[0], text), 1, key=jax.random.key(0))
    assert np.isfinite(written.log_probs).all()


@pytest.mark.parametrize("name", NAMES)
def test_transformers_reads_config_and_tokenizer(name, tmp_path):
    transformers = pytest.importorskip("transformers")
    folder = save_language(load_language(FOLDERS / name), tmp_path / "m")
    ours, theirs = (transformers.AutoConfig.from_pretrained(place) for place in (folder, FOLDERS / name))
    assert type(ours) is type(theirs)
    for field in ("vocab_size", "num_hidden_layers", "num_attention_heads", "hidden_size", "rope_parameters", "eos_token_id"):
        assert getattr(ours, field, None) == getattr(theirs, field, None)
    # AutoTokenizer would put Qwen2's own way of splitting words on whatever tokenizer a Qwen2 folder holds.
    tokenizer, policy = transformers.PreTrainedTokenizerFast.from_pretrained(folder), load_language(folder)
    mine = lab.Tokenizer.of(policy.tokenizer)
    assert tokenizer("the cat 12.\n", add_special_tokens=False).input_ids == mine.encode("the cat 12.\n")
    messages = [{"role": "user", "content": "hat"}]
    assert tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True) == mine.chat(messages)
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (mine.end[0], mine.pad)


def test_transformers_computes_the_same_with_what_we_save(tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    for name in NAMES:
        model = transformers.AutoModelForCausalLM.from_pretrained(save_language(load_language(FOLDERS / name), tmp_path / name))
        expected = np.load(FOLDERS / name / "expected.npz")
        with torch.no_grad():
            logits = model(torch.tensor(expected["ids"]), attention_mask=torch.tensor(expected["valid"].astype(int))).logits
        np.testing.assert_array_equal(logits.numpy() * expected["valid"][..., None], expected["logits"])


@pytest.fixture
def broken(tmp_path):
    return Path(shutil.copytree(FOLDERS / "qwen2", tmp_path / "m"))


def edit(folder: Path, file: str = "config.json", **changes) -> None:
    document = json.loads((folder / file).read_text()) | changes
    (folder / file).write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"model_type": "mamba"}, "type 'mamba'"),
        ({"num_hidden_layers": 3}, "no tensor model.layers.2"),
        ({"intermediate_size": 25}, "has shape"),
        ({"hidden_act": "relu"}, "does not compute"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, "'yarn'"),
        ({"num_attention_heads": "four"}, "wrong type"),
        ({"vocab_size": 8}, "tokenizer has 44"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(broken, changes, problem):
    if "vocab_size" in changes:
        weights = {"model.embed_tokens.weight": np.zeros((8, 16), np.float32)}
        from safetensors.numpy import save_file

        save_file(tensors(broken) | weights, broken / "model.safetensors")
    edit(broken, **changes)
    with pytest.raises(lab.BadInput, match=problem):
        load_language(broken)


def test_damaged_and_missing_files_are_one_sentence(broken):
    with pytest.raises(lab.BadInput, match="no file"):
        load_language(broken / "nowhere")
    with pytest.raises(lab.BadInput, match="already"):
        save_language(load_language(broken), broken)
    (broken / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(lab.BadInput, match="damaged"):
        load_language(broken)
    (broken / "model.safetensors").rename(broken / "pytorch_model.bin")
    with pytest.raises(lab.BadInput, match="pickles"):
        load_language(broken)
    (broken / "tokenizer.json").write_text("{}")
    with pytest.raises(lab.BadInput, match=r"tokenizer\.json is damaged"):
        load_language(broken)


def test_advice_on_sampling_is_read(broken):
    assert generation_settings(broken) == {}
    edit(broken, "generation_config.json", temperature=0.6, top_k=20, top_p=0.95, do_sample=True)
    assert generation_settings(broken) == {"temperature": 0.6, "top_k": 20, "top_p": 0.95}
    policy = load_language(broken).sampled(**generation_settings(broken))
    assert int(policy.sampling.top_k) == 20
