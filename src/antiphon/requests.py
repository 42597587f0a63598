"""Requests and what they share with WebSockets, under FastAPI's names; they are Starlette's."""

from starlette.requests import HTTPConnection as HTTPConnection
from starlette.requests import Request as Request
