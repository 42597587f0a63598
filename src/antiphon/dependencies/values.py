"""Readers: each takes one parameter out of a part of a connection and validates it.

Everything that depends only on the signature is settled when a reader is built: keys, validator, default. Reading
follows FastAPI: an absent value is "missing" with input None, an empty query value is the empty string, an empty list
counts as absent, and `loc` starts with the part of the connection and the key that was looked up.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final

from pydantic import AliasChoices, BaseModel, Field, Json, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from starlette.datastructures import FormData, Headers, ImmutableMultiDict

from antiphon.exceptions import RegistrationError

from .hints import is_sequence, model_of
from .params import Location

ABSENT: Final = PydanticUndefined
Validate = Callable[[Any], Any]
Errors = list[dict[str, Any]]

# Values of these types are immutable, so a default of them is handed out as it is.
_IMMUTABLE = (type(None), bool, int, float, complex, str, bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """The common part of all readers: the parameter's name, its place, its validator, its default."""

    name: str
    location: Location
    validate: Validate
    info: FieldInfo
    required: bool
    wanted_by: str = ""
    """The function whose parameter it is, for the log."""

    def fetch(self, source: Any) -> tuple[Any, tuple[Any, ...]]:
        """The raw value, or ABSENT, and the `loc` that its errors get."""
        raise NotImplementedError

    def read(self, source: Any, values: dict[str, Any], errors: Errors) -> None:
        """Put the validated value into `values`, or its error into `errors`."""
        value, loc = self.fetch(source)
        if value is ABSENT:
            if self.required:
                errors.append({"type": "missing", "loc": loc, "msg": "Field required", "input": None})
                return
            value = self._default()
            if not self.info.validate_default:
                values[self.name] = value
                return
        try:
            values[self.name] = self.validate(value)
        except ValidationError as failure:
            errors.extend(self.located(failure, loc))

    def located(self, failure: ValidationError, loc: tuple[Any, ...]) -> Iterable[dict[str, Any]]:
        for error in failure.errors(include_url=False):
            yield {**error, "loc": (*loc, *error["loc"])}

    def _default(self) -> Any:
        default = self.info.default
        if self.info.default_factory is None and isinstance(default, _IMMUTABLE):
            return default
        return self.info.get_default(call_default_factory=True)  # a copy, or fresh from the factory


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldReader(Reader):
    """One value, or all values of one key. The first of `keys` that is there is taken."""

    keys: tuple[str, ...]
    many: bool
    content: bool = False
    """Takes the content of an uploaded file rather than the file."""

    def fetch(self, source: Any) -> tuple[Any, tuple[Any, ...]]:
        keys = self.keys
        key = keys[0] if len(keys) == 1 else next((key for key in keys if key in source), keys[0])
        label = "body" if self.location is Location.FORM else self.location.value
        return value_at(source, key, many=self.many), (label, key)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelField:
    """One field of a model that is read from a query string, headers, cookies or a form."""

    keys: tuple[tuple[str, str], ...]
    """(the key the model knows, the key in the source), in order of preference."""
    many: bool
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelReader(Reader):
    """A pydantic model whose fields are keys of the source."""

    fields: tuple[ModelField, ...]
    optional: bool
    """The annotation is `Model | None`: without any of its keys the parameter is absent."""
    takes_extra: bool
    loc_by_alias: bool

    def fetch(self, source: Any) -> tuple[Any, tuple[Any, ...]]:
        folded = isinstance(source, Headers)
        found: dict[str, Any] = {}
        seen: set[str] = set()
        own: set[str] = set()
        for field in self.fields:
            own.update(_folded(key, folded) for _, key in field.keys)
            known, key = self._chosen(field, source)
            if (value := value_at(source, key, many=field.many)) is not ABSENT:
                found[known] = value
            seen.add(_folded(key, folded))
            # An unconverted field name must not come in as an extra header.
            seen.update(_folded(known, folded) for known, key in field.keys if folded and known != key)
        found.update(_extras(source, seen))
        label = "body" if self.location is Location.FORM else self.location.value
        if self.optional and not (any(key in source for key in own) or (self.takes_extra and found)):
            return ABSENT, (label,)
        return found, (label,)

    def read(self, source: Any, values: dict[str, Any], errors: Errors) -> None:
        before = len(errors)
        Reader.read(self, source, values, errors)
        if len(errors) > before and isinstance(source, Headers) and self.loc_by_alias:
            self._name_headers(source, errors, before)

    def _name_headers(self, source: Any, errors: Errors, start: int) -> None:
        """Errors name the header that was looked up rather than the model's field."""
        renamed = {
            field.name: key for field in self.fields for known, key in [self._chosen(field, source)] if known != key
        }
        for error in errors[start:]:
            place, *rest = error["loc"]
            if rest and rest[0] in renamed:
                error["loc"] = (place, renamed[rest[0]], *rest[1:])

    @staticmethod
    def _chosen(field: ModelField, source: Any) -> tuple[str, str]:
        return next((pair for pair in field.keys if pair[1] in source), field.keys[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyReader(Reader):
    """The JSON body, or one key of it when `embedded`."""

    keys: tuple[str, ...]
    embedded: bool

    def fetch(self, source: Any) -> tuple[Any, tuple[Any, ...]]:
        if not self.embedded:
            return source, ("body",)
        if isinstance(source, Mapping):
            for key in self.keys:
                if key in source:
                    return source[key], ("body", key)
        return ABSENT, ("body", self.keys[0])


def value_at(source: Any, key: str, *, many: bool) -> Any:
    """The value under `key`, all of them as a list when `many` and the source can repeat keys; ABSENT without any."""
    if many and isinstance(source, (ImmutableMultiDict, Headers)):
        value: Any = source.getlist(key)
    else:
        value = source.get(key)
    if value is None or (many and len(value) == 0) or (isinstance(source, FormData) and value == ""):
        return ABSENT
    return value


def _folded(key: str, fold: bool) -> str:
    return key.lower() if fold else key


def _extras(source: Any, seen: set[str]) -> dict[str, Any]:
    """The keys that no field has taken, so that the model's own policy (`extra=`) decides on them."""
    if isinstance(source, ImmutableMultiDict):
        pairs: Iterable[tuple[str, Any]] = source.multi_items()
    else:
        pairs = source.items()
    grouped: dict[str, list[Any]] = {}
    for key, value in pairs:
        if key not in seen:
            grouped.setdefault(key, []).append(value)
    return {key: values[0] if len(values) == 1 else values for key, values in grouped.items()}


def build_reader(
    *,
    name: str,
    where: str,
    wanted_by: str,
    location: Location,
    info: FieldInfo,
    convert_underscores: bool,
    embedded: bool,
    content: bool = False,
) -> Reader:
    """A reader for a parameter described by `info`. Raises RegistrationError when pydantic cannot validate its type."""
    common: dict[str, Any] = {
        "name": name,
        "location": location,
        "info": info,
        "validate": _validator(info, where),
        "required": info.is_required(),
        "wanted_by": wanted_by,
    }
    if location is Location.BODY:
        return BodyReader(**common, keys=_request_keys(name, info, convert_underscores=False), embedded=embedded)
    json = _is_json(info)
    model = None if json or location is Location.PATH else model_of(info.annotation)
    if model is None:
        many = not json and is_sequence(info.annotation)
        keys = _request_keys(name, info, convert_underscores=convert_underscores)
        if location is Location.PATH and info.alias and info.alias not in keys:
            keys = (*keys, info.alias)
        return FieldReader(**common, keys=keys, many=many, content=content)
    config = model.model_config
    return ModelReader(
        **common,
        fields=tuple(_model_field(model, field, convert_underscores) for field in model.model_fields),
        optional=info.annotation is not model,
        takes_extra=config.get("extra") in ("allow", "forbid"),
        loc_by_alias=config.get("loc_by_alias", True),
    )


def _validator(info: FieldInfo, where: str) -> Validate:
    rest = Field() if info.discriminator is None else Field(discriminator=info.discriminator)
    with warnings.catch_warnings():
        # Aliases and defaults in Annotated mean nothing to a TypeAdapter, but the readers use them.
        warnings.simplefilter("ignore")
        try:
            annotated: Any = Annotated[(info.annotation, *info.metadata, rest)]
            adapter: TypeAdapter[Any] = TypeAdapter(annotated)
            adapter.rebuild(raise_errors=True)
        except (PydanticUserError, NameError, TypeError) as error:
            raise RegistrationError(
                f"{where}: a value of type {info.annotation!r} can be neither injected nor validated; "
                f"Depends(function) gives the value that function returns ({str(error).splitlines()[0]})"
            ) from error
    validate = adapter.validator.validate_python

    def run(value: Any) -> Any:
        return validate(value, from_attributes=True)

    return run


def _is_json(info: FieldInfo) -> bool:
    return any(type(item) is Json for item in info.metadata)


def _request_keys(name: str, info: FieldInfo, *, convert_underscores: bool) -> tuple[str, ...]:
    validation_alias = info.validation_alias
    if isinstance(validation_alias, AliasChoices):
        choices = tuple(choice for choice in validation_alias.choices if isinstance(choice, str))
        if len(choices) == len(validation_alias.choices):
            return choices
    if isinstance(validation_alias, str) and validation_alias:
        return (validation_alias,)
    if info.alias:
        return (info.alias,)
    return (name.replace("_", "-") if convert_underscores else name,)


def _model_field(model: type[BaseModel], name: str, convert_underscores: bool) -> ModelField:
    info = model.model_fields[name]
    convert = convert_underscores and getattr(info, "convert_underscores", True)
    hyphened = name.replace("_", "-") if convert else name
    many = not _is_json(info) and is_sequence(info.annotation)
    return ModelField(keys=_model_keys(model, name, info, hyphened), many=many, name=name)


def _model_keys(model: type[BaseModel], name: str, info: FieldInfo, hyphened: str) -> tuple[tuple[str, str], ...]:
    validation_alias = info.validation_alias
    alias = validation_alias if isinstance(validation_alias, str) and validation_alias else info.alias or name
    keys = [(alias, hyphened if alias == name else alias)]
    if isinstance(validation_alias, AliasChoices):
        choices = [choice for choice in validation_alias.choices if isinstance(choice, str)]
        if len(choices) == len(validation_alias.choices):
            keys = [(choice, choice) for choice in choices]
    config = model.model_config
    if config.get("validate_by_alias") is False:
        return ((name, hyphened),)
    by_name = config.get("validate_by_name", config.get("populate_by_name", False))
    if by_name and name not in [known for known, _ in keys]:
        keys.append((name, hyphened))
    return tuple(keys)
