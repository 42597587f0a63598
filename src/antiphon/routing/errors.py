"""What is wrong with a route at registration, as far as paths and routers go."""

from __future__ import annotations

from antiphon.exceptions import RegistrationError


class RoutingError(RegistrationError, ValueError, AssertionError):
    """A prefix, path or inclusion that can never work.

    Also an AssertionError, since that is what FastAPI raises for a bad prefix or inclusion, and a RuntimeError, its
    `FastAPIError`.
    """


def check_prefix(prefix: str) -> None:
    """Raise unless `prefix` is empty or looks like `/chat`."""
    if prefix and not prefix.startswith("/"):
        raise RoutingError(f"A path prefix must start with '/', got {prefix!r}")
    if prefix.endswith("/"):
        raise RoutingError(f"A path prefix must not end with '/', since the paths behind it start with one: {prefix!r}")
