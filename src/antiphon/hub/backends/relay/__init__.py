"""`relay://`: the workers of one host, joined by one small process. `python -m antiphon.hub.backends.relay` runs it."""

from .backend import RelayBackend as RelayBackend
from .backend import RelayStats as RelayStats
from .supervisor import Supervisor

__all__ = ["Supervisor"]
