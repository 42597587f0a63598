"""What holds for all tests: none may fail because the machine is busy with something else."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile("patient", settings(deadline=None, suppress_health_check=[HealthCheck.too_slow]))
settings.load_profile("patient")
