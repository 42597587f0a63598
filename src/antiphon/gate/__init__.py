"""The gate: who may come in, for how long, and how much. README.md has the design."""

from antiphon.connection.denials import Denials
from antiphon.identity import Identity

from .admission import admit
from .middleware import OriginMiddleware
from .origins import SAME, Foreign, Origins
from .rates import ADDRESS, CLOSE, CONNECTION, REPLY, TOPIC, USER, WAIT, OverRate, Rate, TooFast
from .refusals import note_refusal
from .secrets import SecretFilter
from .shares import Per

__all__ = [
    "ADDRESS",
    "CLOSE",
    "CONNECTION",
    "REPLY",
    "SAME",
    "TOPIC",
    "USER",
    "WAIT",
    "Denials",
    "Foreign",
    "Identity",
    "OriginMiddleware",
    "Origins",
    "OverRate",
    "Per",
    "Rate",
    "SecretFilter",
    "TooFast",
    "admit",
    "note_refusal",
]
