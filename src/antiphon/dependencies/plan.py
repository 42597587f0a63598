"""From signature to plan: the values to read, run and inject, and their order, settled once at registration.

`analyze` walks the endpoint's dependencies depth first and gives every distinct one a `Step`. A step's inputs always
come before it. `solve.py` runs a plan, and `values.py` reads single values. Nothing here touches a connection.
"""

from __future__ import annotations

import dataclasses
import enum
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from starlette.background import BackgroundTasks
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.websockets import WebSocket as StarletteWebSocket

from antiphon.connection import WebSocket
from antiphon.exceptions import DependencyCycleError, DependencyScopeError, ParameterDeclarationError, RegistrationError
from antiphon.hub import Hub
from antiphon.identity import Identity

from . import foreign, hints
from .declaration import EMPTY, Declared, check_topic, check_type, completed, field_info, unknown_annotation
from .identities import Admits, admitting, check_order, is_identifying
from .inspection import (
    GENERATORS,
    CallKind,
    Parameter,
    Unresolved,
    call_kind,
    check_place,
    describe,
    parameters,
    unwrapped,
    warn_about,
)
from .limits import SupportsSemaphore
from .meant import check_dependency, check_meant
from .params import Depends, LifeScope, Location, Security, check_scope
from .uploads import forms_are_readable
from .values import BodyReader, FieldReader, Reader, build_reader

Call: TypeAlias = Callable[..., Any]
CacheKey: TypeAlias = tuple[Any, tuple[str, ...], str]

_READ_ORDER: Final = list(Location)
_BODIES: Final = (Location.BODY, Location.FORM)


class Kind(enum.Enum):
    """The kind of connection that a route serves."""

    HTTP = "HTTP"
    WEBSOCKET = "WebSocket"


_MISFITS: Final = {
    Kind.HTTP: ("an HTTP", "@app.websocket registers what takes a WebSocket"),
    Kind.WEBSOCKET: ("a WebSocket", "annotate it with WebSocket"),
}
"""A route by its kind, and the remedy for a connection of the other kind."""


class Injected(enum.Enum):
    """A value that a parameter gets because of its annotation alone."""

    CONNECTION = "connection"
    BACKGROUND = "background"
    RESPONSE = "response"
    SECURITY_SCOPES = "security scopes"
    RESOURCE = "resource"
    IDENTITY = "identity"
    DEFAULT = "default"
    """The parameter's default: it asks for a connection of the other kind, and can do without."""
    MESSAGE = "message"
    """The message of a call during the connection: `layers.py`."""
    YIELDED = "yielded"
    """The value that the connection's own function has yielded: `layers.py`."""


@dataclass(frozen=True, slots=True)
class Injection:
    name: str
    what: Injected
    annotation: type
    default: Any
    """The value injected when there is no such resource. `inspect.Parameter.empty` when there has to be one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One callable with everything it needs."""

    call: Call
    kind: CallKind
    label: str
    inputs: tuple[tuple[str, int], ...]
    """(parameter, index of the step whose value it gets)."""
    needs: tuple[int, ...]
    """Steps that have to succeed before this one runs; more than `inputs` only for the endpoint."""
    readers: tuple[Reader, ...]
    injections: tuple[Injection, ...]
    oauth_scopes: tuple[str, ...]
    life: LifeScope
    limit: SupportsSemaphore | None
    identifies: bool = False
    """It identifies the user, or it replaces such a dependency in a test."""
    admits: Admits | None = None
    """The way to admit an identity that replaces its own, as in a test."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All steps in the order in which they run. The caller calls `endpoint` with the values at the end."""

    steps: tuple[Step, ...]
    endpoint: Step
    kind: Kind
    body: Location | None
    """BODY, FORM, or None when nothing is read from a body."""
    contents: frozenset[str]
    """Keys of the form whose uploaded files are wanted as bytes."""
    connection_only: str | None
    """The endpoint's one parameter when that is the connection: nothing has to be solved."""
    has_generators: bool
    has_async_generators: bool
    source: Source
    variants: dict[Any, tuple[Any, Plan]] = field(default_factory=dict, compare=False, repr=False)
    """Plans with overrides applied; filled by `overridden`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The input of a plan, to make it again with overrides."""

    call: Call
    path: str
    dependencies: tuple[Depends, ...]
    kind: Kind
    resources: tuple[type, ...]


def analyze(
    call: Call,
    *,
    path: str,
    dependencies: Sequence[Depends] = (),
    kind: Kind = Kind.WEBSOCKET,
    resources: Collection[type] | None = None,
) -> Plan:
    """The plan for an endpoint.

    `path` is the route's path, converters included. `dependencies` run before those of the signature and give it no
    value. `resources` are the classes for which `solve` will get objects. Without it, `Hub`.

    Raises RegistrationError, or one of its subclasses, naming the callable and the parameter, for a signature that can
    never be served: an unknown annotation, a cycle, a dependency that outlives its own dependency, a body on a
    WebSocket.
    """
    depends = []
    for marker in dependencies:
        if (known := foreign.as_depends(marker)) is None or not callable(known.dependency):
            raise ParameterDeclarationError(f"{describe(call)}: dependencies take Depends(callable), not {marker!r}")
        depends.append(known)
    known_resources = (Hub,) if resources is None else tuple(resources)
    source = Source(call=call, path=path, dependencies=tuple(depends), kind=kind, resources=known_resources)
    return Analysis(source, {}).plan()


def overridden(plan: Plan, overrides: Mapping[Call, Call]) -> Plan:
    """The plan with `overrides` applied at every depth. Made once per set of overrides."""
    key = tuple((id(original), id(replacement)) for original, replacement in overrides.items())
    if key not in plan.variants:
        if len(plan.variants) >= _MAX_VARIANTS:
            plan.variants.clear()
        snapshot = dict(overrides)  # also keeps the callables, and so their ids, alive
        plan.variants[key] = (snapshot, Analysis(plan.source, snapshot).plan())
    return plan.variants[key][1]


_MAX_VARIANTS: Final = 16  # overrides change from test to test; a plan should not collect all of them


@dataclass(frozen=True, slots=True)
class Shape:
    """One callable's own signature, sorted by where values come from."""

    call: Call
    """Held so that its id, under which the shape is found, stays its own."""
    depends: tuple[tuple[str, Depends], ...]
    readers: tuple[Reader, ...]
    injections: tuple[Injection, ...]


class Analysis:
    """One walk over an endpoint's dependencies."""

    def __init__(self, source: Source, overrides: Mapping[Call, Call]) -> None:
        self._source = source
        self._overrides = overrides
        self._path_names = path_names(source.path)
        self._shapes: dict[int, Shape] = {}
        self._uses_scopes: dict[int, bool] = {}
        self._open: list[Call] = []
        self._steps: list[Step] = []
        self._index: dict[CacheKey, int] = {}

    def plan(self) -> Plan:
        source = self._source
        unnamed = [self._visit(depends, ()) for depends in source.dependencies]
        endpoint = self._step(source.call, (), "request", extra=unnamed)
        return self._assembled(*self._with_body([*self._steps, endpoint]))

    def _assembled(self, steps: tuple[Step, ...], endpoint: Step, body: Location | None) -> Plan:
        check_order([(step.label, step.identifies, _identity_parameter(step)) for step in steps])
        return Plan(
            steps=steps,
            endpoint=endpoint,
            kind=self._source.kind,
            body=body,
            contents=frozenset(key for step in [*steps, endpoint] for key in _contents(step)),
            connection_only=_connection_only(steps, endpoint),
            has_generators=any(step.kind in GENERATORS for step in steps),
            has_async_generators=any(step.kind is CallKind.ASYNC_GENERATOR for step in steps),
            source=self._source,
        )

    def _identifying(self, step: Step, original: object) -> Step:
        return dataclasses.replace(step, identifies=is_identifying(original), admits=admitting(original))

    def _visit(self, depends: Depends, parent_scopes: tuple[str, ...]) -> int:
        """The index of the step that serves this `Depends`, made if there is none yet."""
        call = self._target(depends)
        self._check_scope(depends, call)
        own = tuple(depends.scopes or ()) if isinstance(depends, Security) else ()
        scopes = tuple(dict.fromkeys((*parent_scopes, *own)))
        is_generator = call_kind(call) in GENERATORS
        life: LifeScope = "function" if depends.scope == "function" else "request"
        demanded = tuple(sorted(scopes)) if own or self._needs_scopes(call) else ()
        said = None if depends.scope == "connection" else depends.scope
        key = cache_key(depends, demanded, said or ("request" if is_generator else ""))
        if depends.use_cache and key in self._index:
            return self._index[key]
        step = self._step(call, scopes, life, limit=depends.limit)
        self._steps.append(self._identifying(step, depends.dependency))
        index = len(self._steps) - 1
        self._index.setdefault(key, index)
        return index

    @staticmethod
    def _check_scope(depends: Depends, call: Call) -> None:
        if depends.scope == "message":
            raise DependencyScopeError(
                f'{describe(call)} has the scope "message", and only the dependencies of a channel\'s handler run for '
                "each message"
            )

    def _step(
        self,
        call: Call,
        scopes: tuple[str, ...],
        life: LifeScope,
        *,
        limit: SupportsSemaphore | None = None,
        extra: Sequence[int] = (),
    ) -> Step:
        if any(call is above for above in self._open):
            chain = " -> ".join(describe(above) for above in [*self._open, call])
            raise DependencyCycleError(f"dependencies need each other: {chain}")
        self._open.append(call)
        try:
            shape = self._shape(call)
            kind = call_kind(call)
            inputs = []
            for name, depends in shape.depends:
                if kind in GENERATORS and life == "request" and depends.scope == "function":
                    raise DependencyScopeError(
                        f'The dependency "{getattr(call, "__name__", describe(call))}" has a scope of "request", '
                        f'it cannot depend on dependencies with scope "function" (parameter {name!r})'
                    )
                inputs.append((name, self._visit(depends, scopes)))
        finally:
            self._open.pop()
        return Step(
            call=call,
            kind=kind,
            label=describe(call),
            inputs=tuple(inputs),
            needs=tuple(dict.fromkeys((*extra, *(index for _, index in inputs)))),
            readers=shape.readers,
            injections=shape.injections,
            oauth_scopes=scopes,
            life=life,
            limit=limit,
        )

    def _needs_scopes(self, call: Call) -> bool:
        """True when the scopes above make a difference to the callable, or to anything below it."""
        if id(call) not in self._uses_scopes:
            self._uses_scopes[id(call)] = False  # for cycles, which `_step` reports
            shape = self._shape(call)
            self._uses_scopes[id(call)] = (
                foreign.is_security_scheme(unwrapped(call))
                or any(injection.what is Injected.SECURITY_SCOPES for injection in shape.injections)
                or any(
                    bool(isinstance(depends, Security) and depends.scopes) or self._needs_scopes(self._target(depends))
                    for _, depends in shape.depends
                )
            )
        return self._uses_scopes[id(call)]

    def _target(self, depends: Depends) -> Call:
        original = depends.dependency
        assert original is not None
        check_scope(depends.scope, describe(original))
        return self._overrides.get(original, original) if self._overrides and _hashable(original) else original

    def _shape(self, call: Call) -> Shape:
        if id(call) not in self._shapes:
            self._shapes[id(call)] = self._read_signature(call)
        return self._shapes[id(call)]

    def _read_signature(self, call: Call) -> Shape:
        check_dependency(call)
        depends: list[tuple[str, Depends]] = []
        readers: list[Reader] = []
        injections: list[Injection] = []
        for parameter in parameters(call):
            match self._classified(call, parameter):
                case Depends() as marker:
                    depends.append((parameter.name, marker))
                case Reader() as reader:
                    readers.append(reader)
                case Injection() as injection:
                    injections.append(injection)
        readers.sort(key=lambda reader: _READ_ORDER.index(reader.location))
        return Shape(call, tuple(depends), tuple(readers), tuple(injections))

    def _classified(self, call: Call, parameter: Parameter) -> Depends | Reader | Injection | None:
        """The source of the parameter's value. None: its default."""
        where = f"{describe(call)}: parameter {parameter.name!r}"
        annotation = hints.without_alias(parameter.annotation)
        found = Declared.read(where, annotation, parameter.default)
        if found.depends is not None:
            if isinstance(annotation, Unresolved) and found.depends.dependency is None:
                raise unknown_annotation(where, annotation)
            depends = completed(found, where)
            check_topic(call, found.type, depends.dependency, where)
            return depends
        if isinstance(annotation, Unresolved):
            raise unknown_annotation(where, annotation)
        injection = self._injection(call, parameter, found, where)
        if injection is not None:
            if found.marker is not None:
                raise ParameterDeclarationError(f"{where} is injected as {found.type!r} and takes no {found.marker!r}")
            return injection
        return self._reader(call, parameter, found, where)

    def _injection(self, call: Call, parameter: Parameter, found: Declared, where: str) -> Injection | None:
        """How the annotation alone serves the parameter. None when it asks for no injection."""
        optional = hints.optional_of(found.type)
        wanted = hints.class_of(found.type if optional is None else optional)
        what = None if wanted is None else self._injected(wanted)
        if wanted is None or what is None:
            check_place(wanted, where)
            return None
        default = None if optional is not None and parameter.default is EMPTY else parameter.default
        if what is Injected.CONNECTION and not self._fits(call, wanted):
            if default is EMPTY:
                route, remedy = _MISFITS[self._source.kind]
                name = wanted.__name__
                raise RegistrationError(
                    f"{where} is a {name}, which {route} route does not have: {remedy}; HTTPConnection serves both"
                )
            what = Injected.DEFAULT
        return Injection(parameter.name, what, wanted, default)

    def _injected(self, annotation: type) -> Injected | None:
        for classes, what in _INJECTED_CLASSES:
            if issubclass(annotation, classes):
                return what
        if foreign.is_security_scopes(annotation):
            return Injected.SECURITY_SCOPES
        return Injected.RESOURCE if any(issubclass(annotation, known) for known in self._source.resources) else None

    def _fits(self, call: Call, annotation: type) -> bool:
        """Whether this route's connection fits the annotation.

        A security scheme written for requests reads headers, query and cookies only: every connection has these.
        """
        if annotation is HTTPConnection or foreign.is_security_scheme(unwrapped(call)):
            return True
        is_request = issubclass(annotation, Request)
        is_websocket = issubclass(annotation, (WebSocket, StarletteWebSocket))
        if not is_request and not is_websocket:
            return True
        return is_request if self._source.kind is Kind.HTTP else is_websocket

    def _reader(self, call: Call, parameter: Parameter, found: Declared, where: str) -> Reader | None:
        is_path = parameter.name in self._path_names
        info, location = field_info(found, parameter, where, is_path=is_path)
        if location is Location.QUERY and (forgotten := self._forgotten(parameter)) is not None:
            warn_about(call, f"{where} has no annotation, and so is read from the query: annotate it with {forgotten}")
        if found.marker is None:
            check_meant(call, parameter, (HTTPConnection, *self._source.resources), where)
        if self._source.kind is Kind.WEBSOCKET and location in _BODIES:
            location = Location.BODY  # that nothing is sent for: the default serves
            if info.is_required():
                raise RegistrationError(
                    f"{where} of type {found.type!r} would be read from a body, and a WebSocket has none; "
                    "mark it with Query(), Header(), Cookie() or Depends()"
                )
            if call is self._source.call:  # a dependency may serve HTTP routes, too
                warn_about(
                    call,
                    f"{where} of type {found.type!r} would be read from a body, and a WebSocket has none, so it always "
                    "has its default: mark it with Query(), Header() or Cookie()",
                )
        convert = location is Location.HEADER and getattr(found.marker, "convert_underscores", True)
        reader = build_reader(
            name=parameter.name,
            where=where,
            wanted_by=describe(call),
            location=location,
            info=info,
            convert_underscores=bool(convert),
            embedded=bool(getattr(found.marker, "embed", None)),
            content=foreign.is_file(found.marker) and not hints.takes_upload(found.type),
        )
        check_type(location, info.annotation, where)
        return reader

    def _forgotten(self, parameter: Parameter) -> str | None:
        """Which annotation somebody forgot: FastAPI reads such a parameter from the query, and so do we."""
        if parameter.annotation is not EMPTY or parameter.default is not EMPTY:
            return None
        if parameter.name == "hub":
            return "Hub"
        return "WebSocket" if self._source.kind is Kind.WEBSOCKET and parameter.name in CONNECTION_NAMES else None

    def _with_body(self, steps: list[Step]) -> tuple[tuple[Step, ...], Step, Location | None]:
        """The steps and the endpoint, their body readers told whether they share the body."""
        readers = [reader for step in steps for reader in step.readers if reader.location in _BODIES]
        if not readers or self._source.kind is Kind.WEBSOCKET:
            return tuple(steps[:-1]), steps[-1], None
        if len({reader.location for reader in readers}) > 1:
            names = ", ".join(repr(reader.name) for reader in readers)
            raise ParameterDeclarationError(f"{steps[-1].label}: {names}: one body cannot be both a form and JSON")
        if readers[0].location is Location.FORM:
            if not forms_are_readable():
                raise RegistrationError(
                    f"{steps[-1].label}: parameter {readers[0].name!r} is read from a form, which needs a package: "
                    "pip install python-multipart"
                )
            return tuple(steps[:-1]), steps[-1], Location.FORM
        embedded = len({reader.name for reader in readers}) > 1 or any(
            isinstance(reader, BodyReader) and reader.embedded for reader in readers
        )
        finished = [
            dataclasses.replace(
                step,
                readers=tuple(
                    dataclasses.replace(reader, embedded=embedded) if isinstance(reader, BodyReader) else reader
                    for reader in step.readers
                ),
            )
            for step in steps
        ]
        return tuple(finished[:-1]), finished[-1], Location.BODY


CONNECTION_NAMES: Final = frozenset({"websocket", "ws"})
_INJECTED_CLASSES: Final[tuple[tuple[type, Injected], ...]] = (
    (HTTPConnection, Injected.CONNECTION),
    (Response, Injected.RESPONSE),
    (BackgroundTasks, Injected.BACKGROUND),
    (Identity, Injected.IDENTITY),
)


def cache_key(depends: Depends, demanded: tuple[str, ...], life: str) -> CacheKey:
    """The key by which two `Depends` are one: the callable, the OAuth2 scopes where they matter, and the lifetime."""
    original = depends.dependency
    return (original if _hashable(original) else id(original), demanded, life)


def _hashable(call: object) -> bool:
    try:
        hash(call)
    except TypeError:
        return False
    return True


def _identity_parameter(step: Step) -> str | None:
    return next((one.name for one in step.injections if one.what is Injected.IDENTITY), None)


def _contents(step: Step) -> Iterator[str]:
    for reader in step.readers:
        if isinstance(reader, FieldReader) and reader.content:
            yield from reader.keys


def path_names(path: str) -> frozenset[str]:
    """The names of a path's parameters."""
    return frozenset(name.partition(":")[0] for name in re.findall(r"{(.*?)}", path))


def _connection_only(steps: Sequence[Step], endpoint: Step) -> str | None:
    if steps or endpoint.readers or endpoint.inputs or len(endpoint.injections) != 1:
        return None
    injection = endpoint.injections[0]
    return injection.name if injection.what is Injected.CONNECTION else None
