"""Logs in tables (CSV, Parquet, JSON lines) and a column map -> a Recording: bandit logs, session logs, control logs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from policylab.data import roles as column_roles
from policylab.data import tables
from policylab.data.encoding import Encoder
from policylab.data.fitting import Fitter
from policylab.data.packages import package
from policylab.data.recording import Allocate, Recording, in_memory, infer_space, recording_from_steps
from policylab.data.roles import Columns
from policylab.errors import BadInput
from policylab.experience import Spec

_CODED = ("episode", "group")


def read(
    path: str | Path, columns: Columns | None, *, encoder: Encoder | None = None, allocate: Allocate = in_memory
) -> Recording:
    """The recording in a table. The file is read twice, in pieces: once to fit the encoder, once to encode.

    Without `episode` and `terminal` columns every row is a decision of its own, an episode of one terminal step. Rows of an
    episode are ordered by `time`, else as they stand; where nothing says how an episode ended its last row is terminal
    (`origin["ends"]` says so). `context` columns join the observation and their combination is kept as a number in
    `extra["context"]`. With `encoder` (of an earlier file) nothing is fitted: words that it never saw become zeros and are
    counted in `origin["unseen"]`. Raises `BadInput` at the first thing that is wrong.
    """
    path = Path(path)
    names = tables.column_names(path)
    if columns is None:
        raise BadInput(
            f"{path} is a table: say which column is what, {column_roles.EXAMPLE}; it has {', '.join(n for n in names[:20] if n)}"
        )
    roles = column_roles.resolve(columns, names, str(path))
    if "next_observation" in roles and ("context" in roles or len(roles["next_observation"]) != len(roles["observation"])):
        raise BadInput(
            f"{path}: next_observation has {len(roles['next_observation'])} columns for {len(roles['observation'])} of "
            "observation and none of context: give one for each"
        )
    wanted = [name for group in roles.values() for name, _ in group]
    words = [name for group in roles.values() for name, kind in group if kind.startswith(("categorical", "hashed"))]
    words += [name for role in _CODED for name, _ in roles.get(role, [])]
    if encoder is None:
        fitter = Fitter(roles)
        for table in tables.batches(path, wanted, words):
            fitter.see(table)
        encoder, rows = fitter.encoder(), fitter.rows
    else:
        words += [feature.column for feature in encoder.observation if feature.kind != "numeric"]
        rows = sum(table.num_rows for table in tables.batches(path, wanted, words))
    filled, unseen = _encode(path, roles, encoder, rows, wanted, words, allocate)
    order, terminal, truncated, ends = _episodes(path, filled, rows)
    if order is not None:
        filled = {name: values[order] for name, values in filled.items()}
    space = encoder.action_space or infer_space(filled["action"])
    reward = filled.get("reward")
    objectives = () if reward is None else tuple(reward.shape[1:])
    origin: dict[str, Any] = {
        "format": "log",
        "path": str(path),
        "columns": column_roles.parse(columns),
        "encoder": encoder.to_json(),
        "ends": ends,
    }
    origin |= {"unseen": unseen} if unseen else {}
    kept = {name: filled[name] for name in ("propensity", "context", "group") if name in filled}
    return recording_from_steps(
        filled["observation"],
        filled["action"],
        reward,
        terminal,
        truncated,
        filled.get("next_observation"),
        spec=Spec(encoder.observation_space, space, reward_shape=objectives, encoder=encoder.to_text()),
        extra=kept,
        name=path.stem,
        origin=origin,
        allocate=allocate,
    )


def _encode(
    path: Path,
    roles: dict[str, list[tuple[str, str]]],
    encoder: Encoder,
    rows: int,
    wanted: list[str],
    words: list[str],
    allocate: Allocate,
) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """Every role as an array with one row per row of the table, and the number of unseen words per column."""
    filled: dict[str, np.ndarray] = {}
    unseen: dict[str, int] = {}
    codes: dict[str, dict[str, int]] = {role: {} for role in _CODED}
    start = 0
    following = dict(
        zip((name for name, _ in roles.get("next_observation", [])), (name for name, _ in roles.get("observation", [])))
    )
    for table in tables.batches(path, wanted, words):
        part: dict[str, np.ndarray] = {
            "observation": encoder.encode(table, first_row=start),
            "action": encoder.encode_action(table, first_row=start),
        }
        if following:
            renamed = table.select(list(following)).rename_columns(list(following.values()))
            part["next_observation"] = encoder.encode(renamed, first_row=start)
        if roles.get("context"):
            part["context"] = encoder.encode_context(table)
        if "reward" in roles:
            part["reward"] = np.stack([_numbers(path, table, name, "reward", start) for name, _ in roles["reward"]], axis=1)
        for role in ("propensity", "terminal", "truncated"):
            if role in roles:
                part[role] = _numbers(path, table, roles[role][0][0], role, start)
        for role in _CODED:
            if role in roles:
                part[role] = _number_words(table.column(roles[role][0][0]), codes[role])
        if "time" in roles:
            part["time"] = _times(path, table, roles["time"][0][0])
        for name, values in part.items():
            if name not in filled:
                large = name in ("observation", "next_observation", "action")
                filled[name] = (allocate if large else in_memory)(f"log/{name}", (rows, *values.shape[1:]), values.dtype)
            filled[name][start : start + len(values)] = values
        for column, count in encoder.unseen(table).items():
            unseen[column] = unseen.get(column, 0) + count
        start += table.num_rows
    if "reward" in filled and filled["reward"].shape[1] == 1:
        filled["reward"] = filled["reward"][:, 0]
    return filled, unseen


def _episodes(path: Path, filled: dict[str, np.ndarray], rows: int) -> tuple[np.ndarray | None, np.ndarray, np.ndarray, str]:
    """The order of the rows (None: as they stand), where episodes end and how, and that in words."""
    told = {role: role in filled for role in ("terminal", "truncated")}
    terminal, truncated = (_flags(path, filled.pop(role, np.zeros(rows)), role) for role in told)
    episode, time = filled.pop("episode", None), filled.pop("time", None)
    if episode is None:
        if not any(told.values()):
            return None, ~terminal, truncated, "every row is one decision"
        if time is not None:
            raise BadInput(f"{path} has time but no episode column: say which rows belong together, or leave time out")
        return None, terminal, truncated, "as logged"
    order = np.lexsort((np.arange(rows) if time is None else time, episode))
    last = np.append(np.diff(episode[order]) != 0, True)
    terminal, truncated = terminal[order], truncated[order]
    early = (terminal | truncated) & ~last
    if early.any():
        row = int(order[np.argmax(early)])
        raise BadInput(
            f"{path}: row {row} ends its episode, but the episode goes on after it: mend the episode column or the flag"
        )
    arrange = None if np.array_equal(order, np.arange(rows)) else order
    if not told["terminal"]:
        how = "the last row of an episode is taken as terminal, since no column says otherwise"
        return arrange, last & ~truncated, truncated, how
    return arrange, terminal, truncated | (last & ~terminal), "as logged"


def _numbers(path: Path, table: Any, column: str, role: str, start: int) -> np.ndarray:
    pa = package("pyarrow")
    try:
        values = table.column(column).combine_chunks()
        values = values.cast(pa.int8()) if pa.types.is_boolean(values.type) else values
        numbers = values.cast(pa.float64()).to_numpy(zero_copy_only=False).astype(np.float32)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise BadInput(
            f"{path}: {role} column {column} holds something that is no number ({str(error).splitlines()[0]}): mend it or "
            "choose another column"
        ) from error
    if np.isnan(numbers).any():
        row = start + int(np.argmax(np.isnan(numbers)))
        raise BadInput(f"{path}: {role} column {column} at row {row} is missing: fill it in, or leave the row or the role out")
    return numbers


def _flags(path: Path, values: np.ndarray, role: str) -> np.ndarray:
    wrong = (values != 0) & (values != 1)
    if wrong.any():
        raise BadInput(f"{path}: {role} at row {int(np.argmax(wrong))} is {values[wrong][0]:g}: give 0 or 1")
    return values.astype(bool)


def _number_words(column: Any, codes: dict[str, int]) -> np.ndarray:
    """Words numbered in the order in which they first occur; `codes` remembers them over the pieces of a table."""
    dictionary = column.combine_chunks().dictionary_encode()
    numbers = np.asarray([codes.setdefault(word, len(codes)) for word in dictionary.dictionary.to_pylist()], np.int64)
    indices = dictionary.indices
    if indices.null_count:
        indices, missing = indices.fill_null(0), codes.setdefault("", len(codes))
        return np.where(
            dictionary.indices.is_null().to_numpy(zero_copy_only=False),
            missing,
            numbers[indices.to_numpy()] if len(numbers) else 0,
        )
    return numbers[indices.to_numpy(zero_copy_only=False)]


def _times(path: Path, table: Any, column: str) -> np.ndarray:
    pa = package("pyarrow")
    values = table.column(column).combine_chunks()
    try:
        if pa.types.is_temporal(values.type):
            values = values.cast(pa.timestamp("ns", getattr(values.type, "tz", None))).cast(pa.int64())
        return values.cast(pa.float64() if pa.types.is_floating(values.type) else pa.int64()).to_numpy(zero_copy_only=False)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise BadInput(
            f"{path}: time column {column} is neither numbers nor dates ({str(error).splitlines()[0]}): mend it or leave it "
            "out if the rows are in order"
        ) from error
