"""FastAPI's module of this name."""

from antiphon.security import SecurityBase as SecurityBase
