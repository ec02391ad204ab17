"""Progress on standard error: one bar that redraws on a terminal, plain lines elsewhere, nothing when quiet."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping


class Progress:
    """`advance(step, numbers)` after every chunk; on a terminal the bar is redrawn, elsewhere a line appears every tenth.

    The time that is left follows from the pace since the first news: what came before it is mostly compilation, and a run that goes on
    from a checkpoint begins with work that was done earlier.
    """

    def __init__(self, title: str, total: int, *, enabled: bool = True):
        self.title, self.total, self.enabled = title, max(total, 1), enabled
        self.terminal = sys.stderr.isatty()
        self.started, self.printed = time.monotonic(), -1
        self.first: tuple[float, int] | None = None

    def advance(self, step: int, numbers: Mapping[str, float] = {}) -> None:
        """Show that `step` of `total` steps are done."""
        if not self.enabled:
            return
        share = min(step / self.total, 1.0)
        now = time.monotonic()
        self.first = self.first or (now, step)
        since, done = now - self.first[0], step - self.first[1]
        left = f", {since * max(self.total - step, 0) / done:4.0f} s left" if done > 0 else ""
        # Exactly 0 is what a metric is where no update of the chunk reported it.
        told = "  ".join(f"{name} {value:.3g}" for name, value in [pair for pair in numbers.items() if pair[1] != 0.0][:3])
        text = f"{self.title:<24.24} {share:>4.0%}  {step:>8,}/{self.total:,}  {now - self.started:4.0f} s{left}  {told}"
        if self.terminal:
            filled = int(20 * share)
            sys.stderr.write(f"\r\x1b[2K{'█' * filled}{'░' * (20 - filled)} {text[:110]}" + ("\n" if share >= 1 else ""))
            sys.stderr.flush()
        elif int(10 * share) > self.printed:
            self.printed = int(10 * share)
            print(text.rstrip(), file=sys.stderr, flush=True)
