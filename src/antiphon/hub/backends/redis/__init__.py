"""`redis://`: many hosts, joined by a Redis server."""

from .backend import RedisBackend

__all__ = ["RedisBackend"]
