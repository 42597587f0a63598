"""FastAPI's module of this name."""

from antiphon.security import get_authorization_scheme_param as get_authorization_scheme_param
