"""LeRobot folders of version 2.0, 2.1 and 3.0, read without LeRobot: the numbers now, the pictures when they are asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from policylab import spaces
from policylab.data.packages import package
from policylab.data.recording import Allocate, Recording, in_memory, infer_space, recording_from_steps
from policylab.errors import BadInput
from policylab.experience import Spec

INFO = Path("meta/info.json")
_BOOKKEEPING = ("timestamp", "frame_index", "episode_index", "task_index")
_NUMBER = {"shape": [1]}
_ENDS = ("next.reward", "next.done", "next.success", "next.truncated")


def is_lerobot(path: Path) -> bool:
    """Whether the folder has LeRobot's description."""
    return (path / INFO).is_file()


def read(path: str | Path, *, allocate: Allocate = in_memory) -> Recording:
    """The recording in a LeRobot folder; `fps` becomes the control rate.

    `observation.state` alone is a vector; several `observation.*` features, or more than one task (the instruction is part of
    what a policy sees), make named parts. `next.reward`, `next.done`, `next.success` and `next.truncated` are used where they
    are: an episode that ends done is terminal, unless it has success flags and failed or is marked as truncated. No frame was
    stored after the last action, so the last step of an episode that is not terminal is left out. `extra` keeps `timestamp`
    and `episode`; `origin["cameras"]` and `origin["files"]` say where `pictures.frames` finds the images. Raises `BadInput`
    if files are missing or disagree with the description.
    """
    path = Path(path)
    info = _info(path)
    features = info["features"]
    third = str(info["codebase_version"]).startswith("v3")
    episodes = _episodes(path, info, third)
    observed = [
        key for key in features if key.startswith("observation.") and not _is_picture(features[key]) and _numeric(features[key])
    ]
    if not observed:
        raise BadInput(
            f"{path} has no numeric observation.* feature (it has {', '.join(features)}): add observation.state, or encode "
            "its pictures first"
        )
    if "action" not in features or not _numeric(features["action"]):
        raise BadInput(f"{path} has no numeric action feature (it has {', '.join(features)}): add one")
    wanted = [*observed, "action", *(key for key in _ENDS if key in features), *_BOOKKEEPING]
    columns = _columns(path, info, episodes, third, wanted)
    tasks = _tasks(path, third)
    parts = {key.removeprefix("observation."): columns[key] for key in observed}
    if len(tasks) > 1:
        parts["task"] = columns["task_index"].reshape(-1).astype(np.int32)
    observation = parts if len(parts) > 1 else parts[next(iter(parts))]
    terminal, truncated, ends = _ends(columns, episodes)
    extra = {"episode": columns["episode_index"].reshape(-1), "timestamp": columns["timestamp"].reshape(-1)}
    extra |= {"success": columns["next.success"].reshape(-1)} if "next.success" in columns else {}
    reward = columns.get("next.reward")
    action = columns["action"]
    action = action.reshape(-1) if action.dtype.kind == "i" and action.shape[1:] == (1,) else action
    spec = Spec(_space(observation, tasks), infer_space(action), control_rate=float(info["fps"]))
    origin: dict[str, Any] = {
        "format": f"lerobot {info['codebase_version']}",
        "path": str(path.resolve()),
        "robot": info.get("robot_type"),
        "ends": ends,
        "tasks": tasks,
        "cameras": {key: features[key]["dtype"] for key in features if _is_picture(features[key])},
        "names": {key: features[key].get("names") for key in [*observed, "action"]},
    }
    if origin["cameras"]:
        origin["files"] = _picture_files(path, info, episodes, third)
    return recording_from_steps(
        observation,
        action,
        reward,
        terminal,
        truncated,
        spec=spec,
        extra=extra,
        name=path.name,
        origin=origin,
        allocate=allocate,
    )


def _info(path: Path) -> dict[str, Any]:
    try:
        info = json.loads((path / INFO).read_text())
        version, _ = info["codebase_version"], (info["features"], info["fps"], info["data_path"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(
            f"{path / INFO} is missing or lacks {error}: this is no complete LeRobot folder; download it again"
        ) from error
    if not str(version).startswith(("v2.", "v3.")):
        raise BadInput(
            f"{path} has LeRobot version {version}, but versions 2.0, 2.1 and 3.0 are read: convert it with LeRobot first"
        )
    return info


def _episodes(path: Path, info: dict[str, Any], third: bool) -> list[dict[str, Any]]:
    """One row per episode in order, from meta/episodes.jsonl or meta/episodes/**.parquet."""
    if third:
        parquet = package("pyarrow.parquet", "reading LeRobot folders")
        files = sorted((path / "meta/episodes").rglob("*.parquet"))
        rows = []
        for file in files:
            names = [name for name in parquet.read_schema(file).names if not name.startswith("stats/")]
            rows += parquet.read_table(file, columns=names).to_pylist()
    else:
        try:
            lines = (path / "meta/episodes.jsonl").read_text().splitlines()
            rows = [json.loads(line) for line in lines if line.strip()]
        except (OSError, ValueError) as error:
            raise BadInput(f"{path / 'meta/episodes.jsonl'} cannot be read ({error}): download the dataset again") from error
    rows = sorted(rows, key=lambda row: row["episode_index"])
    if not rows:
        raise BadInput(f"{path} lists no episodes: record at least one")
    if len(rows) != info.get("total_episodes", len(rows)):
        raise BadInput(f"{path} lists {len(rows)} episodes but {INFO} promises {info['total_episodes']}: download it again")
    return rows


def _data_file(path: Path, info: dict[str, Any], row: dict[str, Any], third: bool) -> Path:
    number = row["episode_index"]
    if third:
        return path / info["data_path"].format(chunk_index=row["data/chunk_index"], file_index=row["data/file_index"])
    return path / info["data_path"].format(episode_chunk=number // info.get("chunks_size", 1000), episode_index=number)


def _columns(
    path: Path, info: dict[str, Any], episodes: list[dict[str, Any]], third: bool, wanted: list[str]
) -> dict[str, np.ndarray]:
    """The wanted features of all frames in order of episode and frame, [frame, *shape] each."""
    pa, parquet = package("pyarrow", "reading LeRobot folders"), package("pyarrow.parquet", "reading LeRobot folders")
    pieces: dict[str, list[np.ndarray]] = {key: [] for key in wanted}
    for file in dict.fromkeys(_data_file(path, info, row, third) for row in episodes):
        try:
            absent = [key for key in wanted if key not in parquet.read_schema(file).names]
            if absent:
                raise BadInput(f"{file} has no column {absent[0]} though the description names it: download the dataset again")
            table = parquet.read_table(file, columns=wanted)
        except FileNotFoundError as error:
            raise BadInput(f"{file} is missing though the description names it: download the dataset again") from error
        except (OSError, pa.ArrowInvalid) as error:
            raise BadInput(f"{file} is damaged ({str(error).splitlines()[0]}): download the dataset again") from error
        for key in wanted:
            pieces[key].append(_array(table.column(key), info["features"].get(key, _NUMBER), f"{file}: {key}"))
    columns = {key: np.concatenate(parts) for key, parts in pieces.items()}
    order = np.lexsort((columns["frame_index"].reshape(-1), columns["episode_index"].reshape(-1)))
    numbers = columns["episode_index"].reshape(-1)[order]
    lengths = {int(n): int(c) for n, c in zip(*np.unique(numbers, return_counts=True))}
    for row in episodes:
        if lengths.get(row["episode_index"], 0) != row["length"]:
            raise BadInput(
                f"{path}: episode {row['episode_index']} has {lengths.get(row['episode_index'], 0)} frames but the "
                f"description promises {row['length']}: download the dataset again"
            )
    known = np.isin(numbers, [row["episode_index"] for row in episodes])
    if not known.all():
        raise BadInput(
            f"{path}: the data hold episode {int(numbers[~known][0])}, which the description does not list: download it again"
        )
    return columns if np.array_equal(order, np.arange(len(order))) else {key: values[order] for key, values in columns.items()}


def _array(column: Any, feature: dict[str, Any], where: str) -> np.ndarray:
    column = column.combine_chunks()
    if column.null_count:
        raise BadInput(f"{where} has {column.null_count} missing values: fill them in or record again")
    nested = column
    while str(nested.type).startswith(("list", "fixed_size_list", "large_list", "extension")):
        nested = nested.storage if str(nested.type).startswith("extension") else nested.flatten()
    values = nested.to_numpy(zero_copy_only=False)
    try:
        values = values.reshape(len(column), *feature["shape"])
    except ValueError as error:
        raise BadInput(
            f"{where} holds {len(values)} numbers in {len(column)} frames, which is not {feature['shape']} for each: download the "
            "dataset again"
        ) from error
    return values.astype(np.float32) if values.dtype.kind == "f" else values


def _ends(columns: dict[str, np.ndarray], episodes: list[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray, str]:
    number = columns["episode_index"].reshape(-1)
    last = np.append(np.diff(number) != 0, True)
    if "next.done" not in columns:
        return np.zeros(len(last), bool), last, "cut: no next.done was recorded"
    done = columns["next.done"].reshape(-1).astype(bool) & last
    cut = columns["next.truncated"].reshape(-1).astype(bool) if "next.truncated" in columns else np.zeros(len(last), bool)
    told = "terminal where done"
    if "next.success" in columns:
        succeeded = np.isin(number, number[columns["next.success"].reshape(-1).astype(bool)])
        done, told = done & succeeded, "terminal where done and successful"
    done &= ~cut
    return done, last & ~done, told


def _space(observation: Any, tasks: list[str]) -> spaces.Space:
    if not isinstance(observation, dict):
        return infer_space(observation, bounds=False)
    part = lambda name, values: (
        spaces.Discrete(len(tasks), tuple(tasks)) if name == "task" else infer_space(values, bounds=False)
    )
    return spaces.Composite(tuple((name, part(name, values)) for name, values in observation.items()))


def _tasks(path: Path, third: bool) -> list[str]:
    """The instructions by task_index."""
    if third:
        file = path / "meta/tasks.parquet"
        rows = package("pyarrow.parquet", "reading LeRobot folders").read_table(file).to_pylist() if file.is_file() else []
    else:
        file = path / "meta/tasks.jsonl"
        rows = [json.loads(line) for line in file.read_text().splitlines() if line.strip()] if file.is_file() else []
    named = {row["task_index"]: next((str(v) for k, v in row.items() if k != "task_index"), "") for row in rows}
    return [named.get(i, f"task {i}") for i in range(max(named, default=-1) + 1)]


def _picture_files(path: Path, info: dict[str, Any], episodes: list[dict[str, Any]], third: bool) -> dict[str, dict[str, Any]]:
    """For every episode and camera the file and the second at which the episode starts in it."""
    files: dict[str, dict[str, Any]] = {}
    for row in episodes:
        entry = files[str(row["episode_index"])] = {}
        for key, feature in info["features"].items():
            if not _is_picture(feature):
                continue
            if feature["dtype"] == "image":
                entry[key] = {"file": str(_data_file(path, info, row, third)), "start": 0.0}
            elif third:
                chunk, number = row[f"videos/{key}/chunk_index"], row[f"videos/{key}/file_index"]
                file = path / info["video_path"].format(video_key=key, chunk_index=chunk, file_index=number)
                entry[key] = {"file": str(file), "start": float(row[f"videos/{key}/from_timestamp"])}
            else:
                number = row["episode_index"]
                file = info["video_path"].format(
                    video_key=key, episode_chunk=number // info.get("chunks_size", 1000), episode_index=number
                )
                entry[key] = {"file": str(path / file), "start": 0.0}
    return files


def _is_picture(feature: dict[str, Any]) -> bool:
    return feature.get("dtype") in ("video", "image")


def _numeric(feature: dict[str, Any]) -> bool:
    return str(feature.get("dtype")).startswith(("float", "int", "uint", "bool"))
