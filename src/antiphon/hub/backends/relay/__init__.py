"""`relay://`: the workers of one host, joined by one small process. `python -m antiphon.hub.backends.relay` runs it."""

from .backend import RelayBackend, RelayStats
from .supervisor import Supervisor

__all__ = ["RelayBackend", "RelayStats", "Supervisor"]
