"""FastAPI's module of this name."""

from antiphon.security import APIKeyCookie as APIKeyCookie
from antiphon.security import APIKeyHeader as APIKeyHeader
from antiphon.security import APIKeyQuery as APIKeyQuery
