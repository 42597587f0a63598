"""The gate: who may come in, for how long, and how much. README.md has the design."""

from antiphon.identity import Identity

from .admission import admit, renew

__all__ = ["Identity", "admit", "renew"]
