"""All benchmarks, one after the other. `python benchmarks/run.py --peer-python peer/bin/python` adds the peers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPTS = ("offline_updates.py", "score_statistics.py")


def main() -> None:
    for script in SCRIPTS:
        print(f"== {script}", flush=True)
        subprocess.run([sys.executable, str(Path(__file__).parent / script), *sys.argv[1:]], check=True)


if __name__ == "__main__":
    main()
