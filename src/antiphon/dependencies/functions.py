"""The markers as functions of type `Any`, the way users write them.

Owns no behaviour: each builds the class of the same name in `params.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Unpack

from pydantic_core import PydanticUndefined

from . import params
from .params import LifeScope, ParamOptions


def Depends(
    dependency: Callable[..., Any] | None = None,
    *,
    use_cache: bool = True,
    scope: LifeScope | None = None,
    max_concurrency: int | None = None,
) -> Any:
    """Take what `dependency` returns or yields (FastAPI's `Depends`); see `params.Depends`."""
    return params.Depends(dependency, use_cache=use_cache, scope=scope, max_concurrency=max_concurrency)


def Security(
    dependency: Callable[..., Any] | None = None,
    *,
    scopes: Sequence[str] | None = None,
    use_cache: bool = True,
    scope: LifeScope | None = None,
    max_concurrency: int | None = None,
) -> Any:
    """`Depends` that also demands OAuth2 scopes (FastAPI's `Security`)."""
    return params.Security(dependency, use_cache=use_cache, scope=scope, scopes=scopes, max_concurrency=max_concurrency)


def Path(default: Any = ..., **options: Unpack[ParamOptions]) -> Any:
    """Read a parameter from the path; it has no default."""
    return params.Path(default, **options)


def Query(default: Any = PydanticUndefined, **options: Unpack[ParamOptions]) -> Any:
    """Read a parameter from the query string."""
    return params.Query(default, **options)


def Header(
    default: Any = PydanticUndefined, *, convert_underscores: bool = True, **options: Unpack[ParamOptions]
) -> Any:
    """Read a parameter from the request headers; a list takes every occurrence."""
    return params.Header(default, convert_underscores=convert_underscores, **options)


def Cookie(default: Any = PydanticUndefined, **options: Unpack[ParamOptions]) -> Any:
    """Read a parameter from the cookies."""
    return params.Cookie(default, **options)


def Body(
    default: Any = PydanticUndefined,
    *,
    embed: bool | None = None,
    media_type: str = "application/json",
    **options: Unpack[ParamOptions],
) -> Any:
    """Read a parameter from the JSON body of an HTTP request."""
    return params.Body(default, embed=embed, media_type=media_type, **options)


def Form(
    default: Any = PydanticUndefined,
    *,
    media_type: str = "application/x-www-form-urlencoded",
    **options: Unpack[ParamOptions],
) -> Any:
    """Read a parameter from the form body of an HTTP request."""
    return params.Form(default, media_type=media_type, **options)


def File(
    default: Any = PydanticUndefined, *, media_type: str = "multipart/form-data", **options: Unpack[ParamOptions]
) -> Any:
    """Read uploaded files of an HTTP request: as `UploadFile`, or their content as `bytes`."""
    return params.File(default, media_type=media_type, **options)
