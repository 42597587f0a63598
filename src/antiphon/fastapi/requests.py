"""FastAPI's module of this name."""

from antiphon.requests import HTTPConnection as HTTPConnection
from antiphon.requests import Request as Request
