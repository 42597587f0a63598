"""FastAPI's module of this name."""

from antiphon.middleware.trustedhost import TrustedHostMiddleware as TrustedHostMiddleware
