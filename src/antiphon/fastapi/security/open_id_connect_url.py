"""FastAPI's module of this name."""

from antiphon.security import OpenIdConnect as OpenIdConnect
