"""The environment variable through which a parent configures its workers. Imports nothing of the hub."""

from typing import Final

ENVIRONMENT: Final = "ANTIPHON_RELAY"
"""Environment variable that names the relay, as KEY:ADDRESS. The process that runs the `Supervisor` sets it for the
workers."""
