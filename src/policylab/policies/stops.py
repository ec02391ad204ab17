"""Stop strings inside a compiled program: an automaton over tokens that knows when one of them has been written."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from policylab.errors import BadInput
from policylab.networks.frozen import Frozen


class Stops(Frozen):
    """`table[state, id]` is the state after a token: how much of a stop string stands at the end of the text. The first state is
    nothing of any, the last one that a stop string is complete (Aho and Corasick 1975, on the bytes of the tokens)."""

    table: Int[Array, "state vocabulary"]


def stops_for(strings: Sequence[str], spelling: Sequence[bytes]) -> Stops | None:
    """The automaton of these strings for tokens spelled so (`Tokenizer.spelling`); None for no strings. It finds a string wherever its
    bytes fall into tokens. Raises `BadInput` for an empty string."""
    if not strings:
        return None
    if "" in strings:
        raise BadInput("a stop string is empty: give at least one character")
    wanted = [string.encode() for string in strings]
    prefixes = sorted({string[:i] for string in wanted for i in range(len(string))}, key=lambda p: (len(p), p))
    number, complete = {prefix: i for i, prefix in enumerate(prefixes)}, len(prefixes)

    def after(prefix: bytes, byte: int) -> int:
        text = prefix + bytes([byte])
        if any(text.endswith(string) for string in wanted):
            return complete
        return next(number[text[i:]] for i in range(len(text) + 1) if text[i:] in number)

    goto = np.array([[after(prefix, byte) for byte in range(256)] for prefix in prefixes] + [[complete] * 256], np.int32)
    longest = max(map(len, spelling))
    bytes_of = np.zeros((len(spelling), longest), np.int32)
    lengths = np.array([len(word) for word in spelling])
    for i, word in enumerate(spelling):
        bytes_of[i, : len(word)] = list(word)
    state = np.repeat(np.arange(complete + 1, dtype=np.int32)[:, None], len(spelling), axis=1)
    for place in range(longest):
        state = np.where(place < lengths, goto[state, bytes_of[:, place]], state)
    return Stops(jnp.asarray(state))
