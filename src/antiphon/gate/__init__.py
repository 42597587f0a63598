"""The gate: who may come in, for how long, and how much. README.md has the design."""

from antiphon.identity import Identity

from .admission import admit
from .rates import ADDRESS, CLOSE, CONNECTION, REPLY, TOPIC, USER, WAIT, OverRate, Rate, TooFast
from .refusals import note_refusal
from .shares import Per

__all__ = [
    "ADDRESS",
    "CLOSE",
    "CONNECTION",
    "REPLY",
    "TOPIC",
    "USER",
    "WAIT",
    "Identity",
    "OverRate",
    "Per",
    "Rate",
    "TooFast",
    "admit",
    "note_refusal",
]
