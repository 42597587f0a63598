"""What holds for all tests: none may fail because the machine is busy with something else."""

from __future__ import annotations

import websockets
from hypothesis import HealthCheck, settings

from tests.patience import PATIENCE

settings.register_profile("patient", settings(deadline=None, suppress_health_check=[HealthCheck.too_slow]))
settings.load_profile("patient")

# The client that most tests connect with gives a server 10 seconds to answer, and it may need them only to start.
defaults = websockets.connect.__init__.__kwdefaults__
assert defaults is not None
defaults["open_timeout"] = PATIENCE
