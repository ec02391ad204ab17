"""Forms that are fitted to several steps at once: they say how many, and who clones them asks for such windows."""

from __future__ import annotations

from policylab.policy import Form


class Windowed(Form):
    """A form whose `imitation_loss` reads windows: `past` steps before an action and `future` steps from it on, itself included."""

    @property
    def past(self) -> int:
        """Steps before the action, 0 or more."""
        return 0

    @property
    def future(self) -> int:
        """Steps from the action on, at least 1."""
        return 1
