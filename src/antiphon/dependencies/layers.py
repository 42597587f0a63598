"""A plan in two layers: the steps solved once for a connection, and those of each call during it.

A *call* is made while the connection lasts, once per message of a channel. Its reads from the handshake join the
connection's plan. Its dependencies run for each call, unless the connection has run them already (the cache rule, with
the connection as the outer request) or `Depends(..., scope=)` says otherwise. `calls.py` runs the calls.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from antiphon.exceptions import DependencyCycleError, ParameterDeclarationError, RegistrationError
from antiphon.hub import Hub

from . import foreign, hints
from .declaration import EMPTY, Declared, field_info
from .inspection import GENERATORS, CallKind, Parameter, Unresolved, call_kind, describe, warn_about
from .limits import SupportsSemaphore
from .params import Depends, LifeScope, Location, Security
from .plan import Analysis, CacheKey, Call, Injected, Injection, Kind, Plan, Source, Step, cache_key
from .values import Reader

KEPT: Final = " kept"
CONNECTION: Final = " connection"
"""Names of the values that the endpoint gets besides its own parameters. No parameter can have them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallSource:
    """One function that is called while the connection lasts."""

    call: Call
    dependencies: tuple[Any, ...] = ()
    """`Depends`, run before those of the signature, without a value for it."""
    takes_bytes: bool = False
    """A parameter annotated `bytes` gets the message of the call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallStep:
    """One callable with all its inputs, grouped by their source."""

    call: Call
    kind: CallKind
    label: str
    kept: tuple[tuple[str, int], ...]
    """(parameter, place among the values that the connection keeps for its calls)."""
    inputs: tuple[tuple[str, int], ...]
    """(parameter, index of the call's step whose value it gets)."""
    given: tuple[tuple[str, Injected], ...]
    """(parameter, the connection's value: itself, or the value that its function yielded)."""
    fresh: tuple[tuple[str, Injected], ...]
    """(parameter, the value made or looked up for each call: background tasks, a draft of a response, the identity)."""
    constants: tuple[tuple[str, Any], ...]
    limit: SupportsSemaphore | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CallPlan:
    """The steps of one call: `steps` in the order in which they run, then `target` itself."""

    steps: tuple[CallStep, ...]
    target: CallStep
    message: str | None
    """The parameter that gets the message of the call."""
    annotation: Any
    """Of that parameter, markers included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layers:
    """Both layers. Solving `plan` gives, besides the endpoint's own values, `KEPT` and `CONNECTION`."""

    plan: Plan
    calls: tuple[CallPlan, ...]
    shared: tuple[str, ...]
    """The endpoint's own parameters that calls get too: their values stand behind those under `KEPT`."""
    made: tuple[tuple[str, Any], ...]
    """The parameters served by one of `made`: the parameter, for errors, and its annotation with its type arguments."""


def analyze_layers(
    call: Call,
    calls: Sequence[CallSource],
    *,
    path: str,
    dependencies: Sequence[Any] = (),
    made: Mapping[type, Call] | None = None,
    yielded: Any = None,
    overrides: Mapping[Call, Call] | None = None,
) -> Layers:
    """The layers of a connection function and of the calls during the connection.

    `made` are classes by which parameters get the result of a function that runs once per connection. `yielded` is the
    type that the connection function yields: calls get the value by annotating it. Errors as `analyze`. Warns of a
    generator that both layers name without a scope.
    """
    depends = tuple(_depends(marker, call) for marker in dependencies)
    source = Source(call=call, path=path, dependencies=depends, kind=Kind.WEBSOCKET, resources=(Hub,))
    return LayerAnalysis(source, overrides or {}, made or {}, yielded).layers(calls)


def _depends(marker: Any, call: Call) -> Depends:
    if (known := foreign.as_depends(marker)) is None or not callable(known.dependency):
        raise ParameterDeclarationError(f"{describe(call)}: dependencies take Depends(callable), not {marker!r}")
    return known


@dataclass(frozen=True, slots=True)
class _Kept:
    """One value that the connection keeps: its group among a step's inputs, and its place there."""

    group: int
    place: int


@dataclass(slots=True)
class _Draft:
    """The plan of one call while it is made."""

    source: CallSource
    steps: list[CallStep] = field(default_factory=list)
    index: dict[CacheKey, int] = field(default_factory=dict)


class LayerAnalysis(Analysis):
    """One walk over a connection function and its calls."""

    def __init__(self, source: Source, overrides: Mapping[Call, Call], made: Mapping[type, Call], yielded: Any) -> None:
        super().__init__(source, overrides)
        self._made = made
        self._made_for: list[tuple[str, Any]] = []
        self._yielded = yielded
        self._targets: dict[int, CallSource] = {}
        self._own: dict[CacheKey, int] = {}
        """The steps of the connection itself, which its calls share."""
        self._said: set[int] = set()
        """Steps that some `Depends` gave to the connection outright."""
        self._kept: tuple[dict[Any, Any], dict[Any, Any], dict[Any, Any]] = ({}, {}, {})
        """The values kept for calls, in the order in which a step gets them: values of steps, values read,
        injections."""
        self._read: tuple[Reader, ...] = ()
        """The connection function's own: read once, so that an error in them is reported once."""
        self._shared: dict[str, int] = {}

    def layers(self, calls: Sequence[CallSource]) -> Layers:
        """Both layers."""
        source = self._source
        self._targets = {id(call.call): call for call in calls}
        unnamed = [self._visit(depends, ()) for depends in source.dependencies]
        endpoint = self._step(source.call, (), "request", extra=unnamed)
        self._own = dict(self._index)
        self._read = endpoint.readers
        drafts = [self._call_plan(call) for call in calls]
        plan = self._connection_plan(endpoint)
        calls_plans = tuple(map(self._placed, drafts))
        return Layers(plan=plan, calls=calls_plans, shared=tuple(self._shared), made=tuple(self._made_for))

    # The connection's layer

    def _connection_plan(self, endpoint: Step) -> Plan:
        inputs, readers, injections = self._kept
        injected: list[Injection] = list(endpoint.injections)
        own = [one for one in injected if one.what is Injected.CONNECTION]
        if inputs or readers or injections:
            keep = Step(
                call=_keep,
                kind=CallKind.ASYNC,
                label=endpoint.label,
                inputs=tuple((f"0.{place}", index) for place, index in enumerate(inputs)),
                needs=tuple(inputs),
                readers=tuple(
                    dataclasses.replace(one, name=f"1.{place}") for place, one in enumerate(readers.values())
                ),
                injections=tuple(
                    dataclasses.replace(one, name=f"2.{place}") for place, one in enumerate(injections.values())
                ),
                oauth_scopes=(),
                life="request",
                limit=None,
            )
            self._steps.append(keep)
            place = len(self._steps) - 1
            endpoint = dataclasses.replace(
                endpoint, inputs=(*endpoint.inputs, (KEPT, place)), needs=(*endpoint.needs, place)
            )
        if not own:
            connection = Injection(CONNECTION, Injected.CONNECTION, object, EMPTY)
            endpoint = dataclasses.replace(endpoint, injections=(*injected, connection))
        return self._assembled(tuple(self._steps), endpoint, None)

    def _visit(self, depends: Depends, parent_scopes: tuple[str, ...]) -> int:
        index = super()._visit(depends, parent_scopes)
        if depends.scope == "connection":
            self._said.add(index)
        return index

    def _step(
        self,
        call: Call,
        scopes: tuple[str, ...],
        life: LifeScope,
        *,
        limit: SupportsSemaphore | None = None,
        extra: Sequence[int] = (),
    ) -> Step:
        for injection in self._shape(call).injections:
            if injection.what is Injected.YIELDED:
                raise RegistrationError(
                    f"{describe(call)}: parameter {injection.name!r} gets the object that the connection "
                    "function yields, and this runs before it: only handlers, and their dependencies for each message, "
                    "can have it"
                )
        return super()._step(call, scopes, life, limit=limit, extra=extra)

    # The calls' layer

    def _call_plan(self, source: CallSource) -> CallPlan:
        draft = _Draft(source)
        for marker in source.dependencies:
            self._reference(_depends(marker, source.call), (), draft)
        target = self._call_step(source.call, (), draft, None)
        messages = [one for one in self._shape(source.call).injections if one.what is Injected.MESSAGE]
        if len(messages) > 1:
            names = " and ".join(repr(one.name) for one in messages)
            raise RegistrationError(
                f"{describe(source.call)}: parameters {names} would both be the message; one can be"
            )
        return CallPlan(
            steps=tuple(draft.steps),
            target=target,
            message=messages[0].name if messages else None,
            annotation=messages[0].annotation if messages else None,
        )

    def _reference(self, depends: Depends, parent_scopes: tuple[str, ...], draft: _Draft) -> _Kept | int:
        """The source of this `Depends` in a call: a value that the connection keeps, or a step of the call."""
        call = self._target(depends)
        if depends.scope == "connection":
            return self._keep_step(self._visit(depends, parent_scopes))
        own = tuple(depends.scopes or ()) if isinstance(depends, Security) else ()
        scopes = tuple(dict.fromkeys((*parent_scopes, *own)))
        demanded = tuple(sorted(scopes)) if own or self._needs_scopes(call) else ()
        if depends.use_cache and depends.scope is None:
            for life in ("", "request", "function"):
                if (shared := self._own.get(cache_key(depends, demanded, life))) is not None:
                    self._warn_of_shared(call, shared, draft)
                    return self._keep_step(shared)
        key = cache_key(depends, demanded, "")
        if depends.use_cache and key in draft.index:
            return draft.index[key]
        draft.steps.append(self._call_step(call, scopes, draft, depends.limit))
        return draft.index.setdefault(key, len(draft.steps) - 1) if depends.use_cache else len(draft.steps) - 1

    def _warn_of_shared(self, call: Call, index: int, draft: _Draft) -> None:
        if call_kind(call) in GENERATORS and index not in self._said and not self._overrides:
            handler, name = describe(draft.source.call), getattr(call, "__name__", describe(call))
            warn_about(
                draft.source.call,
                f"{handler} depends on {name}, and so does the connection: all messages share the value it has "
                "yielded, for as long as the connection lasts. Say which you mean: "
                f'Depends({name}, scope="message") for each message anew, scope="connection" for one',
            )

    def _call_step(
        self, call: Call, scopes: tuple[str, ...], draft: _Draft, limit: SupportsSemaphore | None
    ) -> CallStep:
        if any(call is above for above in self._open):
            chain = " -> ".join(describe(above) for above in [*self._open, call])
            raise DependencyCycleError(f"dependencies need each other: {chain}")
        self._open.append(call)
        try:
            shape = self._shape(call)
            found = [(name, self._reference(depends, scopes, draft)) for name, depends in shape.depends]
        finally:
            self._open.pop()
        kept: list[tuple[str, Any]] = [(name, place) for name, place in found if isinstance(place, _Kept)]
        kept += [(reader.name, self._keep_reader(reader)) for reader in shape.readers]
        given, constants = [], []
        fresh: list[tuple[str, Injected]] = []
        for injection in shape.injections:
            match injection.what:
                case Injected.RESOURCE:
                    kept.append((injection.name, self._keep_injection(injection)))
                case Injected.SECURITY_SCOPES:
                    constants.append((injection.name, injection.annotation(scopes=list(scopes))))
                case Injected.DEFAULT:
                    constants.append((injection.name, injection.default))
                case Injected.CONNECTION | Injected.YIELDED as what:
                    given.append((injection.name, what))
                case Injected.IDENTITY as what:  # each call gets the one of its time, which renewals change
                    if injection.default is EMPTY:
                        self._keep_injection(injection)  # so that it is missed before the connection is accepted
                    fresh.append((injection.name, what))
                case Injected.BACKGROUND | Injected.RESPONSE as what:
                    fresh.append((injection.name, what))
        return CallStep(
            call=call,
            kind=call_kind(call),
            label=describe(call),
            kept=tuple(kept),
            inputs=tuple((name, place) for name, place in found if isinstance(place, int)),
            given=tuple(given),
            fresh=tuple(fresh),
            constants=tuple(constants),
            limit=limit,
        )

    def _keep_step(self, index: int) -> _Kept:
        group = self._kept[0]
        group.setdefault(index, index)
        return _Kept(0, list(group).index(index))

    def _keep_reader(self, reader: Reader) -> _Kept:
        for own in self._read:
            if _are_one(own, reader):
                return _Kept(3, self._shared.setdefault(own.name, len(self._shared)))
        group = self._kept[1]
        for place, kept in enumerate(group.values()):
            if _are_one(kept, reader):
                return _Kept(1, place)
        group[len(group)] = reader
        return _Kept(1, len(group) - 1)

    def _keep_injection(self, injection: Injection) -> _Kept:
        group = self._kept[2]
        key = (injection.annotation, id(injection.default))
        group.setdefault(key, injection)
        return _Kept(2, list(group).index(key))

    def _placed(self, plan: CallPlan) -> CallPlan:
        """The plan with places among all values that are kept, now that their number is known."""
        starts = [0]
        for group in self._kept:
            starts.append(starts[-1] + len(group))

        def place(step: CallStep) -> CallStep:
            kept: Iterator[tuple[str, Any]] = iter(step.kept)
            return dataclasses.replace(step, kept=tuple((name, starts[one.group] + one.place) for name, one in kept))

        return dataclasses.replace(plan, steps=tuple(map(place, plan.steps)), target=place(plan.target))

    # Signatures

    def _classified(self, call: Call, parameter: Parameter) -> Depends | Reader | Injection | None:
        annotation = hints.without_alias(parameter.annotation)
        if annotation is not EMPTY and not isinstance(annotation, Unresolved):
            where = f"{describe(call)}: parameter {parameter.name!r}"
            found = Declared.read(where, annotation, parameter.default)
            if found.depends is None and found.marker is None:
                kind = hints.class_of(found.type)
                if kind is not None and (maker := self._made.get(kind)) is not None:
                    self._made_for.append((where, found.type))
                    if getattr(kind, "__parameters__", ()) and found.type is kind:
                        name = kind.__name__
                        warn_about(
                            call,
                            f"{where} is a {name} that names nothing: write {name}[...] with the classes it is for, or "
                            f"{name}[Any]",
                        )
                    return Depends(maker, scope="connection")
                if self._is_yielded(found.type):
                    return Injection(parameter.name, Injected.YIELDED, object, EMPTY)
        return super()._classified(call, parameter)

    def _is_yielded(self, annotation: Any) -> bool:
        if self._yielded is None:
            return False
        if annotation == self._yielded:
            return True
        if annotation is object or not (isinstance(annotation, type) and isinstance(self._yielded, type)):
            return False
        try:
            return issubclass(self._yielded, annotation)
        except TypeError:  # a TypedDict, or a protocol that is not checkable at run time
            return annotation in self._yielded.__mro__

    def _reader(self, call: Call, parameter: Parameter, found: Declared, where: str) -> Any:
        source = self._targets.get(id(call))
        if source is not None and self._is_message(source, parameter, found, where):
            if parameter.default is not EMPTY and found.in_annotation:
                raise RegistrationError(f"{where} is the message, which is always there: it takes no default")
            return Injection(parameter.name, Injected.MESSAGE, found.full, EMPTY)
        return super()._reader(call, parameter, found, where)

    def _is_message(self, source: CallSource, parameter: Parameter, found: Declared, where: str) -> bool:
        is_path = parameter.name in self._path_names
        if source.takes_bytes and found.marker is None and not is_path:
            return found.type is bytes
        if is_path:
            return False
        return field_info(found, parameter, where, is_path=False)[1] in (Location.BODY, Location.FORM)


def _are_one(one: Reader, other: Reader) -> bool:
    """Whether both read the same, in the same way."""
    if type(one) is not type(other) or one.location is not other.location:
        return False
    keys = getattr(one, "keys", one.name)
    same = keys == getattr(other, "keys", other.name) and one.info.annotation == other.info.annotation
    return bool(same) and repr(one.info) == repr(other.info)


async def _keep(**values: Any) -> tuple[Any, ...]:
    """The connection's values for its calls. Those of a step are given in one order."""
    return tuple(values.values())
