"""Tokenizer: between strings, which exist only at the boundary, and `Tokens`, which flow through compiled programs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Any

import jax.numpy as jnp
import numpy as np

from policylab.errors import BadInput
from policylab.experience import Tokens

_SPECIAL = ("<pad>", "<end>", "<begin>")


def bucket(length: int, smallest: int = 8) -> int:
    """The next power of two, at least `smallest`: texts are padded to few lengths, so that few programs are compiled."""
    return max(smallest, 1 << max(length - 1, 0).bit_length())


class Tokenizer:
    """Text <-> ids. `json` is all of it as text, which a Spec and a policy carry; `Tokenizer.of(text)` reads it.

    The document is `{"tokenizer": tokenizer.json of the tokenizers library, "pad", "end": [...], "begin", "template"}`, the special
    tokens as strings and the chat template in Jinja ("" where there is none). Raises `BadInput` where it is damaged.
    """

    def __init__(
        self, model: Any, *, pad: str, end: Sequence[str], begin: str | None = None, template: str = "", text: str = ""
    ):
        self._model, self.template = model, template
        self._pad, self._end, self._begin = pad, list(end), begin
        self._text = text
        ids = {name: model.token_to_id(name) for name in (pad, *end, *([begin] if begin else []))}
        missing = [name for name, number in ids.items() if number is None]
        if missing:
            raise BadInput(f"the tokenizer has no token {missing[0]!r}: name special tokens that are in its vocabulary")
        self.pad: int = ids[pad]
        self.end: tuple[int, ...] = tuple(ids[name] for name in end)
        self.begin: int | None = ids[begin] if begin else None
        self.vocabulary: int = max(model.get_vocab(with_added_tokens=True).values()) + 1

    @staticmethod
    def of(text: str) -> Tokenizer:
        """The tokenizer that `json` wrote; the same text gives the same object. Raises `BadInput` where there is none."""
        if not text:
            raise BadInput(
                "there is no tokenizer in this spec: build it with text_spec(tokenizer), or load a checkpoint that has one"
            )
        return _read(text)

    @cached_property
    def json(self) -> str:
        """The whole tokenizer as one JSON text, equal for equal tokenizers."""
        if self._text:
            return self._text
        document = {
            "tokenizer": json.loads(self._model.to_str()),
            "pad": self._pad,
            "end": self._end,
            "begin": self._begin,
            "template": self.template,
        }
        return json.dumps(document, sort_keys=True, ensure_ascii=False)

    @property
    def document(self) -> dict[str, Any]:
        """What `json` holds."""
        return json.loads(self.json)

    def encode(self, text: str) -> list[int]:
        """The ids of `text`, no special tokens added. Raises `BadInput` where a character has no token."""
        encoding = self._model.encode(text, add_special_tokens=False)
        unknown = getattr(self._model.model, "unk_token", None)
        if unknown is not None and unknown in encoding.tokens and unknown not in text:
            raise BadInput(
                f"{text[:40]!r} holds something that the tokenizer has no token for: use a tokenizer that covers your texts"
            )
        return list(encoding.ids)

    @cached_property
    def begins(self) -> bool:
        """Whether the tokenizer itself puts its begin token before a text (its post-processor does, as Llama's)."""
        return self.begin is not None and self._model.encode("").ids[:1] == [self.begin]

    def prompt(self, text: str) -> list[int]:
        """The ids of a text that a model is to go on with: after the begin token where the tokenizer wants one, and has not been given it."""
        ids = self.encode(text)
        return [self.begin, *ids] if self.begins and self.begin is not None and ids[:1] != [self.begin] else ids

    def decode(self, ids: Sequence[int] | np.ndarray, *, special: bool = False) -> str:
        """The text of these ids, special tokens left out unless `special`."""
        return self._model.decode([int(i) for i in ids], skip_special_tokens=not special)

    def tokens(self, texts: Sequence[str], *, length: int | None = None, kind: int = 1, ended: bool = False) -> Tokens:
        """A batch [text, length] of `kind` (1 given, 2 written by a policy), right-padded to `length` or to the next bucket; `ended`
        puts the end token after each. Raises `BadInput` for a text longer than `length`."""
        rows = [self.encode(text) + ([self.end[0]] if ended else []) for text in texts]
        return self.padded(rows, length=length, kind=kind)

    def padded(self, rows: Sequence[Sequence[int]], *, length: int | None = None, kind: int = 1) -> Tokens:
        """Rows of ids as a batch [row, length], as `tokens` makes it of texts."""
        longest = max(map(len, rows), default=0)
        length = bucket(longest) if length is None else length
        if longest > length:
            raise BadInput(f"a text has {longest} tokens where there is room for {length}: shorten it, or give a larger length")
        ids, kinds = np.full((len(rows), length), self.pad, np.int32), np.zeros((len(rows), length), np.int32)
        for i, row in enumerate(rows):
            ids[i, : len(row)], kinds[i, : len(row)] = row, kind
        return Tokens(jnp.asarray(ids), jnp.asarray(kinds))

    def texts(self, tokens: Tokens, *, kind: int | None = None) -> list[str]:
        """The text of every row of a batch, special tokens left out; of one `kind` alone where that is given."""
        ids, kinds = (np.atleast_2d(np.asarray(part, np.int32)) for part in (tokens.ids, tokens.kind))
        keep = kinds > 0 if kind is None else kinds == kind
        return [self.decode(row[mask]) for row, mask in zip(ids, keep, strict=True)]

    def chat(self, messages: Sequence[Mapping[str, Any]], *, answering: bool = True) -> str:
        """Messages (`role`, `content`) in the words of the chat template; with `answering` the policy's turn is opened.

        The template runs in Jinja's immutable sandbox. Raises `BadInput` where there is none or where it refuses the messages.
        """
        from policylab.templates import rendered

        names = {"bos_token": self._begin or "", "eos_token": self._end[0]}
        return rendered(self.template, messages, answering=answering, names=names)

    @cached_property
    def spelling(self) -> list[bytes]:
        """What every id adds to a text, in bytes; b"" for special tokens."""
        from policylab.templates import spelled

        return spelled(self._model, self.vocabulary)


@lru_cache(maxsize=16)
def _read(text: str) -> Tokenizer:
    try:
        document = json.loads(text)
        model = library().Tokenizer.from_str(json.dumps(document["tokenizer"]))
        return Tokenizer(
            model, pad=document["pad"], end=document["end"], begin=document["begin"], template=document["template"], text=text
        )
    except BadInput:
        raise
    except Exception as error:  # the library raises bare Exceptions
        raise BadInput(f"the tokenizer is damaged ({str(error)[:80]}): save it again") from None


def library() -> Any:
    """The tokenizers library; raises `BadInput` naming the extra where it is missing."""
    try:
        import tokenizers
    except ImportError as missing:
        raise BadInput('text needs tokenizers, which is not installed: pip install "policylab[language]"') from missing
    return tokenizers


def characters(alphabet: str = "".join(map(chr, range(32, 127))) + "\n", *, template: str = "") -> Tokenizer:
    """One token per character of `alphabet` after `<pad>` (0), `<end>` (1) and `<begin>` (2). The document is a tokenizer.json."""
    tokenizers = library()
    names = [*_SPECIAL, "<unknown>", *dict.fromkeys(alphabet)]
    vocabulary = {name: i for i, name in enumerate(names)}
    model = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unknown>"))
    model.pre_tokenizer = tokenizers.pre_tokenizers.Split("", behavior="isolated")
    model.decoder = tokenizers.decoders.Fuse()
    model.add_special_tokens(list(_SPECIAL))
    return Tokenizer(model, pad="<pad>", end=["<end>"], begin="<begin>", template=template)


def byte_pairs(texts: Sequence[str], *, vocabulary: int = 512, template: str = "", special: Sequence[str] = ()) -> Tokenizer:
    """Byte-level byte-pair encoding learned from `texts` (Sennrich et al. 2016, as GPT-2's); covers every text. `special` names more
    special tokens, such as those of a chat template. Raises `BadInput` for fewer than 256 + 3 tokens."""
    tokenizers = library()
    names = [*_SPECIAL, *special]
    if vocabulary < 256 + len(names):
        raise BadInput(
            f"a byte-pair vocabulary of {vocabulary} is too small: the bytes and special tokens alone are {256 + len(names)}"
        )
    model = tokenizers.Tokenizer(tokenizers.models.BPE())
    model.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=names, initial_alphabet=alphabet, show_progress=False
    )
    model.train_from_iterator(texts, trainer)
    return Tokenizer(model, pad="<pad>", end=["<end>"], begin="<begin>", template=template)
