"""What the parent of several workers tells them in their environment. Knows nothing else, and needs nothing."""

from typing import Final

ENVIRONMENT: Final = "ANTIPHON_RELAY"
"""Environment variable that names the relay, as KEY:ADDRESS; set for the workers by whoever runs the `Supervisor`."""
