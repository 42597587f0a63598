"""A Python client in one file, out of the shapes of a document: models, and a class for each channel."""

from __future__ import annotations

import builtins
import json
import keyword
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from .document import AnswerForm, CallShape, ClientShape, Schema, class_name, clients_of, schemas_of, untagged
from .naming import TypeNames
from .served import runtime_py

SCALARS: Final = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "null": "None"}
FORMATS: Final = {
    "date-time": "datetime.datetime",
    "date": "datetime.date",
    "time": "datetime.time",
    "duration": "datetime.timedelta",
    "uuid": "uuid.UUID",
    "decimal": "decimal.Decimal",
}
MEMBERS: Final = frozenset(
    ("state", "positions", "dropped", "watch", "opened", "send", "request", "stream", "decode", "retry", "reconnect")
) | frozenset(("close", "events", "details", "detail", "content", "tell", "tells_recovered"))
"""Of the class `Client`: a message of such a name gets a `_` behind it."""

IMPORTS: Final = "import datetime\nimport decimal\nimport typing\nimport uuid\n"
MODELS: Final = "from pydantic import Field\nfrom typing_extensions import TypeAlias, TypeAliasType\n"
EARLY: Final = """if typing.TYPE_CHECKING:
    {name}: TypeAlias = {shown}
else:
    {name} = TypeAliasType({name!r}, {shown})
"""
"""A type that names itself: Pyright knows it in the first form alone, pydantic in the second."""
CALL: Final = "timeout: float | None = -1, queue: bool | None = None"
HOW: Final = "timeout=timeout, queue=queue"


def python(document: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """File name to text: the runtime, the models and a class for each channel. Raises `UnusableDocument`."""
    shapes = clients_of(document)
    models = Models(document, prefix)
    names = {shape.name: models.names.new(class_name(shape.name)) for shape in shapes}
    for call in (call for shape in shapes for call in shape.calls):
        if call.fields is not None:  # before events, which have the tag besides
            models.model(call.schema_name, call.fields)
    classes = [_client(shape, names[shape.name], models) for shape in shapes]
    runtime = runtime_py().replace("\nimport asyncio\n", f"\n{IMPORTS}import asyncio\n", 1)
    runtime = runtime.replace("\nfrom pydantic import", f"\n{MODELS}from pydantic import", 1)
    text = "\n\n".join([runtime, *models.texts, *models.aliases, *models.rebuilt, *classes])
    return {"client.py": re.sub(r"\n{4,}", "\n\n\n", re.sub(r"\n+(?=class )", "\n\n\n", text))}


class Models:
    """The pydantic models that a document needs, each under a name of its own."""

    def __init__(self, document: Mapping[str, Any], prefix: str) -> None:
        words = set(re.findall(r"[A-Za-z_]\w*", f"{_code(runtime_py())} {MODELS} {IMPORTS}"))
        self.names: TypeNames = TypeNames(prefix, taken={*words, *dir(builtins), *keyword.kwlist})
        self.texts: list[str] = []
        self._aliases: dict[str, str] = {}
        self._known: dict[str, str] = {}
        self._named = {name: self.names.new(class_name(name)) for name in schemas_of(document)}
        self._known |= {_shape(name, schema): self._named[name] for name, schema in schemas_of(document).items()}
        for name, schema in schemas_of(document).items():
            self._declare(self._named[name], schema)

    @property
    def aliases(self) -> Iterator[str]:
        """Types that are no classes, for behind these. One that names itself or a later one is read when it is used."""
        waiting = dict(self._aliases)
        for name, shown in self._aliases.items():
            is_early = any(re.search(rf"\b{other}\b", shown) for other in waiting)
            del waiting[name]
            yield EARLY.format(name=name, shown=repr(shown)) if is_early else f"{name} = {shown}\n"

    @property
    def rebuilt(self) -> list[str]:
        """The statements that resolve references to later models."""
        found = re.findall(r"^class (\w+)\(", "\n".join(self.texts), re.MULTILINE)
        return ["\n".join(f"{name}.model_rebuild()" for name in found)]

    def model(self, wanted: str, schema: Schema) -> str:
        """The name of a model of this shape: an earlier one's, or a new one's."""
        key = _shape(wanted, schema)
        if key not in self._known and (name := self._with_tag(wanted, schema)) is not None:
            self._known[key] = name
        if key not in self._known:
            self._known[key] = name = self.names.new(class_name(wanted))
            self._declare(name, schema)
        return self._known[key]

    def _with_tag(self, wanted: str, schema: Schema) -> str | None:
        """Where an earlier model has this shape, but for the tag that travels with it: a model of that kind."""
        for tag, bare in untagged(schema):
            base = self._known.get(_shape(wanted, bare))
            if base is not None and any(text.startswith(f"class {base}(") for text in self.texts):
                name = self.names.new(f"{class_name(wanted)}Event")
                field = self._field(name, tag, schema["properties"][tag], required=True)
                self.texts.append(f"class {name}({base}):\n    {field}\n")
                return name
        return None

    def type(self, schema: Any, hint: str) -> str:
        """A type for a schema. A schema outside the subset is Any. `hint` names a model that has no name."""
        if not isinstance(schema, Mapping):
            return "Any"
        if "$ref" in schema:
            return self._named.get(schema["$ref"].rsplit("/", 1)[1], "Any")
        if "const" in schema or "enum" in schema:
            values = schema.get("enum", [schema.get("const")])
            literals = [value for value in values if value is None or isinstance(value, str | int)]
            return f"Literal[{', '.join(repr(value) for value in literals)}]" if len(literals) == len(values) else "Any"
        meant = schema.get("x-antiphon", {}).get("format")
        for key in () if meant in FORMATS else ("anyOf", "oneOf", "allOf"):
            if key in schema and (key != "allOf" or len(schema[key]) == 1):
                return " | ".join(dict.fromkeys(self.type(one, hint) for one in schema[key]))
        kind = schema.get("type")
        if isinstance(kind, list):
            return " | ".join(self.type({**schema, "type": one}, hint) for one in kind)
        if kind == "array":
            items = schema.get("items", {})
            if isinstance(items, list):
                return f"tuple[{', '.join(self.type(one, hint) for one in items)}]"
            return f"list[{self.type(items, hint)}]"
        if kind == "object":
            if schema.get("properties"):
                return self.model(schema.get("title") or hint, schema)
            return f"dict[str, {self.type(schema.get('additionalProperties', {}), hint)}]"
        wanted = schema.get("format") or meant
        return FORMATS.get(str(wanted)) or SCALARS.get(str(kind), "Any")

    def _declare(self, name: str, schema: Schema) -> None:
        if not schema.get("properties"):
            self._aliases[name] = self.type(schema, name)
            return
        lines = [f"class {name}(GeneratedModel):", *_docstring(schema.get("description", ""), "    ")]
        for key, one in schema["properties"].items():
            lines.append("    " + self._field(name, key, one, required=key in schema.get("required", ())))
        self.texts.append("\n".join([*lines, ""]))

    def _field(self, owner: str, key: str, schema: Schema, *, required: bool) -> str:
        shown = self.type(schema, f"{owner}_{key}")
        attribute = re.sub(r"\W", "_", key)
        odd = not attribute.isidentifier() or keyword.iskeyword(attribute) or attribute.startswith(("_", "model_"))
        if odd or attribute in PYDANTIC:
            attribute = f"{attribute.strip('_') or 'field'}_" if not attribute[:1].isdigit() else f"field_{attribute}"
        alias = f"alias={key!r}" if attribute != key else ""
        if isinstance(schema, Mapping) and isinstance(schema.get("const"), str):
            default = repr(schema["const"])
        elif required:
            return f"{attribute}: {shown}" + (f" = Field({alias})" if alias else "")
        elif isinstance(schema, Mapping) and type(schema.get("default")).__name__ == shown and shown in PLAIN:
            default = repr(schema["default"])
        else:
            shown, default = (shown if shown.endswith("None") or shown == "Any" else f"{shown} | None"), "None"
        return f"{attribute}: {shown} = " + (f"Field({default}, {alias})" if alias else default)


PLAIN: Final = frozenset({"bool", "int", "str", "float"})
PYDANTIC: Final = frozenset(("copy", "dict", "json", "schema", "construct", "validate", "fields", "parse_obj"))


def _shape(name: str, schema: Schema) -> str:
    """The same for a named schema and for a message that has its fields."""
    parts = (schema.get("properties"), sorted(schema.get("required", ())), schema.get("additionalProperties"))
    return f"{class_name(name)} {json.dumps(parts, sort_keys=True)}"


def _client(shape: ClientShape, name: str, models: Models) -> str:
    events = {one.tag: models.model(one.schema_name, one.schema) for one in shape.events}
    kinds = [*dict.fromkeys(events.values()), *(["Recovered"] if shape.resume else [])]
    kind = " | ".join(kinds) or "Any"
    methods = list(_methods(shape, models))
    details = {code: models.type(one, f"{code}_detail") for call in shape.calls for code, one in call.errors.items()}
    lines = [f"class {name}(TypedClient[{kind}]):", *_docstring(shape.description, "    ")]
    lines += ["    events = {", *(f"        {tag!r}: TypeAdapter({model})," for tag, model in events.items()), "    }"]
    adapters = ", ".join(f"{code!r}: TypeAdapter({detail})" for code, detail in details.items())
    lines += [f"    details = {{{adapters}}}", "", *_constructor(shape, models)]
    return "\n".join([*lines, *methods, ""])


def _constructor(shape: ClientShape, models: Models) -> Iterator[str]:
    required = [one for one in shape.parameters if one.required]
    optional = [one for one in shape.parameters if not one.required]
    names = {one.name: _argument(one.name) for one in shape.parameters}
    taken = [f"{names[one.name]}: {models.type(one.schema, one.name)}" for one in required]
    taken += [f"{names[one.name]}: {models.type(one.schema, one.name)} | None = None" for one in optional]
    star = ["*", *taken] if taken else []
    path = repr(shape.address)
    filled = ", ".join(f"{one.name!r}: {names[one.name]}" for one in shape.parameters if one.in_path)
    query = ", ".join(f"{one.name!r}: {names[one.name]}" for one in shape.parameters if not one.in_path)
    options: dict[str, Any] = {"resume": dict(shape.resume)}
    if shape.retry:
        options["retry"] = shape.retry
    if shape.token_parameter:
        options["token_parameter"] = shape.token_parameter
    given = ", ".join(f"{key!r}: {value!r}" for key, value in options.items())
    yield f"    def __init__(self, base: str, {', '.join([*star, '**options: Any'])}) -> None:"
    yield f"        address = address_of(base, {path}, {{{filled}}}, {{{query}}})"
    yield f"        super().__init__(address, **{{{given}, **options}})"


def _methods(shape: ClientShape, models: Models) -> Iterator[str]:
    taken = set(MEMBERS)
    for call in shape.calls:
        method = _argument(call.name)
        while method in taken:
            method += "_"
        taken.add(method)
        yield from _method(call, method, models)


def _method(call: CallShape, method: str, models: Models) -> Iterator[str]:
    fields = [] if call.fields is None else [f"message: {models.model(call.schema_name, call.fields)}"]
    sent = "None" if call.fields is None else "message"
    taken = ", ".join(["self", *fields, "*", CALL])
    data = models.type(call.data, f"{call.name}_answer")
    doc = [*_docstring(call.description, "        ", call)]
    yield ""
    if call.answer is AnswerForm.STREAM:
        yield "    @contextlib.asynccontextmanager"
        yield f"    async def {method}({taken}) -> AsyncIterator[AsyncIterator[{data}]]:"
        yield from doc
        yield f"        async with self.stream({call.tag!r}, {sent}, TypeAdapter({data}), {HOW}) as items:"
        yield "            yield items"
    elif call.answer is AnswerForm.NONE:
        taken = ", ".join(["self", *fields, "*", "queue: bool | None = None"])
        yield f"    async def {method}({taken}) -> None:"
        yield from doc
        yield f"        await self.tell({call.tag!r}, {sent}, queue=queue)"
    else:
        result = "None" if call.answer is AnswerForm.ACK else data
        adapter = "" if call.answer is AnswerForm.ACK else f", TypeAdapter({data})"
        yield f"    async def {method}({taken}) -> {result}:"
        yield from doc
        if call.answer is AnswerForm.ACK:
            yield f"        await self.request({call.tag!r}, {sent}, {HOW})"
        else:
            yield f"        answer: {data} = await self.request({call.tag!r}, {sent}{adapter}, {HOW})"
            yield "        return answer"


def _argument(name: str) -> str:
    found = re.sub(r"\W", "_", name)
    return f"{found}_" if keyword.iskeyword(found) or found in ("self", "base", "options") else found


def _code(source: str) -> str:
    """The code without docstrings and comments."""
    return re.sub(r'(?s:""".*?""")|#.*', "", source)


def _docstring(text: str, indent: str, call: CallShape | None = None) -> list[str]:
    lines = text.replace("\\", "\\\\").replace('"""', "'''").splitlines()
    if call is not None and call.errors:
        lines += [*([""] if lines else []), f"Raises RemoteError with the code {' or '.join(call.errors)}."]
    if not lines:
        return []
    if len(lines) == 1:
        return [f'{indent}"""{lines[0]}"""']
    return [f'{indent}"""{lines[0]}', *(f"{indent}{line}".rstrip() for line in lines[1:]), f'{indent}"""']
