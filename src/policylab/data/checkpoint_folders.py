"""Language models in Hugging Face's checkpoint folders: read and written as they are, bfloat16 kept, no code of theirs run.

A folder holds config.json, model.safetensors (or shards with model.safetensors.index.json), tokenizer.json, and perhaps
tokenizer_config.json, chat_template.jinja and generation_config.json. GPT-2, Llama, Qwen2 and Qwen3 are understood.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from policylab.checkpoints import write_atomically
from policylab.data.checkpoint_names import architecture_of, as_dtype, config_of, decoder_from, tensors_of
from policylab.errors import BadInput
from policylab.policies.language import LanguagePolicy, language_policy
from policylab.tokenizer import Tokenizer, library

_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"


def load_language(folder: str | Path, *, answer: int = 64, dtype: str | None = None) -> LanguagePolicy:
    """The policy of a checkpoint folder, writing at most `answer` tokens at temperature 1; `dtype` "float32" or "bfloat16" turns its
    parameters into another kind. `generation_settings(folder)` has the settings that its makers advise for sampling.

    Raises `BadInput` naming the file and what is wrong with it: another architecture, a missing or wrong-shaped tensor, no tokenizer.
    """
    folder = Path(folder)
    config = _document(folder / "config.json")
    config = config if dtype is None else {**config, "dtype": dtype}
    architecture = architecture_of(config, str(folder / "config.json"))
    tokenizer = load_tokenizer(folder)
    read, names = _reader(folder)
    gpt2 = config["model_type"] == "gpt2"

    def tensor(name: str) -> np.ndarray:
        for known in (
            name,
            name.removeprefix("transformer.") if gpt2 else name,
        ):  # the first GPT-2 was saved without the prefix
            if known in names:
                return read(known)
        raise BadInput(f"{folder} has no tensor {name}, which its config.json asks for: it is incomplete, or of another model")

    return language_policy(decoder_from(architecture, tensor), tokenizer, answer=answer)


def save_language(
    policy: LanguagePolicy,
    folder: str | Path,
    *,
    shard: int = 5_000_000_000,
    advice: Mapping[str, Any] = {},
    dtype: str | None = None,
) -> Path:
    """Write a policy's network and tokenizer as a checkpoint folder that `transformers` and `load_language` read, in shards of at most
    `shard` bytes each; `dtype` "float32" or "bfloat16" turns its parameters into another kind.

    generation_config.json advises to draw as the policy does, where it is greedy, cuts the tail or has another temperature than 1; `advice`
    (`temperature`, `top_k`, `top_p`, as `generation_settings` of the folder that it came from gives them) adds to that. Raises `BadInput`
    for an architecture that has no name there, and for a folder that holds a model already."""
    folder = Path(folder)
    if (folder / "config.json").exists():
        raise BadInput(f"{folder} holds a model already: name another folder")
    network = policy.network if dtype is None else as_dtype(policy.network, dtype)
    tokenizer, tensors = Tokenizer.of(policy.tokenizer), tensors_of(network)
    ids = {"bos_token_id": tokenizer.begin, "eos_token_id": _one_or_all(tokenizer.end), "pad_token_id": tokenizer.pad}
    folder.mkdir(parents=True, exist_ok=True)
    _save_tensors(folder, tensors, shard)
    _write(folder / "generation_config.json", ids | _advised(policy, advice))
    document = tokenizer.document
    _write(folder / "tokenizer.json", document["tokenizer"])
    names = {"bos_token": document["begin"], "eos_token": document["end"][0], "pad_token": document["pad"]}
    named = {name: value for name, value in names.items() if value is not None}
    context = network.architecture.context
    _write(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": context,
            "clean_up_tokenization_spaces": False,
            **named,
        },
    )
    if tokenizer.template:
        write_atomically(folder / "chat_template.jinja", tokenizer.template.encode())
    _write(folder / "config.json", config_of(network.architecture) | ids)  # last: a folder with one is complete
    return folder


def load_tokenizer(folder: str | Path) -> Tokenizer:
    """The tokenizer of a checkpoint folder, with its special tokens and chat template."""
    folder = Path(folder)
    try:
        model = library().Tokenizer.from_file(str(_existing(folder / "tokenizer.json")))
    except BadInput:
        raise
    except Exception as error:  # the library raises bare Exceptions
        raise BadInput(f"{folder / 'tokenizer.json'} is damaged ({str(error)[:80]}): save it again") from None
    config = _document(folder / "tokenizer_config.json", needed=False)
    ids = {**_document(folder / "config.json", needed=False), **_document(folder / "generation_config.json", needed=False)}

    def name(of: str) -> list[str]:
        numbers = ids.get(f"{of}_token_id")
        given = config.get(f"{of}_token")
        found = [given["content"] if isinstance(given, dict) else given] if given else []
        numbers = numbers if isinstance(numbers, list) else [] if numbers is None else [numbers]
        return list(dict.fromkeys([*found, *filter(None, map(model.id_to_token, numbers))]))

    end = name("eos")
    if not end:
        raise BadInput(f"{folder} names no token that ends a text: give eos_token in tokenizer_config.json")
    template = config.get("chat_template") or ""
    if isinstance(template, list):  # several by name
        template = next((one["template"] for one in template if one.get("name") == "default"), "")
    if (folder / "chat_template.jinja").exists():
        template = (folder / "chat_template.jinja").read_text(encoding="utf-8")
    return Tokenizer(model, pad=(name("pad") or end)[0], end=end, begin=next(iter(name("bos")), None), template=template)


def generation_settings(folder: str | Path) -> dict[str, Any]:
    """What generation_config.json advises: those of `temperature`, `top_k` and `top_p` that it names, for `policy.sampled(...)`."""
    document = _document(Path(folder) / "generation_config.json", needed=False)
    found = {name: document[name] for name in ("temperature", "top_k", "top_p") if document.get(name) is not None}
    return found if document.get("do_sample", True) else {}


def _advised(policy: LanguagePolicy, advice: Mapping[str, Any]) -> dict[str, Any]:
    """The part of generation_config.json about drawing tokens; empty where nothing is special."""
    if policy.sampling.greedy:
        return {"do_sample": False}
    own = {"temperature": float(policy.sampling.temperature), "top_p": float(policy.sampling.top_p)}
    found = {name: float(f"{value:.7g}") for name, value in own.items() if value != 1.0}
    if int(policy.sampling.top_k) < policy.network.architecture.vocabulary:
        found["top_k"] = int(policy.sampling.top_k)
    found = {**found, **advice}
    return {"do_sample": True, **found} if found else {}


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise BadInput(
            f"there is no file {path}: give the folder of a checkpoint, with config.json, tokenizer.json and safetensors"
        )
    return path


def _document(path: Path, *, needed: bool = True) -> dict[str, Any]:
    if not needed and not path.is_file():
        return {}
    path = _existing(path)
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise BadInput(f"{path} is damaged, it is no JSON object: save it again")
    return document


def _reader(folder: Path) -> tuple[Callable[[str], np.ndarray], set[str]]:
    """A function that reads one tensor, and the names that there are."""
    from safetensors import SafetensorError, safe_open

    if (folder / _INDEX).is_file():
        files = _document(folder / _INDEX).get("weight_map", {})
        if not all(isinstance(file, str) and Path(file).name == file for file in files.values()):
            raise BadInput(f"{folder / _INDEX} names files outside of its folder: save the checkpoint again")
    elif not (folder / _WEIGHTS).is_file() and list(folder.glob("*.bin")):
        raise BadInput(
            f"{folder} has its weights in pickles, which can run code: save it with safetensors (safe_serialization=True)"
        )
    else:
        _existing(folder / _WEIGHTS)
        files = None
    opened: dict[str, Any] = {}

    def file(name: str) -> Any:
        if name not in opened:
            try:
                opened[name] = safe_open(_existing(folder / name), framework="numpy")
            except (SafetensorError, OSError) as error:
                raise BadInput(f"{folder / name} is damaged or is no safetensors file ({error}): save it again") from None
        return opened[name]

    if files is None:
        files = dict.fromkeys(file(_WEIGHTS).keys(), _WEIGHTS)

    def read(name: str) -> np.ndarray:
        try:
            return file(files[name]).get_tensor(name)
        except SafetensorError as error:
            raise BadInput(f"{folder / files[name]} has no readable tensor {name} ({error}): save it again") from None

    return read, set(files)


def _save_tensors(folder: Path, tensors: dict[str, np.ndarray], shard: int) -> None:
    from safetensors.numpy import save

    groups: list[dict[str, np.ndarray]] = [{}]
    for name, array in tensors.items():
        if groups[-1] and sum(a.nbytes for a in groups[-1].values()) + array.nbytes > shard:
            groups.append({})
        groups[-1][name] = array
    if len(groups) == 1:
        write_atomically(folder / _WEIGHTS, save(tensors, metadata={"format": "pt"}))
        return
    names = [f"model-{i + 1:05d}-of-{len(groups):05d}.safetensors" for i in range(len(groups))]
    for name, group in zip(names, groups, strict=True):
        write_atomically(folder / name, save(group, metadata={"format": "pt"}))
    where = {tensor: name for name, group in zip(names, groups, strict=True) for tensor in group}
    _write(folder / _INDEX, {"metadata": {"total_size": sum(a.nbytes for a in tensors.values())}, "weight_map": where})


def _one_or_all(ids: Sequence[int]) -> int | list[int]:
    return ids[0] if len(ids) == 1 else list(ids)


def _write(path: Path, document: Any) -> None:
    write_atomically(path, (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode())
