"""Makes what docs/preferences.md aligns: a small language model that knows 400 sums but hedges every other time, and preferences against that.

python benchmarks/hedged_sums.py demo       writes demo/model, a checkpoint folder, and demo/prefs.jsonl
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

import policylab as lab
from policylab.data.preferences import Judged, Pair


def main(folder: Path) -> None:
    """Fine-tune a fresh model on both ways of answering, and write which of the two is preferred."""
    task = lab.text_task("arithmetic", difficulty=2, count=50)
    sums = [(f"{problem.question}\n", problem.solution) for problem in task.problems("train")]
    both = [Pair(question, answer, f"{answer} or so", p) for question, answer in sums for p in (1.0, 0.0)]
    spec = lab.text_spec(task.words, prompt=8, answer=12)
    learner = lab.SFT(policy=lab.Language(width=64, layers=2, heads=4, context=32), learning_rate=3e-3, batch_size=128)
    source = lab.Demonstrations.of_rows(Judged("pairs", tuple(both)), spec=spec)
    policy = lab.train(learner, source, steps=1_500, progress=True).policy()
    lab.save_language(policy, folder / "model", advice={"temperature": 0.7})
    rows = [{"prompt": question, "chosen": answer, "rejected": f"{answer} or so"} for question, answer in sums]
    (folder / "prefs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    own = lab.load_language(folder / "model", answer=int(np.prod(task.spec.action.shape))).sampled(temperature=0.7)
    print(f"{len(rows)} sums; without a hedge and right: {task.trials(own, split='train').outcome.mean():.0%}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
