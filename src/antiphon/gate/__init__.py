"""The gate: who may come in, for how long, and how much. README.md has the design."""

from antiphon.identity import Identity

from .admission import admit
from .refusals import note_refusal

__all__ = ["Identity", "admit", "note_refusal"]
