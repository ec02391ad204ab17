"""The old name of policylab.hyperparameters while its importers move."""

from policylab.hyperparameters import check, describe, setting, settings, traced

__all__ = ["check", "describe", "setting", "settings", "traced"]
