"""Requests and their base class, which WebSockets share, under FastAPI's names. They are Starlette's."""

from starlette.requests import HTTPConnection as HTTPConnection
from starlette.requests import Request as Request
