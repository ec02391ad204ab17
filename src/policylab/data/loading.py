"""`load` and `save`: any format that people bring, recognised from the path, checked, and written again."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from policylab import spaces
from policylab.data import arrays, d4rl, lerobot, logs, minari, tables
from policylab.data import columns as own
from policylab.data.atomic import atomic
from policylab.data.encoding import Encoder
from policylab.data.recording import Allocate, Recording, in_memory
from policylab.data.roles import Columns, parse
from policylab.data.validation import validate
from policylab.errors import BadInput
from policylab.experience import Spec

FORMATS = {
    "columns": "a folder saved by policylab (recording.json)",
    "minari": "a Minari dataset: its folder (metadata.json), or its id in the local Minari root",
    "lerobot": "a LeRobot folder of version 2 or 3 (meta/info.json)",
    "d4rl": "a D4RL-style .hdf5 or .h5 file (observations, actions, terminals ...)",
    "npz": "an .npz archive of such arrays",
    "log": "a .csv, .tsv, .parquet or .jsonl table with a column map",
}


def load(
    source: str | Path,
    *,
    columns: Columns | None = None,
    format: str | None = None,
    environment: str | Spec | None = None,
    encoder: Encoder | None = None,
    max_episode_steps: int = 0,
) -> Recording:
    """The recording at a path, or of a Minari id, validated.

    `format` (a key of `FORMATS`) is recognised where it isn't given. `columns` maps the columns of a table, or arrays of
    unusual names, to roles. `environment` (a Gymnasium id or a Spec) gives bounds, horizon and step limit; its spaces must
    fit. `encoder` is that of an earlier table. Folders saved by `convert` or `save` are opened memory-mapped; everything else
    is read into memory. Raises `BadInput` with one sentence at the first thing that is wrong.
    """
    path, kind = _recognise(source, format)
    expected = _expected(environment)
    if kind != "columns":
        _require_memory(path)
    limit = max_episode_steps or (expected.horizon if expected else 0)
    recording = _read(path, kind, columns, encoder, limit, in_memory)
    return validate(_fit(recording, expected))


def convert(
    source: str | Path,
    target: str | Path,
    *,
    columns: Columns | None = None,
    format: str | None = None,
    environment: str | Spec | None = None,
    encoder: Encoder | None = None,
    max_episode_steps: int = 0,
) -> Recording:
    """Copy data of any format, in pieces of 64 MB, into a folder of ours and open that: for data larger than memory.

    Arguments as for `load`. Nothing is left at `target` if the data are bad. Raises `BadInput`, also if `target` exists.
    """
    path, kind = _recognise(source, format)
    expected = _expected(environment)
    limit = max_episode_steps or (expected.horizon if expected else 0)
    with atomic(target, folder=True) as scratch:
        folder = own.Folder(scratch)
        recording = _fit(_read(path, kind, columns, encoder, limit, folder.allocate), expected)
        folder.finish(validate(recording))
    return own.read(target)


def save(recording: Recording, path: str | Path, format: str | None = None) -> Path:
    """Write a recording at `path`, whole or not at all: `columns`, `minari`, `minari-arrow`, `minari-parquet`, `d4rl` or `npz`.

    The format is recognised from the ending (.hdf5, .h5, .npz; a folder without one becomes `columns`). Nothing is written
    unless the recording is sound. Raises `BadInput` if it isn't, if `path` exists or the format is unknown.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    kind = format or {".hdf5": "d4rl", ".h5": "d4rl", ".npz": "npz"}.get(suffix, "columns" if not suffix else "")
    writers: dict[str, Callable[[], None]] = {
        "columns": lambda: own.write(recording, path),
        "d4rl": lambda: d4rl.write(recording, path),
        "npz": lambda: arrays.write(recording, path),
        "minari": lambda: minari.write(recording, path),
        "minari-arrow": lambda: minari.write(recording, path, storage="arrow"),
        "minari-parquet": lambda: minari.write(recording, path, storage="parquet"),
    }
    if kind not in writers:
        raise BadInput(
            f"cannot save to {path}: {'unknown format ' + repr(format) if format else 'its ending names no format'}; choose "
            f"among {', '.join(writers)}"
        )
    validate(recording)
    writers[kind]()
    return path


def _recognise(source: str | Path, format: str | None) -> tuple[Path, str]:
    """Where the data are and their format."""
    text = str(source)
    if "://" in text:
        raise BadInput(f"{text} is an address: download it first and give the path of the file")
    if format is not None and format not in FORMATS:
        raise BadInput(f"unknown format {format!r}: choose among {', '.join(FORMATS)}")
    path = Path(text).expanduser()
    if not path.exists():
        if minari.is_dataset_id(text):
            local = minari.local_path(text)
            if local.exists():
                return local, "minari"
            raise BadInput(
                f"there is no file or folder {text} and no Minari dataset of that id under {minari.local_path('')}: fetch it "
                f"with `minari download {text}`, or check the name"
            )
        raise BadInput(f"there is no file or folder {text}: check the path")
    kind = format or _format_of(path)
    if kind is None:
        looked = (
            "recording.json, metadata.json, main_data.hdf5 and meta/info.json"
            if path.is_dir()
            else ("the endings .hdf5, .h5, .npz, .csv, .tsv, .parquet and .jsonl")
        )
        raise BadInput(f"{path} is in no known format: looked for {looked}; name it with format=, one of {', '.join(FORMATS)}")
    if kind in ("d4rl", "npz", "log") and path.is_dir():
        raise BadInput(f"{path} is a folder, but the format {kind} is {FORMATS[kind]}: give the file")
    return path, kind


def _format_of(path: Path) -> str | None:
    if path.is_dir():
        if (path / own.DESCRIPTION).is_file():
            return "columns"
        if lerobot.is_lerobot(path):
            return "lerobot"
        return "minari" if minari.data_folder(path) else None
    if path.name == "main_data.hdf5":
        raise BadInput(f"{path} is the inside of a Minari dataset: give its folder, {path.parent}")
    if path.name in (own.DESCRIPTION, "metadata.json", "info.json"):
        raise BadInput(f"{path} only describes a dataset: give its folder")
    if path.suffix.lower() in (".pkl", ".pickle", ".pt", ".pth", ".joblib"):
        raise BadInput(
            f"{path} is a pickle, which can run code when it is loaded: save plain arrays instead, numpy.savez(path, "
            "observations=..., actions=...)"
        )
    return {".hdf5": "d4rl", ".h5": "d4rl", ".npz": "npz"}.get(path.suffix.lower(), "log" if tables.is_table(path) else None)


def _read(path: Path, kind: str, columns: Columns | None, encoder: Encoder | None, limit: int, allocate: Allocate) -> Recording:
    try:
        return _read_as(path, kind, columns, encoder, limit, allocate)
    except BadInput:
        raise
    except (KeyError, IndexError, TypeError, ValueError, OSError) as error:  # a layout that no reader foresaw
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise BadInput(
            f"{path} is not laid out like {FORMATS[kind]} ({reason[0]}): check it, or name another format"
        ) from error


def _read_as(
    path: Path, kind: str, columns: Columns | None, encoder: Encoder | None, limit: int, allocate: Allocate
) -> Recording:
    if columns is not None and kind in ("columns", "minari", "lerobot"):
        raise BadInput(f"{path} is {FORMATS[kind]}, which says itself what its columns mean: leave the column map out")
    match kind:
        case "columns":
            return own.read(path)
        case "minari":
            return minari.read(path, allocate=allocate)
        case "lerobot":
            return lerobot.read(path, allocate=allocate)
        case "log":
            return logs.read(path, columns, encoder=encoder, allocate=allocate)
    names: dict[str, Any] = parse(columns) if columns else {}
    reader = d4rl.read if kind == "d4rl" else arrays.read
    return reader(path, columns=names, max_episode_steps=limit, allocate=allocate)


def _expected(environment: str | Spec | None) -> Spec | None:
    """The spec of an environment of Gymnasium or, as `envpool:ID`, of envpool. Raises `BadInput` if there is none of that id."""
    if environment is None or isinstance(environment, Spec):
        return environment
    import gymnasium

    from policylab.environments.envpool import PREFIX, EnvPool

    if environment.startswith(PREFIX):
        return EnvPool(environment.removeprefix(PREFIX)).spec

    if environment not in gymnasium.registry:
        try:
            import gymnasium_robotics

            gymnasium.register_envs(gymnasium_robotics)
        except ImportError:
            pass
    try:
        made = gymnasium.make(environment)
    except gymnasium.error.Error as error:
        raise BadInput(
            f"Gymnasium knows no environment {environment!r} ({str(error).splitlines()[0]}): check the id, or install the "
            "package that registers it"
        ) from error
    with_limit = made.spec.max_episode_steps if made.spec else 0
    spec = Spec(
        spaces.from_gymnasium(made.observation_space),
        spaces.from_gymnasium(made.action_space),
        horizon=int(with_limit or 0),
        environment=environment,
    )
    made.close()
    return spec


def _fit(recording: Recording, expected: Spec | None) -> Recording:
    """The recording with the environment's bounds and horizon; its spaces must be the same.

    A choice that was never taken, or a state that was never seen, does not show in numbered data, so that fewer of them than the
    environment has are no mismatch.
    """
    if expected is None:
        return recording
    name, where = recording.name or "the data", expected.environment or "the environment"
    mine, theirs = recording.spec.action, expected.action
    if isinstance(mine, spaces.Discrete) and isinstance(theirs, spaces.Discrete):
        named = recording.spec.environment != expected.environment and mine.labels and not theirs.labels
        if named and mine.labels != tuple(str(i) for i in range(mine.n)):
            raise BadInput(
                f"{name} calls its actions {', '.join(mine.labels[:4])}, but {where} numbers them from 0: write the numbers of "
                f"{where} into the data, so that none is confused with another"
            )
        mine = theirs if mine.n < theirs.n else mine
    seen, known = recording.spec.observation, expected.observation
    fewer = isinstance(seen, spaces.Discrete) and isinstance(known, spaces.Discrete) and seen.n < known.n
    spec = replace(recording.spec, action=mine, observation=known if fewer else seen)
    spec.require(expected, ours=name, theirs=where)
    spec = replace(
        spec,
        observation=expected.observation,
        action=theirs,
        environment=expected.environment,
        horizon=expected.horizon or spec.horizon,
    )
    return replace(recording, spec=spec)


def _free_memory() -> int:
    """Bytes that programs can still have; 0 where that cannot be known."""
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
        return int(lines.get("MemAvailable", "0 kB").split()[0]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if "SC_PHYS_PAGES" in os.sysconf_names else 0


def _require_memory(path: Path) -> None:
    """Refuse files that will not fit: reading takes about twice their size."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.suffix not in (".mp4", ".png")]
    size = sum(file.stat().st_size for file in files if file.is_file())
    free = _free_memory()
    if free and 2 * size > free:
        raise BadInput(
            f"{path} holds {size / 1e9:.1f} GB and reading it takes about twice that, but only {free / 1e9:.1f} GB of memory "
            "are free: copy it to disk columns first, policylab.data.loading.convert(source, target), and load the target"
        )


load_data, save_data, convert_data = load, save, convert  # as `policylab` exports them
