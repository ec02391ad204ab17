"""Running a claim and recording it: every started run, aborted or not, leaves its lines in `results/NAME.jsonl`."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from policylab import claims
from policylab.claim import Claim
from policylab.evaluation import provenance, records
from policylab.evaluation.verdicts import PartVerdict, Standing, settle
from policylab.progress import Progress


@dataclass(frozen=True)
class Verdict:
    """What came out: `arms` holds each key's values per unit, `seeds` the units in order, `rerun` whether other seeds than the claim's
    own were used, `attempt` which declaration of this claim it is."""

    system: str
    verdict: str
    scale: str
    parts: tuple[PartVerdict, ...]
    arms: Mapping[str, np.ndarray]
    seeds: tuple[int, ...]
    seconds: float
    rerun: bool
    attempt: int


def reproduce(system: str | Claim, *, seeds: int | None = None, first_seed: int = 0, folder: str | Path = "results",
              progress: bool = False) -> Verdict:  # fmt: skip
    """Run the claim of a system (or a Claim of your own) look by look and append what happens to `folder/NAME.jsonl`.

    `seeds` and `first_seed` make a rerun on other seeds, which never replaces a verdict. Raises `BadInput` for an unknown system and
    whatever the claim itself raises; the run is then recorded as aborted, with the reason.
    """
    claim = claims.load(system) if isinstance(system, str) else system
    file = claims.find().get(claim.system) if isinstance(system, str) else None
    path = Path(folder) / f"{claim.system}.jsonl"
    rerun = seeds is not None or first_seed != 0
    declaration = provenance.declaration_hash(claim.declared)
    run = uuid.uuid4().hex[:12]

    def record(event: str, **facts: Any) -> None:
        records.append(path, {"run": run, "event": event, "time": time.time(), **facts})

    record(
        "started", system=claim.system, declaration=declaration, rerun=rerun, first_seed=first_seed, seeds=seeds,
        declared=claim.declared, versions=provenance.versions(), cores=os.cpu_count(),
    )  # fmt: skip
    started = time.perf_counter()
    most = seeds or claim.looks[-1]
    bar = Progress(f"{claim.system}: looks", most, enabled=progress)
    standing: Standing | None = None
    try:
        with provenance.Calls() as calls:
            for standing in settle(claim, seeds=seeds, first_seed=first_seed):
                record(
                    "look", units=standing.units, verdict=standing.verdict, values=_listed(standing.values),
                    parts=[part.document() for part in standing.parts], seconds=round(time.perf_counter() - started, 2),
                )  # fmt: skip
                bar.advance(most if standing.final else standing.units)
    except BaseException as reason:
        record("aborted", reason=f"{type(reason).__name__}: {reason}", seconds=round(time.perf_counter() - started, 2))
        raise
    assert standing is not None
    seconds = time.perf_counter() - started
    record(
        "finished", verdict=standing.verdict, scale=claim.scale, p=standing.p, units=standing.units,
        parts=[part.document() for part in standing.parts], values=_listed(standing.values),
        seconds=round(seconds, 2), **provenance.code_of(file, calls.names()),
    )  # fmt: skip
    attempt = records.tries(records.runs([path]), declaration)
    numbers = tuple(range(first_seed, first_seed + standing.units))
    return Verdict(
        claim.system, standing.verdict, claim.scale, standing.parts, standing.values, numbers, seconds, rerun, attempt
    )  # fmt: skip


def reproduce_json(verdict: Verdict) -> dict[str, Any]:
    """The document of `policylab reproduce NAME --json`."""
    return {
        "system": verdict.system,
        "verdict": verdict.verdict,
        "scale": verdict.scale,
        "parts": [part.document() for part in verdict.parts],
        "arms": {key: {"mean": float(values.mean()), "values": values.tolist()} for key, values in verdict.arms.items()},
        "seeds": list(verdict.seeds),
        "seconds": round(verdict.seconds, 1),
        "rerun": verdict.rerun,
        "attempt": verdict.attempt,
    }


def reproduce_text(verdict: Verdict) -> str:
    """A few lines for a terminal."""
    kind = "a rerun" if verdict.rerun else f"attempt {verdict.attempt}"
    lines = [
        f"{verdict.system}: {verdict.verdict} ({verdict.scale} scale, {len(verdict.seeds)} units, {verdict.seconds:.0f} s, {kind})"
    ]
    for part in verdict.parts:
        low, high = part.interval
        lines.append(f"  {part.verdict:<12} {part.words}: {part.difference:.3g} ({low:.3g} to {high:.3g} at {part.level:.1%})")
    for key, values in verdict.arms.items():
        lines.append(f"  {key:<24} mean {values.mean():.4g}, standard deviation {values.std(ddof=1):.3g}")
    return "\n".join(lines)


def _listed(values: Mapping[str, np.ndarray]) -> dict[str, list[float]]:
    return {key: [float(x) for x in array] for key, array in values.items()}
