"""Small valid files in the formats that people bring, written without policylab, for any test to import."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np

ITEMS, POSITIONS = 5, 3


def pendulum_steps(episodes: int = 6, length: int = 25, seed: int = 0) -> dict[str, np.ndarray]:
    """Pendulum-v1's equations under a noisy swing-up controller: [episode, length(+1), ...] arrays; no episode is terminal."""
    random = np.random.default_rng(seed)
    angle, speed = random.uniform(-np.pi, np.pi, episodes), random.uniform(-1, 1, episodes)
    observations, actions, rewards = [_see(angle, speed)], [], []
    for _ in range(length):
        energy = 0.5 * speed**2 + 15 * (np.cos(angle) - 1)
        torque = np.clip(np.where(np.cos(angle) > 0.9, -10 * angle - 2 * speed, -0.3 * energy * np.sign(speed)), -2, 2)
        torque = np.clip(torque + random.normal(0, 0.3, episodes), -2, 2)
        wrapped = (angle + np.pi) % (2 * np.pi) - np.pi
        rewards.append(-(wrapped**2 + 0.1 * speed**2 + 0.001 * torque**2))
        speed = np.clip(speed + (15 * np.sin(angle) + 3 * torque) * 0.05, -8, 8)
        angle = angle + speed * 0.05
        observations.append(_see(angle, speed))
        actions.append(torque[:, None])
    stack = lambda rows: np.stack(rows, axis=1).astype(np.float32)
    return {"observations": stack(observations), "actions": stack(actions), "rewards": stack(rewards)}


def _see(angle: np.ndarray, speed: np.ndarray) -> np.ndarray:
    return np.stack([np.cos(angle), np.sin(angle), speed], axis=-1)


def minari_pendulum(
    root: Path,
    dataset_id: str = "pendulum/swingup-v0",
    episodes: int = 6,
    length: int = 25,
    seed: int = 0,
    data_format: str = "hdf5",
) -> str:
    """A Minari dataset of Pendulum-v1 written by the real library under `root` (set MINARI_DATASETS_PATH to it); its id."""
    import minari
    from minari.data_collector import EpisodeBuffer

    data = pendulum_steps(episodes, length, seed)
    flags = np.zeros(length, bool)
    buffers = [
        EpisodeBuffer(
            observations=data["observations"][i],
            actions=data["actions"][i],
            rewards=data["rewards"][i],
            terminations=flags,
            truncations=np.arange(length) == length - 1,
            infos={"energy": np.arange(length + 1, dtype=np.float64)},
        )
        for i in range(episodes)
    ]
    assert Path(root).exists()
    minari.create_dataset_from_buffers(
        dataset_id,
        buffers,
        env="Pendulum-v1",
        eval_env="Pendulum-v1",
        algorithm_name="energy shaping",
        author="tests",
        author_email="tests@example.org",
        code_permalink="https://example.org",
        data_format=data_format,
        description="noisy swing-up",
    )
    return dataset_id


def hopper_arrays(episodes: int = 8, limit: int = 30, seed: int = 0) -> dict[str, np.ndarray]:
    """Steps of Hopper's shapes (11 observations, 3 actions) of a stable linear system; some episodes fall, others time out."""
    random = np.random.default_rng(seed)
    pull, push = 0.95 * np.linalg.qr(random.normal(size=(11, 11)))[0], random.normal(0, 0.3, (11, 3))
    rows: dict[str, list] = {
        name: [] for name in ("observations", "actions", "rewards", "terminals", "timeouts", "next_observations")
    }
    for episode in range(episodes):
        state, length = random.normal(0, 0.5, 11), limit if episode % 2 else int(random.integers(5, limit))
        for t in range(length):
            action = np.tanh(-state[:3] + random.normal(0, 0.4, 3))
            following = pull @ state + push @ action
            values = (
                state,
                action,
                1.0 - 0.1 * float(action @ action) - 0.05 * float(state @ state),
                episode % 2 == 0 and t == length - 1,
                episode % 2 == 1 and t == length - 1,
                following,
            )
            for name, value in zip(rows, values):
                rows[name].append(value)
            state = following
    arrays = {name: np.asarray(values) for name, values in rows.items()}
    return {name: values.astype(bool if name in ("terminals", "timeouts") else np.float32) for name, values in arrays.items()}


def d4rl_hopper(path: Path, episodes: int = 8, limit: int = 30, seed: int = 0, without: tuple[str, ...] = ()) -> Path:
    """A D4RL-style HDF5 file of `hopper_arrays`, minus the datasets in `without`, with infos and metadata as version 2 has."""
    import h5py

    arrays = hopper_arrays(episodes, limit, seed)
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            if name not in without:
                file.create_dataset(name, data=values)
        file.create_dataset("infos/action_log_probs", data=np.full(len(arrays["rewards"]), -1.5, np.float32))
        file.create_dataset("metadata/algorithm", data=np.bytes_("SAC"))
        file.create_dataset("metadata/policy/fc0/weight", data=np.zeros((4, 11), np.float32))
    return path


CARTPOLE_COLUMNS = (
    "observation=position,velocity,angle,turn,action=push,reward=reward,terminal=fell,truncated=timeout,episode=run"
)


def cartpole_log(path: Path, episodes: int = 12, limit: int = 60, seed: int = 0) -> Path:
    """A CSV log of CartPole's equations under a noisy linear controller with actions 0 (left) and 1 (right) (CARTPOLE_COLUMNS)."""
    random = np.random.default_rng(seed)
    with open(path, "w", newline="") as file:
        log = csv.writer(file)
        log.writerow(["run", "position", "velocity", "angle", "turn", "push", "reward", "fell", "timeout"])
        for episode in range(episodes):
            x, v, a, w = random.uniform(-0.05, 0.05, 4)
            for t in range(limit):
                right = bool(random.random() < 0.3) if random.random() < 0.3 else bool(a + 0.5 * w + 0.05 * v > 0)
                force = 10.0 if right else -10.0
                shared = (force + 0.05 * w**2 * np.sin(a)) / 1.1
                turn = (9.8 * np.sin(a) - np.cos(a) * shared) / (0.5 * (4 / 3 - 0.1 * np.cos(a) ** 2 / 1.1))
                after = x + 0.02 * v, v + 0.02 * (shared - 0.05 * turn * np.cos(a) / 1.1), a + 0.02 * w, w + 0.02 * turn
                fell = abs(after[0]) > 2.4 or abs(after[2]) > 12 * np.pi / 180
                numbers = [f"{value:.6f}" for value in (x, v, a, w)]
                log.writerow(
                    [
                        f"run-{episode:03d}",
                        *numbers,
                        int(right),
                        1.0,
                        int(fell),
                        int(t == limit - 1 and not fell),
                    ]
                )
                if fell:
                    break
                x, v, a, w = after
    return path


BANDIT_COLUMNS = "observation=user_feature_*,action=item_id,reward=click,propensity=propensity_score,context=position"


def bandit_log(path: Path, rows: int = 600, seed: int = 0, policy: str = "random") -> Path:
    """A CSV of impressions with the columns of the Open Bandit Dataset: hashed user features, item, position, click, propensity.

    Clicks depend on the user's first feature and the item. `policy` is `random` (1/5 each) or `bts` (prefers item 0).
    """
    random = np.random.default_rng(seed)
    chances = np.full(ITEMS, 1 / ITEMS) if policy == "random" else np.array([0.5, 0.2, 0.1, 0.1, 0.1])
    kinds = [["cef3390ed299c098", "81ce123cbb5bd8ce", "4ae385d792f81dde"], ["03a5648a76832f83", "2d03db5543b14483"]]
    with open(path, "w", newline="") as file:
        log = csv.writer(file)
        log.writerow(
            [
                "",
                "timestamp",
                "item_id",
                "position",
                "click",
                "propensity_score",
                "user_feature_0",
                "user_feature_1",
                *(f"user-item_affinity_{i}" for i in range(ITEMS)),
            ]
        )
        for row in range(rows):
            user = [int(random.integers(len(values))) for values in kinds]
            item, position = int(random.choice(ITEMS, p=chances)), int(random.integers(1, POSITIONS + 1))
            click = int(random.random() < 0.05 + 0.3 * (item == user[0]))
            stamp = f"2019-11-24 {row // 3600 % 24:02d}:{row // 60 % 60:02d}:{row % 60:02d}.979311+00:00"
            features = [values[i] for values, i in zip(kinds, user)]
            log.writerow([row, stamp, item, position, click, repr(float(chances[item])), *features, *([0.0] * ITEMS)])
    return path


def lerobot_folder(
    path: Path,
    version: str = "v3.0",
    episodes: int = 4,
    length: int = 12,
    done: bool = True,
    tasks: int = 1,
    video: bool = True,
) -> Path:
    """A LeRobot folder (v2.0, v2.1 or v3.0) of Pendulum's observations and actions at 20 frames per second; videos are named only."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    data, path = pendulum_steps(episodes, length), Path(path)
    (path / "meta").mkdir(parents=True)
    third = version.startswith("v3")
    names = [f"swing up {i}" for i in range(tasks)]
    features = {
        "observation.state": {"dtype": "float32", "shape": [3], "names": ["cos", "sin", "speed"]},
        "action": {"dtype": "float32", "shape": [1], "names": ["torque"]},
        "next.reward": {"dtype": "float32", "shape": [1], "names": None},
    }
    features |= {"next.done": {"dtype": "bool", "shape": [1], "names": None}} if done else {}
    features |= (
        {"observation.images.top": {"dtype": "video", "shape": [48, 64, 3], "names": ["height", "width", "channel"]}}
        if video
        else {}
    )
    features |= {
        name: {"dtype": "float32" if name == "timestamp" else "int64", "shape": [1], "names": None}
        for name in ("timestamp", "frame_index", "episode_index", "index", "task_index")
    }
    tables, rows = [], []
    for episode in range(episodes):
        table = {
            "observation.state": pa.FixedSizeListArray.from_arrays(data["observations"][episode, :length].reshape(-1), 3),
            "action": pa.FixedSizeListArray.from_arrays(data["actions"][episode].reshape(-1), 1),
            "next.reward": pa.array(data["rewards"][episode]),
        }
        table |= {"next.done": pa.array(np.arange(length) == length - 1)} if done else {}
        table |= {
            "timestamp": pa.array(np.arange(length, dtype=np.float32) / 20),
            "frame_index": pa.array(np.arange(length)),
            "episode_index": pa.array(np.full(length, episode)),
            "index": pa.array(np.arange(length) + episode * length),
            "task_index": pa.array(np.full(length, episode % tasks)),
        }
        tables.append(pa.table(table))
        rows.append({"episode_index": episode, "tasks": [names[episode % tasks]], "length": length})
    info = {
        "codebase_version": version,
        "robot_type": "pendulum",
        "total_episodes": episodes,
        "total_frames": episodes * length,
        "total_tasks": tasks,
        "chunks_size": 1000,
        "fps": 20,
        "splits": {"train": f"0:{episodes}"},
        "features": features,
    }
    if third:
        info |= {
            "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
            "data_files_size_in_mb": 100,
            "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4" if video else None,
        }
        (path / "data/chunk-000").mkdir(parents=True)
        half = max(1, episodes // 2)
        for file, part in enumerate((tables[:half], tables[half:])):
            if part:
                pq.write_table(pa.concat_tables(part), path / f"data/chunk-000/file-{file:03d}.parquet")
        for row in rows:
            start = row["episode_index"] * length
            row |= {
                "data/chunk_index": 0,
                "data/file_index": int(row["episode_index"] >= half),
                "dataset_from_index": start,
                "dataset_to_index": start + length,
            }
            if video:
                key = "videos/observation.images.top"
                row |= {
                    f"{key}/chunk_index": 0,
                    f"{key}/file_index": 0,
                    f"{key}/from_timestamp": start / 20,
                    f"{key}/to_timestamp": (start + length) / 20,
                }
        (path / "meta/episodes/chunk-000").mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(rows), path / "meta/episodes/chunk-000/file-000.parquet")
        pq.write_table(pa.table({"task_index": pa.array(np.arange(tasks)), "task": names}), path / "meta/tasks.parquet")
    else:
        info |= {
            "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
            "total_chunks": 1,
            "total_videos": 0,
            "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4" if video else None,
        }
        (path / "data/chunk-000").mkdir(parents=True)
        for episode, table in enumerate(tables):
            pq.write_table(table, path / f"data/chunk-000/episode_{episode:06d}.parquet")
        (path / "meta/episodes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (path / "meta/tasks.jsonl").write_text(
            "".join(json.dumps({"task_index": i, "task": t}) + "\n" for i, t in enumerate(names))
        )
    (path / "meta/info.json").write_text(json.dumps(info))
    return path
