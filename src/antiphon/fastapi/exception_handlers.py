"""FastAPI's module of this name."""

from antiphon.routing.stock import http_exception_handler as http_exception_handler
from antiphon.routing.stock import request_validation_exception_handler as request_validation_exception_handler
from antiphon.routing.stock import (
    websocket_request_validation_exception_handler as websocket_request_validation_exception_handler,
)
