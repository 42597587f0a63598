"""The markers that say where a parameter's value comes from, as classes.

Owns the markers of a signature, and nothing about reading or running it. `functions.py` holds the callables of
the same names whose type is `Any`, so that `limit: int = Query(10)` type-checks. FastAPI's markers of the same meaning
are recognised in `foreign.py`.
"""

from __future__ import annotations

import copy
import enum
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self, TypeAlias, TypedDict, get_args

from pydantic import AliasChoices, AliasPath, Discriminator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from antiphon.exceptions import DependencyScopeError, ParameterDeclarationError

from .limits import Limit, SupportsSemaphore

LifeScope: TypeAlias = Literal["function", "request"]
"""The end of a dependency with `yield`, as solving knows it."""

DependsScope: TypeAlias = Literal["function", "request", "message", "connection"]
"""The scopes that users can write: for the handlers of a channel, also once per message or once per connection."""


class Location(enum.Enum):
    """The part of a connection that a parameter is read from. The value is the first item of an error's `loc`."""

    PATH = "path"
    QUERY = "query"
    HEADER = "header"
    COOKIE = "cookie"
    BODY = "body"
    FORM = "form"


class ParamOptions(TypedDict, total=False):
    """The keyword arguments that every marker takes: FastAPI's names, pydantic's meaning."""

    default_factory: Callable[[], Any] | None
    alias: str | None
    alias_priority: int | None
    validation_alias: str | AliasPath | AliasChoices | None
    serialization_alias: str | None
    title: str | None
    description: str | None
    gt: float | None
    ge: float | None
    lt: float | None
    le: float | None
    min_length: int | None
    max_length: int | None
    pattern: str | re.Pattern[str] | None
    regex: str | None
    """FastAPI's old name of `pattern`."""
    discriminator: str | Discriminator | None
    strict: bool | None
    validate_default: bool | None
    union_mode: Literal["smart", "left_to_right"] | None
    fail_fast: bool | None
    multiple_of: float | None
    allow_inf_nan: bool | None
    max_digits: int | None
    decimal_places: int | None
    examples: list[Any] | None
    example: Any
    openapi_examples: dict[str, Any] | None
    deprecated: str | bool | None
    include_in_schema: bool
    json_schema_extra: dict[str, Any] | Callable[[dict[str, Any]], None] | None


_OPTION_NAMES = frozenset(ParamOptions.__annotations__) | {"annotation"}
# Options that only describe a parameter in OpenAPI: kept as attributes, since pydantic has no place for them.
_DESCRIPTIVE: dict[str, Any] = {"example": None, "openapi_examples": None, "include_in_schema": True}


# A FieldInfo, so that the markers also work as field definitions inside a pydantic model; pydantic declares the class
# final for type checkers and supports its subclasses at run time.
class Param(FieldInfo):  # type: ignore[misc]
    """Base of the markers that name a place to read from. Raises TypeError for options it does not know."""

    location: ClassVar[Location | None] = None

    def __init__(self, default: Any = PydanticUndefined, **options: Any) -> None:
        if unknown := options.keys() - _OPTION_NAMES:
            raise TypeError(f"{type(self).__name__}() got unexpected options: {', '.join(sorted(unknown))}")
        for name, value in _DESCRIPTIVE.items():
            setattr(self, name, options.pop(name, value))
        if (regex := options.pop("regex", None)) is not None:
            options.setdefault("pattern", regex)
        given = {name: value for name, value in options.items() if value is not None}
        alias = given.get("alias")
        if alias is not None:
            given.setdefault("validation_alias", alias)
            given.setdefault("serialization_alias", alias)
        if default is not PydanticUndefined and default is not ...:
            given["default"] = default
        super().__init__(**given)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.default})"


class Path(Param):  # type: ignore[misc]
    """Read from the path. Always required. Raises ParameterDeclarationError when given a default."""

    location: ClassVar[Location] = Location.PATH

    def __init__(self, default: Any = ..., **options: Any) -> None:
        if default is not ... and default is not PydanticUndefined:
            raise ParameterDeclarationError("Path() takes no default: a path parameter is always there")
        super().__init__(**options)


class Query(Param):  # type: ignore[misc]
    """Read from the query string."""

    location: ClassVar[Location] = Location.QUERY


class Header(Param):  # type: ignore[misc]
    """Read from the request headers. Underscores of the name become hyphens unless told otherwise."""

    location: ClassVar[Location] = Location.HEADER

    def __init__(self, default: Any = PydanticUndefined, *, convert_underscores: bool = True, **options: Any) -> None:
        self.convert_underscores = convert_underscores
        super().__init__(default, **options)


class Cookie(Param):  # type: ignore[misc]
    """Read from the `Cookie` header."""

    location: ClassVar[Location] = Location.COOKIE


class Body(Param):  # type: ignore[misc]
    """Read from the JSON body. HTTP routes only. `embed` puts a single parameter under its name."""

    location: ClassVar[Location] = Location.BODY

    def __init__(
        self,
        default: Any = PydanticUndefined,
        *,
        embed: bool | None = None,
        media_type: str = "application/json",
        **options: Any,
    ) -> None:
        self.embed = embed
        self.media_type = media_type
        super().__init__(default, **options)


class Form(Body):  # type: ignore[misc]
    """Read from a form body. HTTP routes only. Needs the package python-multipart."""

    location: ClassVar[Location] = Location.FORM

    def __init__(
        self, default: Any = PydanticUndefined, *, media_type: str = "application/x-www-form-urlencoded", **options: Any
    ) -> None:
        super().__init__(default, media_type=media_type, **options)


class File(Form):  # type: ignore[misc]
    """Read uploaded files. HTTP routes only. Annotated `bytes` (or a list of them) it is the files' whole content."""

    def __init__(
        self, default: Any = PydanticUndefined, *, media_type: str = "multipart/form-data", **options: Any
    ) -> None:
        super().__init__(default, media_type=media_type, **options)


def check_scope(scope: object, what: str) -> None:
    """Raises DependencyScopeError for an unknown scope of `what`."""
    known = get_args(DependsScope)
    if scope is not None and scope not in known:
        names = ", ".join(f'"{one}"' for one in known)
        raise DependencyScopeError(f"{what} has the scope {scope!r}, which is none of {names}")


@dataclass(frozen=True)
class Depends:
    """Take the value that `dependency` returns or yields.

    Without `dependency` the parameter's annotation is called. `use_cache=False` runs it anew for this place. `scope`
    says when a dependency with `yield` ends: "function" before "request", which is the default. Below a channel's
    handler it is "message", the default, or "connection". At most `max_concurrency` runs of this declaration go on at
    a time in one event loop, a `yield` counting until its end.

    Raises ValueError for a `max_concurrency` that is no positive integer.
    """

    dependency: Callable[..., Any] | None = None
    use_cache: bool = True
    scope: DependsScope | None = None
    max_concurrency: int | None = field(default=None, kw_only=True)
    # FastAPI's name, so that its markers and ours are read alike. A field, so that `dataclasses.replace` keeps it.
    _concurrency: SupportsSemaphore | None = field(default=None, repr=False, kw_only=True)

    def __post_init__(self) -> None:
        if self.max_concurrency is None:
            object.__setattr__(self, "_concurrency", None)
        elif getattr(self._concurrency, "max_concurrency", None) != self.max_concurrency:
            object.__setattr__(self, "_concurrency", Limit(self.max_concurrency))

    @property
    def limit(self) -> SupportsSemaphore | None:
        """The counter of the runs of this declaration. None without `max_concurrency`."""
        return self._concurrency

    def calling(self, dependency: Callable[..., Any]) -> Self:
        """The same for another callable. `dataclasses.replace` would ask for `__class__`."""
        made = copy.copy(self)
        object.__setattr__(made, "dependency", dependency)
        return made

    @property  # type: ignore[misc]  # nobody sets it
    def __class__(self) -> type[Depends]:
        """For `isinstance` in FastAPI's own routes, where a marker of ours is as good as theirs.

        A marker that they do not know would be ignored there: what checks a user would check nobody.
        """
        theirs = sys.modules.get("fastapi.params")
        return getattr(theirs, "Security" if issubclass(type(self), Security) else "Depends", type(self))


@dataclass(frozen=True)
class Security(Depends):
    """`Depends` that also demands OAuth2 scopes, which everything below it finds in `SecurityScopes`.

    Raises TypeError for `scopes` in one str, whose letters would be the scopes.
    """

    scopes: Sequence[str] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.scopes, str):
            raise TypeError(f"Security takes its scopes in a list: write scopes={self.scopes.split()!r}")


class SecurityScopes:
    """The OAuth2 scopes demanded on the way to a dependency. Injected by annotation.

    For example:

        from antiphon.security import SecurityScopes

        async def user(needed: SecurityScopes) -> None:
            if "orders:read" in needed.scopes:
                raise HTTPException(403)
    """

    def __init__(self, scopes: Sequence[str] | None = None) -> None:
        self.scopes: list[str] = list(scopes or ())
        self.scope_str: str = " ".join(self.scopes)


class SecurityBase:
    """Base of the security schemes. A scheme is run once per set of scopes rather than once per connection.

    For example:

        from antiphon.security import SecurityBase

        class Badge(SecurityBase):
            async def __call__(self, connection: Request) -> str | None:
                return connection.headers.get("x-badge")
    """

    scheme_name: str
