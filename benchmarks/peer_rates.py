"""Runs in the peer's environment: for every line on stdin, a number of updates, does them with d3rlpy and answers one JSON line.

    peer/bin/python benchmarks/peer_rates.py LEARNER ROWS

The first line it writes holds the versions, when the data stand ready and a few updates have been done.
"""

from __future__ import annotations

import json
import logging
import os
import resource
import sys
import time

import d3rlpy
import numpy as np
import structlog
import torch

CONFIGS = {"bc": "BCConfig", "td3-bc": "TD3PlusBCConfig", "iql": "IQLConfig", "cql": "CQLConfig"}
BATCH = 256


def main() -> None:
    """Serve until stdin ends."""
    name, rows = sys.argv[1], int(sys.argv[2])
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    torch.set_num_threads(os.cpu_count() or 1)
    random = np.random.default_rng(0)
    ends = np.zeros(rows, np.float32)
    ends[999::1000] = 1
    ends[-1] = 1
    data = d3rlpy.dataset.MDPDataset(
        random.standard_normal((rows, 17), dtype=np.float32), np.tanh(random.standard_normal((rows, 6), dtype=np.float32)),
        random.standard_normal(rows).astype(np.float32), np.zeros(rows, np.float32), ends,
    )  # fmt: skip
    learner = getattr(d3rlpy.algos, CONFIGS[name])(batch_size=BATCH).create(device="cpu")
    learner.build_with_dataset(data)

    def work(updates: int) -> None:
        for _ in range(updates):
            learner.update(data.sample_transition_batch(BATCH))

    work(5)
    print(json.dumps({"d3rlpy": d3rlpy.__version__, "torch": torch.__version__}), flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        work(int(line))
        rate = int(line) / (time.perf_counter() - start)
        print(json.dumps({"rate": rate, "peak_memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}), flush=True)


if __name__ == "__main__":
    main()
