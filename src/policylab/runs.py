"""Run: what training leaves behind, in memory and on disk."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
from jaxtyping import PyTree

from policylab import documents, registry
from policylab.checkpoints import load_arrays, save_arrays, write_atomically
from policylab.errors import BadInput, Unsupported
from policylab.experience import Spec
from policylab.hyperparameters import traced
from policylab.learner import Learner
from policylab.policy import Policy

_CHECKPOINT, _METRICS, _DESCRIPTION = "checkpoint.safetensors", "metrics.jsonl", "run.json"


@dataclass(frozen=True)
class PerSeed:
    """A trained thing that differs between seeds: every leaf has a leading seed axis."""

    value: Any


@dataclass
class Run:
    """A trained learner: its state for every seed (leading axis), its metrics, and the stages before it.

    `metrics` has one row per chunk: `step`, `seconds`, `metrics` {name: value per seed} and, where evaluated, `evaluation`.
    `fingerprint` is that of its source, taken where the run is written to a folder, so that it is not resumed on other data.
    """

    learner: Learner
    spec: Spec
    seeds: tuple[int, ...]
    state: PyTree
    step: int = 0
    total: int = 0
    stage: int = 0
    earlier: tuple[Run, ...] = ()
    metrics: list[dict[str, Any]] = field(default_factory=list)
    source_state: PyTree = None
    fingerprint: str = ""

    @property
    def name(self) -> str:
        """The learner's registered name, or its class name."""
        return registry.name_of(self.learner)

    def products(self, *, seed: int | None = None) -> dict[str, Any]:
        """Everything learned, for one seed number, or stacked over seeds."""
        products = jax.vmap(self.learner.products)(self.state) if seed is None else self.learner.products(self._state_of(seed))
        return products

    def _state_of(self, seed: int) -> PyTree:
        if seed not in self.seeds:
            raise BadInput(f"this run has no seed {seed}: it has {', '.join(map(str, self.seeds))}")
        index = self.seeds.index(seed)
        return jax.tree.map(lambda leaf: leaf[index], self.state)

    def _product(self, name: str, seed: int | None) -> Any:
        products = self.products(seed=self.seeds[0] if seed is None else seed)
        if name not in products:
            raise Unsupported(f"{self.name} learns no {name}: it offers {', '.join(products)}")
        return products[name]

    def policy(self, *, seed: int | None = None) -> Policy:
        """The policy of one seed (the first by default), sampling; `.mode()` is its deterministic version."""
        return self._product("policy", seed)

    def critic(self, *, seed: int | None = None) -> Any:
        """The critic of one seed (the first by default)."""
        return self._product("critic", seed)

    @property
    def evaluations(self) -> list[dict[str, Any]]:
        """The rows of `metrics` that hold an evaluation."""
        return [row for row in self.metrics if "evaluation" in row]

    def save(self, folder: str | Path) -> Path:
        """Write the run to a folder that `load_run` reads; the metrics go beside the arrays."""
        place = RunFolder(Path(folder), self)
        place.begin()
        for row in self.metrics:
            place.append(row)
        place.checkpoint((self.state, self.source_state))
        return Path(folder)

    def save_policy(self, path: str | Path, *, seed: int | None = None, product: str = "policy") -> Path:
        """Write one seed's policy with its Spec to one safetensors file that `load_policy` reads."""
        document = {
            "kind": "product",
            "product": product,
            "learner": registry.to_json(self.learner),
            "spec": self.spec.to_json(),
        }
        save_arrays(path, {"product": self._product(product, seed), "spec": self.spec}, document)
        return Path(path)

    def describe(self) -> dict[str, Any]:
        """The run as JSON: learner with all settings, spec, seeds, steps, versions."""
        return {
            "kind": "run",
            "learner": registry.to_json(self.learner),
            "spec": self.spec.to_json(),
            "seeds": list(self.seeds),
            "step": self.step,
            "total": self.total,
            "stage": self.stage,
            "fingerprint": self.fingerprint,
            "versions": versions(),
        }


def versions() -> dict[str, str]:
    """The versions that a number depends on."""
    from importlib.metadata import version

    return {
        "python": platform.python_version(),
        **{name: version(name) for name in ("policylab", "jax", "equinox", "optax", "numpy")},
    }


class RunFolder:
    """A run on disk: `run.json`, `metrics.jsonl` (appended), `checkpoint.safetensors` (replaced atomically)."""

    def __init__(self, folder: Path, run: Run):
        self.folder, self.run = folder, run

    def begin(self) -> None:
        """Start a new run here. Raises `BadInput` if another run is already in this folder."""
        if (self.folder / _CHECKPOINT).exists():
            raise BadInput(f"{self.folder} already holds a run: choose another folder, or resume it (resume=True, --resume)")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._describe()
        write_atomically(self.folder / _METRICS, b"")

    def _describe(self) -> None:
        write_atomically(self.folder / _DESCRIPTION, (json.dumps(self.run.describe(), indent=1) + "\n").encode())

    def append(self, row: Mapping[str, Any]) -> None:
        """Add one row to the metrics."""
        with open(self.folder / _METRICS, "a") as file:
            file.write(json.dumps(row) + "\n")

    def checkpoint(self, carry: tuple[PyTree, PyTree]) -> None:
        """Write the state of the loop; what was there is replaced in one step."""
        tree = {"state": carry[0], "source": carry[1], "spec": self.run.spec}
        save_arrays(self.folder / _CHECKPOINT, tree, self.run.describe())
        self._describe()

    def resume(self, carry: tuple[PyTree, PyTree]) -> tuple[PyTree, PyTree]:
        """The loop's state from the checkpoint, if there is one; metrics beyond it are cut off.

        Raises `BadInput` if the folder holds a run of another learner, setting, number of steps, list of seeds or other data.
        """
        path = self.folder / _CHECKPOINT
        if not path.exists():
            (self.folder / _METRICS).unlink(missing_ok=True)
            self.begin()
            return carry
        saved, mine = documents.read(path, "run"), self.run.describe()
        parts = {"learner": "settings", "seeds": "seeds", "total": "updates", "spec": "spaces of its data", "stage": "stages"}
        for part, words in parts.items():
            if saved[part] != mine[part]:
                raise BadInput(
                    f"{self.folder} holds a run with other {words}: resume it with the settings it was started with "
                    f"(see {self.folder / _DESCRIPTION}), or choose another folder"
                )
        before = saved.get("fingerprint", "")  # a run that was saved after training, without its data, has none
        if before and mine["fingerprint"] and before != mine["fingerprint"]:
            raise BadInput(
                f"{self.folder} holds a run on other data of the same shapes (fingerprint {before}, these have "
                f"{mine['fingerprint']}): resume it with the data it was started with, or choose another folder"
            )
        tree, _ = load_arrays(path, {"state": carry[0], "source": carry[1], "spec": self.run.spec})
        self.run.step = saved["step"]
        rows = [row for row in _read_rows(self.folder / _METRICS) if row["step"] <= saved["step"]]
        self.run.metrics = rows
        write_atomically(self.folder / _METRICS, "".join(json.dumps(row) + "\n" for row in rows).encode())
        return tree["state"], tree["source"]


def _read_rows(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(errors="replace").splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:  # a line cut short by a kill; the steps it told of are run again
            break
        if not isinstance(row, dict) or not isinstance(row.get("step"), int):
            raise BadInput(f"{path} holds a line that policylab did not write ({line[:40]!r}): remove the line, or train again")
        rows.append(row)
    return rows


def load_run(folder: str | Path, *, learner: Learner | None = None) -> Run:
    """The run saved in `folder`. Runs of your own learner class need `learner=Mine(...)`, since loading never executes code.

    Raises `BadInput` naming the file where something is missing or damaged.
    """
    path = Path(folder) / _CHECKPOINT
    document = documents.read(path, "run")
    learner, spec = documents.learner_in(document, path, learner), documents.spec_in(document, path)
    seeds = tuple(document["seeds"])

    def build() -> PyTree:
        return jax.vmap(lambda key: traced(learner).init(spec, key=key))(jax.random.split(jax.random.key(0), len(seeds)))

    tree, _ = load_arrays(path, {"state": documents.shapes_in(build, path), "spec": spec})
    return Run(
        learner,
        tree["spec"],
        seeds,
        tree["state"],
        step=document["step"],
        total=document["total"],
        stage=document["stage"],
        metrics=_read_rows(Path(folder) / _METRICS),
        fingerprint=str(document.get("fingerprint", "")),
    )


def load_policy(path: str | Path, *, spec: Spec | None = None, learner: Learner | None = None) -> Policy:
    """The policy (or other product) that `save_policy` wrote. With `spec`, a mismatch of spaces is one clear sentence.

    `load_product` returns the Spec as well, from which `Encoder.of` gives the encoding of a log's rows.
    """
    policy, saved = load_product(path, learner=learner)
    if spec is not None:
        saved.require(spec)
    return policy


def load_product(path: str | Path, *, learner: Learner | None = None) -> tuple[Any, Spec]:
    """A saved product and its Spec. Raises `BadInput` naming the file where something is missing or damaged."""
    path = Path(path)
    document = documents.read(path, "product")
    learner, spec = documents.learner_in(document, path, learner), documents.spec_in(document, path)
    name = document["product"]

    def build() -> PyTree:
        live = traced(learner)
        products = live.products(live.init(spec, key=jax.random.key(0)))
        if name not in products:
            raise documents.damaged(path, f"names the product {name!r}, where the learner offers {', '.join(products)}")
        return products[name]

    tree, _ = load_arrays(path, {"product": documents.shapes_in(build, path), "spec": spec})
    return tree["product"], tree["spec"]
