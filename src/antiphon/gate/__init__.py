"""The gate: who may come in, for how long, and how much. README.md has the design."""

from antiphon.connection.denials import Denials
from antiphon.identity import Identity

from .admission import admit
from .middleware import OriginMiddleware
from .origins import SAME, Foreign, Origins
from .refusals import note_refusal
from .secrets import SecretFilter

__all__ = [
    "SAME",
    "Denials",
    "Foreign",
    "Identity",
    "OriginMiddleware",
    "Origins",
    "SecretFilter",
    "admit",
    "note_refusal",
]
