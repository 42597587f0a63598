"""`antiphon.fastapi` has FastAPI's module layout, and its names are antiphon's own objects."""

from __future__ import annotations

import asyncio
import importlib
import pkgutil
import subprocess
import sys

import fastapi
import pytest

import antiphon
import antiphon.fastapi
import antiphon.security
import antiphon.testclient

MODULES = [
    "background",
    "concurrency",
    "datastructures",
    "encoders",
    "exception_handlers",
    "exceptions",
    "middleware",
    "middleware.cors",
    "middleware.gzip",
    "middleware.httpsredirect",
    "middleware.trustedhost",
    "params",
    "param_functions",
    "requests",
    "responses",
    "routing",
    "security",
    "security.api_key",
    "security.http",
    "security.oauth2",
    "security.open_id_connect_url",
    "security.utils",
    "staticfiles",
    "testclient",
    "types",
    "websockets",
]

NOT_OURS = {
    "": {"File"},
    "concurrency": {"contextmanager_in_threadpool"},
    "datastructures": {"Default", "DefaultPlaceholder"},
    "encoders": {"PyExtraColor", "decimal_encoder", "generate_encoders_by_class_tuples", "isoformat"},
    "exceptions": {
        "EndpointContext",
        "FastAPIDeprecationWarning",
        "PydanticV1NotSupportedError",
        "RequestErrorModel",
        "WebSocketErrorModel",
    },
    "params": {"File", "ParamTypes"},
    "param_functions": {"File"},
    "responses": {"EventSourceResponse", "FastAPIDeprecationWarning", "ORJSONResponse", "UJSONResponse"},
    "routing": {
        "RouteContext",
        "get_request_handler",
        "get_websocket_app",
        "iter_route_contexts",
        "request_response",
        "run_endpoint_function",
        "serialize_response",
        "websocket_session",
    },
    "security.api_key": {"APIKeyBase"},
    "types": {"DependencyCacheKey", "ModelNameMap", "UnionType"},
}
"""Public names of FastAPI's that have no counterpart: uploads, streamed events, OpenAPI, and its inner workings."""

NOT_THERE = [
    "antiphon.fastapi.middleware.wsgi",
    "antiphon.fastapi.openapi.docs",
    "antiphon.fastapi.openapi.utils",
    "antiphon.fastapi.sse",
]


@pytest.mark.parametrize("module", ["", *MODULES])
def test_what_fastapi_defines_or_passes_on_is_there(module: str) -> None:
    theirs = importlib.import_module(f"fastapi.{module}".rstrip("."))
    ours = importlib.import_module(f"antiphon.fastapi.{module}".rstrip("."))
    public = {name for name, value in vars(theirs).items() if _is_public(name, value, theirs.__name__)}
    assert {name for name in public if not hasattr(ours, name)} <= NOT_OURS.get(module, set())


def _is_public(name: str, value: object, module: str) -> bool:
    """A name that programs import from that module: defined there, or re-exported from Starlette by a thin module."""
    home = getattr(value, "__module__", None)
    is_thin = module.split(".")[-1] in ("fastapi", "requests", "responses", "websockets", "security", "testclient")
    return (
        not name.startswith("_")
        and isinstance(value, type | type(_is_public))
        and (home == module or (is_thin and str(home).startswith(("fastapi.", "starlette."))))
        and name not in ("Annotated", "Doc", "deprecated")
    )


def test_the_names_are_the_same_objects() -> None:
    from antiphon.fastapi import exceptions, routing, security, testclient, websockets

    assert antiphon.fastapi.FastAPI is antiphon.App
    assert antiphon.fastapi.WebSocket is websockets.WebSocket is antiphon.WebSocket
    assert antiphon.fastapi.APIRouter is routing.APIRouter is antiphon.APIRouter
    assert antiphon.fastapi.Depends is antiphon.Depends
    assert exceptions.WebSocketException is antiphon.WebSocketException
    assert security.HTTPBearer is antiphon.security.HTTPBearer
    assert testclient.TestClient is antiphon.testclient.TestClient


def test_every_module_of_the_namespace_can_be_imported_but_for_optional_packages() -> None:
    for module in pkgutil.walk_packages(antiphon.fastapi.__path__, "antiphon.fastapi."):
        if module.name not in ("antiphon.fastapi.templating", *NOT_THERE):  # templating needs jinja2, as FastAPI's does
            importlib.import_module(module.name)


@pytest.mark.parametrize("module", NOT_THERE)
def test_a_module_that_antiphon_has_no_counterpart_of_says_what_to_do_instead(module: str) -> None:
    with pytest.raises(ImportError, match=r"^antiphon .*mount"):
        importlib.import_module(module)


@pytest.mark.filterwarnings("ignore:run_until_first_complete is deprecated")
async def test_what_is_starlettes_in_concurrency_is_passed_on() -> None:
    from antiphon.fastapi.concurrency import run_until_first_complete

    done = []

    async def quick(name: str) -> None:
        done.append(name)

    await run_until_first_complete((quick, {"name": "a"}), (asyncio.sleep, {"delay": 60}))
    assert done == ["a"]


def test_a_subclass_of_oauth2_is_made_as_in_fastapi() -> None:
    from antiphon.fastapi.openapi.models import OAuthFlows
    from antiphon.fastapi.security import OAuth2

    scheme = OAuth2(flows=OAuthFlows(password={"tokenUrl": "/token", "scopes": {}}))
    assert scheme.model.flows == {"password": {"tokenUrl": "/token", "scopes": {}}}


def test_errors_of_ours_are_caught_by_handlers_of_theirs() -> None:
    from starlette.exceptions import HTTPException, WebSocketException
    from starlette.websockets import WebSocketDisconnect

    assert issubclass(antiphon.HTTPException, HTTPException)
    assert issubclass(antiphon.WebSocketException, WebSocketException)
    assert issubclass(antiphon.WebSocketDisconnect, WebSocketDisconnect)
    assert fastapi.WebSocketDisconnect is WebSocketDisconnect


def test_templates_without_jinja2_say_what_is_missing() -> None:
    program = "import sys; sys.modules['jinja2'] = None; import antiphon.fastapi; import antiphon.fastapi.templating"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert "ImportError: jinja2 must be installed to use Jinja2Templates" in run.stderr
