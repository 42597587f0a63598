"""The document of a router: AsyncAPI, from the annotations of its channels, WebSocket routes and typed topics.

Made when it is first asked for, and again when there are more routes or handlers. Knows nothing of HTTP.
"""

from __future__ import annotations

import inspect
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from starlette.routing import BaseRoute, Mount

from antiphon.dependencies import Plan, topics_of
from antiphon.hub import Framing
from antiphon.messages.shape import ChannelShape
from antiphon.routing.channel import ChannelRoute
from antiphon.routing.fastapi_include import included_routes
from antiphon.routing.include import flatten
from antiphon.routing.route import APIWebSocketRoute

from . import parameters, plain
from .channels import ChannelSection
from .credentials import schemes
from .schemas import Schemas
from .section import Section, fit, told

VERSIONS: Final = ("3.0.0", "3.1.0")
"""The first is the default: for WebSockets nothing differs, and more tools know it."""


@dataclass(frozen=True, kw_only=True)
class Info:
    """The head of a document: the `title`, `version` and `description` of the API.

    For example:

        info = Info(title="Chat", version="2.0", description="Rooms, with history.")
    """

    title: str = "Antiphon"
    version: str = "0.1.0"
    description: str = ""


class Document:
    """The document of the channels that `routes` serves, always of their state now.

    For example:

        document = Document(app.routes, Info(title="Chat"))
    """

    def __init__(self, routes: Sequence[BaseRoute], info: Info | None = None, prefix: str = "") -> None:
        """`info`: its head. `prefix` stands before every address: where the routes are mounted."""
        self._routes = routes
        self._info = info or Info()
        self._prefix = prefix
        self._state: tuple[tuple[BaseRoute, int], ...] | None = None
        self._made: dict[str, Any] = {}

    @property
    def is_empty(self) -> bool:
        """No route here declares its messages."""
        return next(self._described(), None) is None

    def content(self, version: str = VERSIONS[0]) -> dict[str, Any]:
        """The document. Raises ValueError for a version that is not one of `VERSIONS`.

        Also raises the RegistrationError of a channel whose handlers cannot work at its path.
        """
        if version not in VERSIONS:
            raise ValueError(f"AsyncAPI {version!r} is not written here: {' and '.join(VERSIONS)} are")
        routes = [(path, route) for path, route in self._described()]
        state = tuple((route, _size(route)) for _, route in routes)
        if state != self._state:
            self._made = _describe(routes, self._info)
            self._state = state
        return {"asyncapi": version, **self._made}

    def _described(self) -> Iterator[tuple[str, APIWebSocketRoute]]:
        for path, route in _websockets(self._routes, self._prefix):
            if isinstance(route, ChannelRoute) or plain.is_described(route):
                yield path, route


def _size(route: APIWebSocketRoute) -> int:
    return route.channel.size if isinstance(route, ChannelRoute) else 0


def _websockets(routes: Sequence[BaseRoute], prefix: str) -> Iterator[tuple[str, APIWebSocketRoute]]:
    """The routes with their whole paths, those of mounted apps and of routers that FastAPI includes among them."""
    for route in flatten(routes):
        if isinstance(route, APIWebSocketRoute):
            yield prefix + route.path_format, route
        elif isinstance(route, Mount):
            inner = getattr(route.app, "routes", None)
            if inner:
                yield from _websockets(inner, prefix + re.sub(r":\w+}", "}", route.path))
        elif (inner := included_routes(route)) is not None:
            yield from _websockets(inner, prefix)


class Described:
    """A route, and of a channel the one shape that is described, even if another thread registers handlers
    meanwhile."""

    def __init__(self, path: str, route: APIWebSocketRoute) -> None:
        self.path = path
        self.route = route
        self.shape: ChannelShape | None = route.shape if isinstance(route, ChannelRoute) else None

    @property
    def plan(self) -> Plan:
        """The plan for the handshake, which for a channel includes the parameters of its handlers."""
        return self.route.plan if self.shape is None else self.shape.plan

    @property
    def steps(self) -> list[Any]:
        handlers = () if self.shape is None else self.shape.handlers
        return [*self.plan.steps, *(step for handler in handlers for step in handler.plan.steps)]


def _describe(routes: Sequence[tuple[str, APIWebSocketRoute]], info: Info) -> dict[str, Any]:
    described = [Described(path, route) for path, route in routes]
    schemas = Schemas()
    _sections(described, schemas)
    schemas.make()
    sections = _sections(described, schemas)
    found: dict[str, Any] = {}
    for _, demanded in sections:
        found |= demanded
    told_info = {"title": info.title, "version": info.version}
    if info.description:
        told_info["description"] = inspect.cleandoc(info.description)
    document: dict[str, Any] = {
        "info": told_info,
        "defaultContentType": "application/json",
        "channels": {one.key: {**one.channel, "messages": one.messages} for one, _ in sections},
        "operations": {key: made for one, _ in sections for key, made in one.operations.items()},
    }
    components: dict[str, Any] = {}
    if used := schemas.used_in(document):
        components["schemas"] = used
    if found:
        components["securitySchemes"] = found
    return {**document, **({"components": components} if components else {})}


def _sections(routes: Sequence[Described], schemas: Schemas) -> list[tuple[Section, dict[str, Any]]]:
    keys = _keys([(one.path, one.route) for one in routes])
    known: dict[str, Any] = {}
    made = []
    for key, one in zip(keys, routes, strict=True):
        section = Section(key, one.path, schemas)
        demanded = _renamed(schemes(one.steps), known)
        section.security = [{"$ref": f"#/components/securitySchemes/{name}"} for name in demanded]
        _add_channel(section, one)
        if one.shape is not None:
            ChannelSection(section, one.shape).add()
        else:
            plain.describe(section, one.route)
        made.append((section, demanded))
    return made


def _renamed(found: dict[str, Any], known: dict[str, Any]) -> dict[str, Any]:
    """Each scheme under a name of its own in the whole document."""
    made: dict[str, Any] = {}
    for name, scheme in found.items():
        key = fit(name)
        while key in known and known[key] != scheme:
            key += "_"
        made[key] = known[key] = scheme
    return made


def _keys(routes: Sequence[tuple[str, APIWebSocketRoute]]) -> list[str]:
    """The names of the functions; of those that serve several paths with the path behind them."""
    names = [fit(route.name) for _, route in routes]
    counts = Counter(names)
    keys: list[str] = []
    for name, (path, _) in zip(names, routes, strict=True):
        words = re.sub(r"\W+", "_", path, flags=re.ASCII).strip("_")
        key = f"{name}_{words}" if counts[name] > 1 and words else name
        while key in keys:
            key += "_"
        keys.append(key)
    return keys


def _add_channel(section: Section, one: Described) -> None:
    schemas, route, shape, plan = section.schemas, one.route, one.shape, one.plan
    text = inspect.getdoc(route.endpoint) or "" if shape is None else shape.description
    section.channel |= {"title": route.name, **told(text)}
    found = parameters.path_parameters(one.path, plan, schemas)
    if found:
        section.channel["parameters"] = found
    bindings = parameters.binding(plan, schemas)
    if bindings:
        section.channel["bindings"] = bindings
    extension: dict[str, Any] = {"kind": "plain" if shape is None else "channel"}
    if shape is not None and isinstance(route, ChannelRoute):
        extension["wire"] = {"tag": shape.wire.tag, "ref": shape.wire.ref, "content": shape.wire.content}
        if shape.options.heartbeat is not None:
            extension["heartbeat"] = shape.options.heartbeat
        if route.channel.blueprint.subprotocol is not None:
            extension["subprotocol"] = route.channel.blueprint.subprotocol
    topics = [one for one in topics_of(plan) if one.options.framing is Framing.EVENT and one.options.history]
    since = parameters.position_keys(plan)
    if topics and since:
        extension["resumable"] = {since[0]: re.sub(r"{\w+}", "*", topics[0].pattern.text)}
    section.channel["x-antiphon"] = extension
