"""The markers as functions of type `Any`, the way users write them.

Owns no behaviour: each builds the class of the same name in `params.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Unpack

from pydantic_core import PydanticUndefined

from . import params
from .params import DependsScope, ParamOptions


def Depends(
    dependency: Callable[..., Any] | None = None,
    *,
    use_cache: bool = True,
    scope: DependsScope | None = None,
    max_concurrency: int | None = None,
) -> Any:
    """Take the value that `dependency` returns or yields (FastAPI's `Depends`).

        async def user(token: str = "") -> str: ...

        @app.websocket("/me")
        async def me(websocket: WebSocket, user: Annotated[str, Depends(user)]) -> None: ...

    Without `dependency` the parameter's annotation is called. `use_cache=False` runs it anew for this place. `scope`
    says when a dependency with `yield` ends: "function" before "request", which is the default. Below a handler of a
    channel it says how long the value serves: "message", the default, or "connection". At most `max_concurrency` runs
    of this declaration go on at a time in one event loop, a `yield` counting until its end.

    Raises ValueError for a `max_concurrency` that is no positive integer. A dependency that cannot be called is a
    `ParameterDeclarationError` where the endpoint is registered.
    """
    return params.Depends(dependency, use_cache=use_cache, scope=scope, max_concurrency=max_concurrency)


def Security(
    dependency: Callable[..., Any] | None = None,
    *,
    scopes: Sequence[str] | None = None,
    use_cache: bool = True,
    scope: DependsScope | None = None,
    max_concurrency: int | None = None,
) -> Any:
    """`Depends` that also demands OAuth2 scopes, which everything below it finds in `SecurityScopes` (FastAPI's).

    For example:

        @app.websocket("/orders")
        async def orders(websocket: WebSocket, who: Annotated[Identity, Security(jwt, scopes=["orders:read"])]) -> None:
            await websocket.accept()
    """
    return params.Security(dependency, use_cache=use_cache, scope=scope, scopes=scopes, max_concurrency=max_concurrency)


def Path(default: Any = ..., **options: Unpack[ParamOptions]) -> Any:
    """Read a parameter from the path. It has no default (FastAPI's `Path`).

        @app.websocket("/rooms/{number}")
        async def room(websocket: WebSocket, number: Annotated[int, Path(ge=1)]) -> None: ...

    `options` and errors as for `Query`.
    """
    return params.Path(default, **options)


def Query(default: Any = PydanticUndefined, **options: Unpack[ParamOptions]) -> Any:
    """Read a parameter from the query string (FastAPI's `Query`).

        @app.websocket("/find")
        async def find(websocket: WebSocket, limit: Annotated[int, Query(ge=1, le=100)] = 10) -> None: ...

    `options` are pydantic's: `alias`, `ge`, `max_length`, `pattern`, …. An unknown one is a TypeError. A list takes
    every occurrence of the key, a pydantic model one key per field. A value that fails validation is a
    `WebSocketRequestValidationError` (HTTP: `RequestValidationError`) with the errors of all parameters.
    """
    return params.Query(default, **options)


def Header(
    default: Any = PydanticUndefined, *, convert_underscores: bool = True, **options: Unpack[ParamOptions]
) -> Any:
    """Read a parameter from the request headers (FastAPI's `Header`): `x_key` is `x-key`, unless `convert_underscores`
    is off. `options` and errors as for `Query`.

        @app.websocket("/live")
        async def live(websocket: WebSocket, user_agent: Annotated[str | None, Header()] = None) -> None: ...
    """
    return params.Header(default, convert_underscores=convert_underscores, **options)


def Cookie(default: Any = PydanticUndefined, **options: Unpack[ParamOptions]) -> Any:
    """Read a parameter from the cookies (FastAPI's `Cookie`).

        @app.websocket("/live")
        async def live(websocket: WebSocket, session: Annotated[str | None, Cookie()] = None) -> None: ...

    `options` and errors as for `Query`.
    """
    return params.Cookie(default, **options)


def Body(
    default: Any = PydanticUndefined,
    *,
    embed: bool | None = None,
    media_type: str = "application/json",
    **options: Unpack[ParamOptions],
) -> Any:
    """Read a parameter from the JSON body of an HTTP request (FastAPI's `Body`). A WebSocket has none.

    Several, or `embed=True`: each is one key of the object. `options` and errors as for `Query`.

        @app.post("/say")
        async def say(text: Annotated[str, Body(embed=True)]) -> int:
            return len(text)  # of {"text": "hi"}: 2
    """
    return params.Body(default, embed=embed, media_type=media_type, **options)


def Form(
    default: Any = PydanticUndefined,
    *,
    media_type: str = "application/x-www-form-urlencoded",
    **options: Unpack[ParamOptions],
) -> Any:
    """Read a parameter from the form of an HTTP request (FastAPI's `Form`). Needs python-multipart.

    For example:

        @app.post("/login")
        async def login(name: Annotated[str, Form()]) -> str:
            return name
    """
    return params.Form(default, media_type=media_type, **options)


def File(
    default: Any = PydanticUndefined, *, media_type: str = "multipart/form-data", **options: Unpack[ParamOptions]
) -> Any:
    """Read uploaded files of an HTTP request (FastAPI's `File`): as `UploadFile`, or their content as `bytes`.

    Needs python-multipart.

        @app.post("/pictures")
        async def keep(picture: Annotated[bytes, File()]) -> int:
            return len(picture)
    """
    return params.File(default, media_type=media_type, **options)
