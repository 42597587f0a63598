"""Which tests of which projects hold for antiphon, and which promises it changes on purpose."""

from __future__ import annotations

from tests.upstream.runner import File, Suite

_BEFORE_ACCEPT = (
    "a receive before accept is NotAccepted, a RuntimeError that is not a disconnect: "
    "the programming error stays visible (WebSocket, point 5)"
)

_OPENAPI = "companion HTTP routes take no part in OpenAPI: for that, mount FastAPI (routing and the app)"

STARLETTE = Suite(
    project="starlette",
    version="1.10.0",
    sha256="b8399098d4c1e3522734f7235dc79b1fc967f96cf139c81e0fa30479e0685f9b",
    support=("tests/__init__.py", "tests/conftest.py", "tests/types.py", "tests/middleware/__init__.py"),
    names={
        "starlette.websockets": "antiphon.websockets",
        "starlette.testclient": "antiphon.testclient",
        "starlette.routing": "antiphon.routing",
        "starlette.endpoints": "antiphon.endpoints",
    },
    files=(
        File(
            path="tests/test_websockets.py",
            deselected={
                "test_receive_text_before_accept": _BEFORE_ACCEPT,
                "test_receive_bytes_before_accept": _BEFORE_ACCEPT,
                "test_receive_json_before_accept": _BEFORE_ACCEPT,
            },
        ),
        File(path="tests/test_testclient.py"),
        File(path="tests/test_routing.py"),
        File(path="tests/test_endpoints.py", only="websocket"),
        File(path="tests/test_authentication.py"),
        File(path="tests/test_exceptions.py", only="websocket"),
        File(path="tests/test_applications.py", only="websocket"),
        File(path="tests/test_responses.py", only="websocket"),
        # Middleware and background tasks, where WebSockets share them with HTTP
        File(path="tests/test_background.py"),
        File(path="tests/test_convertors.py"),
        File(path="tests/middleware/test_base.py"),
        File(path="tests/middleware/test_errors.py"),
        File(path="tests/middleware/test_session.py"),
    ),
)

FASTAPI = Suite(
    project="fastapi",
    version="0.163.2",
    sha256="e605c4c9b94be78b43aa8239a62ccf7b6684346cdc9e053633feab0ab21b87c7",
    support=(
        "tests/__init__.py",
        "tests/utils.py",
        "tests/test_tutorial/__init__.py",
        "tests/test_tutorial/test_websockets/__init__.py",
        "docs_src/websockets_",
        "docs_src/app_testing",
    ),
    names={
        "fastapi": "antiphon.fastapi",
        "starlette.websockets": "antiphon.websockets",
        "starlette.testclient": "antiphon.testclient",
        "httpx": "httpx2",
    },
    files=(
        File(path="tests/test_ws_router.py"),
        File(path="tests/test_ws_dependencies.py"),
        File(path="tests/test_security_websockets.py"),
        File(path="tests/test_dependency_after_yield_websockets.py"),
        File(path="tests/test_dependency_yield_scope_websockets.py"),
        File(path="tests/test_http_connection_injection.py"),
        File(path="tests/test_route_scope.py"),
        File(path="tests/test_validation_error_context.py", only="websocket"),
        File(path="tests/test_async_dependency_cleanup.py", only="websocket"),
        File(path="tests/test_dependency_concurrency.py", only="websocket or ws"),
        File(path="tests/test_multiple_parameter_models.py", only="websocket or ws"),
        File(path="tests/test_query_optional_models.py", only="websocket or ws"),
        File(path="tests/test_security_http_base_optional.py", deselected={"test_openapi_schema": _OPENAPI}),
        File(path="tests/test_security_http_bearer.py", deselected={"test_openapi_schema": _OPENAPI}),
        File(path="tests/test_tutorial/test_websockets/test_tutorial001.py"),
        File(path="tests/test_tutorial/test_websockets/test_tutorial002.py"),
        File(path="tests/test_tutorial/test_websockets/test_tutorial003.py"),
        File(path="tests/test_tutorial/test_testing/test_tutorial002.py"),
        # Routing, overrides and handlers, where WebSockets share them with HTTP
        File(path="tests/test_exception_handlers.py"),
        File(path="tests/test_router_events.py"),
        File(path="tests/test_router_redirect_slashes.py"),
        File(path="tests/test_router_prefix_with_template.py"),
        File(path="tests/test_router_circular_import.py"),
        File(path="tests/test_empty_router.py"),
        File(path="tests/test_include_route.py"),
        File(path="tests/test_starlette_urlconvertors.py"),
        File(path="tests/test_dependency_overrides.py"),
        File(path="tests/test_dependency_cache.py"),
        File(path="tests/test_dependency_wrapped.py"),
        File(path="tests/test_response_dependency.py"),
        File(path="tests/test_response_change_status_code.py"),
        File(path="tests/test_path_alias_choices.py", deselected={"test_openapi": _OPENAPI}),
        # Forms and files of companion routes
        File(path="tests/test_form_default.py"),
        File(path="tests/test_forms_single_model.py"),
        File(path="tests/test_optional_file_list.py"),
        File(path="tests/test_file_and_form_order_issue_9116.py"),
        File(path="tests/test_list_bytes_file_order_preserved_issue_14811.py"),
    ),
)
"""Left out: tests of features that only FastAPI has (OpenAPI, `frontend`, telemetry, its private names), which their
files import at the top or use throughout."""

SUITES: tuple[Suite, ...] = (STARLETTE, FASTAPI)
