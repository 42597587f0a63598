"""TypeScript, and the same as a plain ES module with its types, out of the shapes of a document's channels."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from .document import AnswerForm, CallShape, ClientShape, Schema, class_name, clients_of, schemas_of, untagged
from .naming import TypeNames
from .served import runtime_js, runtime_ts, runtime_types

MEMBERS: Final = frozenset(
    [
        "state",
        "positions",
        "watch",
        "on",
        "onRecovered",
        "onPresence",
        "opened",
        "send",
        "request",
        "stream",
        "retry",
        "reconnect",
        "close",
        "constructor",
        "connect",
        "failed",
    ]
)
"""Names of the class `Client`, and additions of the generated ones: a message of such a name gets a `_` behind it."""

SCALARS: Final = {"string": "string", "integer": "number", "number": "number", "boolean": "boolean", "null": "null"}

ADDRESS_TS: Final = """
function addressOf(base: string | URL, path: string, parameters: object, names: readonly string[]): string {
  const given = parameters as Record<string, unknown>;
  const filled = path.replace(/{(\\w+)}/g, (_, name: string) => encodeURIComponent(String(given[name])));
  const query = new URLSearchParams();
  for (const name of names) for (const value of [given[name] ?? []].flat()) query.append(name, String(value));
  return `${String(base).replace(/\\/$/, "")}${filled}?${query}`;
}
"""
ADDRESS_JS: Final = (
    re.sub(r": (string \| URL|string|object|readonly string\[\])(?=[,)])", "", ADDRESS_TS)
    .replace("): string {", ") {")
    .replace(" as Record<string, unknown>", "")
)


def typescript(document: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """File name to text: one TypeScript file with everything in it. Raises `UnusableDocument`."""
    writer = Writer(document, prefix)
    classes = "\n".join(writer.class_ts(shape) for shape in writer.shapes)
    return {"client.ts": f"{runtime_ts()}\n{writer.types}{ADDRESS_TS}\n{classes}"}


def javascript_module(document: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """File name to text: a plain ES module with the runtime in it, and its types. Raises `UnusableDocument`."""
    writer = Writer(document, prefix)
    classes = "\n".join(writer.class_js(shape) for shape in writer.shapes)
    declared = "\n".join(writer.class_types(shape) for shape in writer.shapes)
    return {
        "client.js": f"{runtime_js()}{ADDRESS_JS}\n{classes}",
        "client.d.ts": f"{runtime_types()}\n{writer.types}\n{declared}",
    }


class Writer:
    """Writes the classes of a document. `types` are those they need."""

    def __init__(self, document: Mapping[str, Any], prefix: str) -> None:
        self.shapes: tuple[ClientShape, ...] = clients_of(document)
        code = re.sub(r"(?s:/\*.*?\*/)|//.*", "", runtime_ts() + TOPICS)
        self._names = TypeNames(prefix, taken=set(re.findall(r"[A-Za-z_]\w*", code)))
        self._classes = {shape.name: self._names.new(class_name(shape.name)) for shape in self.shapes}
        self._schemas = {name: self._names.new(class_name(name)) for name in schemas_of(document)}
        self._texts: dict[str, str] = {}
        for name, schema in schemas_of(document).items():
            self._texts[self._schemas[name]] = self._declared(self._schemas[name], schema)
        self._fields: dict[int, str] = {}
        self._signatures = {shape.name: list(self._methods(shape)) for shape in self.shapes}
        self._heads = {shape.name: self._head(shape) for shape in self.shapes}

    @property
    def types(self) -> str:
        return "\n".join([*self._texts.values(), *self._heads.values()])

    def class_ts(self, shape: ClientShape) -> str:
        name = self._classes[shape.name]
        default = "" if any(one.required for one in shape.parameters) else " = {}"
        lines = [
            *_comment(shape.description, ""),
            f"export class {name} extends Client<{name}Events> {{",
            f"  constructor(base: string | URL, parameters: {name}Parameters{default}, options: Options = {{}}) {{",
            f"    super(addressOf(base, {self._address(shape)}), {{ {self._options(shape)}...options }});",
            "  }",
            "",
            "  /** Waits for the first connection; `signal` gives it up. */",
            f"  static async connect(base: string | URL, parameters: {name}Parameters{default},"
            f" options: Options & {{ readonly signal?: AbortSignal | undefined }} = {{}}): Promise<{name}> {{",
            *self._connect(name),
            "  }",
            "",
            "  /** Whether this is the error of that code, and so what its detail is. */",
            f"  static failed<Code extends keyof {name}Errors>(error: unknown, code: Code): error is RemoteError"
            f" & {{ readonly code: Code; readonly detail: {name}Errors[Code] }} {{",
            "    return error instanceof RemoteError && error.code === code;",
            "  }",
        ]
        for call, method, signature, result in self._signatures[shape.name]:
            lines += ["", *_comment(call.description, "  ", call), f"  {method}({signature}): {result} {{"]
            lines += [f"    return {_sent(call)} as {result};", "  }"]
        return "\n".join([*lines, "}", ""])

    def class_js(self, shape: ClientShape) -> str:
        name = self._classes[shape.name]
        lines = [
            *_comment(shape.description, ""),
            f"export class {name} extends Client {{",
            "  constructor(base, parameters = {}, options = {}) {",
            f"    super(addressOf(base, {self._address(shape)}), {{ {self._options(shape)}...options }});",
            "  }",
            "",
            "  static async connect(base, parameters = {}, options = {}) {",
            *self._connect(name),
            "  }",
            "",
            "  static failed(error, code) {",
            "    return error instanceof RemoteError && error.code === code;",
            "  }",
        ]
        for call, method, signature, _ in self._signatures[shape.name]:
            plain = re.sub(r"\??: [^,=]+", "", signature)
            lines += ["", *_comment(call.description, "  ", call), f"  {method}({plain}) {{"]
            lines += [f"    return {_sent(call)};", "  }"]
        return "\n".join([*lines, "}", ""])

    def class_types(self, shape: ClientShape) -> str:
        name = self._classes[shape.name]
        optional = "" if any(one.required for one in shape.parameters) else "?"
        signal = "{ readonly signal?: AbortSignal | undefined }"
        base = f"base: string | URL, parameters{optional}: {name}Parameters"
        lines = [
            *_comment(shape.description, ""),
            f"export declare class {name} extends Client<{name}Events> {{",
            f"  constructor({base}, options?: Options);",
            "  /** Waits for the first connection; `signal` gives it up. */",
            f"  static connect({base}, options?: Options & {signal}): Promise<{name}>;",
            "  /** Whether this is the error of that code, and so what its detail is. */",
            f"  static failed<Code extends keyof {name}Errors>(error: unknown, code: Code): error is RemoteError"
            f" & {{ readonly code: Code; readonly detail: {name}Errors[Code] }};",
        ]
        for call, method, signature, result in self._signatures[shape.name]:
            declared = re.sub(r"(\w+): ([^,=]+) = \{\}", r"\1?: \2", signature)
            lines += [*_comment(call.description, "  ", call), f"  {method}({declared}): {result};"]
        return "\n".join([*lines, "}", ""])

    def _methods(self, shape: ClientShape) -> Iterator[tuple[CallShape, str, str, str]]:
        """Each call with its method's name, parameters and result."""
        taken = set(MEMBERS)
        for call in shape.calls:
            method = re.sub(r"\W", "_", call.name)
            while method in taken:
                method += "_"
            taken.add(method)
            parts = []
            if call.fields is not None:
                optional = "" if call.fields.get("required") else " = {}"
                parts.append(f"fields: {self._named(call.schema_name, call.fields)}{optional}")
            parts.append("call: Call = {}")
            data = self.type(call.data)
            result = {
                AnswerForm.NONE: "boolean",
                AnswerForm.ACK: "Promise<void>",
                AnswerForm.VALUE: f"Promise<{data}>",
                AnswerForm.STREAM: f"AsyncIterableIterator<{data}>",
            }
            yield call, method, ", ".join(parts), result[call.answer]

    def _head(self, shape: ClientShape) -> str:
        """The parameters, events and errors of a channel."""
        name = self._classes[shape.name]
        parameters = {one.name: one.schema for one in shape.parameters}
        required = [one.name for one in shape.parameters if one.required]
        taken = self._object({"properties": parameters, "required": required}, "")
        errors = {"invalid": FAULTS}
        for call in shape.calls:
            errors |= {code: self.type(schema) for code, schema in call.errors.items()}
        events = self._events(shape)
        self._texts.setdefault("TopicMessage", TOPICS)
        return "\n".join(
            [
                f"export interface {name}Parameters {taken}",
                "",
                f"export interface {name}Events {{",
                *[f"  {_key(tag)}: {' | '.join(types)};" for tag, types in events.items()],
                '  "*": unknown;',
                "}",
                "",
                f"export interface {name}Errors {{",
                *[f"  {_key(code)}: {detail};" for code, detail in errors.items()],
                "}",
                "",
            ]
        )

    def _events(self, shape: ClientShape) -> dict[str, list[str]]:
        """The events that a listener may get, by the type that it names."""
        events: dict[str, list[str]] = {}
        placed: list[str] = []
        for one in shape.events:
            kind = self._named(one.schema_name, one.schema)
            if one.is_placed:
                placed.append(kind)
            if not (one.is_placed and one.tag in UNDER_MESSAGE):
                events.setdefault(one.tag, []).append(kind)
        if placed or shape.resume:
            data = f"<{' | '.join(placed)}>" if placed else ""
            events.setdefault("joined", []).append("TopicJoined")
            events.setdefault("message", []).append(f"TopicMessage{data}")
        return {tag: list(dict.fromkeys(kinds)) for tag, kinds in events.items()}

    def _address(self, shape: ClientShape) -> str:
        query = [one.name for one in shape.parameters if not one.in_path]
        return f"{json.dumps(shape.address)}, parameters, {json.dumps(query)}"

    def _options(self, shape: ClientShape) -> str:
        options: dict[str, Any] = {"resume": shape.resume or None}
        if shape.retry:
            options["retry"] = list(shape.retry)
        if shape.heartbeat:
            options["heartbeat"] = shape.heartbeat
        if shape.token_parameter:
            options["tokenParameter"] = shape.token_parameter
        return "".join(f"{key}: {json.dumps(value)}, " for key, value in options.items())

    def _connect(self, name: str) -> list[str]:
        return [
            f"    const client = new {name}(base, parameters, options);",
            "    try {",
            "      return await client.opened(options.signal);",
            "    } catch (error) {",
            "      client.close();",
            "      throw error;",
            "    }",
        ]

    # --- types -------------------------------------------------------------------------------------------------------

    def _named(self, name: str, schema: Schema) -> str:
        """The name of a type of this shape: of an earlier one with the same name and shape, or a new one."""
        text = self._declared("?", schema)
        wanted = class_name(name)
        if known := self._known(text, wanted):
            return known
        for tag, bare in untagged(schema):  # the tag travels with it, and is no part of it elsewhere
            if known := self._known(self._declared("?", bare), wanted):
                return f"{known} & {{ readonly {_key(tag)}: {json.dumps(schema['properties'][tag]['const'])} }}"
        given = self._names.new(wanted)
        self._texts[given] = text.replace("?", given, 1)
        return given

    def _known(self, text: str, wanted: str) -> str | None:
        for known, declared in self._texts.items():
            if declared == text.replace("?", known, 1) and self._names.is_of(known, wanted):
                return known
        return None

    def _declared(self, name: str, schema: Schema) -> str:
        comment = _comment(schema.get("description", ""), "")
        kind = "interface" if "properties" in schema and "additionalProperties" not in schema else "type"
        body = (
            f"interface {name} {self._object(schema, '')}"
            if kind == "interface"
            else f"type {name} = {self.type(schema)};"
        )
        # The comparison needs the name first: the comment is put before it.
        return "\n".join([*comment, f"export {body}", ""])

    def _object(self, schema: Schema, indent: str) -> str:
        required = schema.get("required", ())
        lines = []
        for name, one in schema.get("properties", {}).items():
            inner = f"{indent}  "
            lines += _comment(one.get("description", "") if isinstance(one, Mapping) else "", inner)
            optional = name in required
            shown = self.type(one, inner)
            lines.append(
                f"{inner}readonly {_key(name)}{'' if optional else '?'}: {shown}{'' if optional else ' | undefined'};"
            )
        return "\n".join(["{", *lines, f"{indent}}}"]) if lines else "{}"

    def type(self, schema: Any, indent: str = "") -> str:
        """A type for a schema. A schema outside the subset is `unknown`."""
        if not isinstance(schema, Mapping):
            return "unknown"
        if "$ref" in schema:
            return self._schemas.get(schema["$ref"].rsplit("/", 1)[1], "unknown")
        if "const" in schema:
            return json.dumps(schema["const"])
        if "enum" in schema:
            return " | ".join(json.dumps(value) for value in schema["enum"])
        for key in ("anyOf", "oneOf"):
            if key in schema:
                return " | ".join(dict.fromkeys(self.type(one, indent) for one in schema[key]))
        if "allOf" in schema:
            return " & ".join(_grouped(self.type(one, indent)) for one in schema["allOf"])
        kind = schema.get("type")
        if isinstance(kind, list):
            return " | ".join(self.type({**schema, "type": one}, indent) for one in kind)
        if kind == "array":
            return self._array(schema, indent)
        if kind == "object":
            return self._of_object(schema, indent)
        return SCALARS.get(str(kind), "unknown")

    def _array(self, schema: Schema, indent: str) -> str:
        items = schema.get("items", {})
        if isinstance(items, list):
            return f"readonly [{', '.join(self.type(one, indent) for one in items)}]"
        return f"readonly {_grouped(self.type(items, indent))}[]"

    def _of_object(self, schema: Schema, indent: str) -> str:
        more = schema.get("additionalProperties")
        # No Record: a type may name itself in an index signature only.
        rest = "" if more is None or more is False else f"{{ readonly [key: string]: {self.type(more, indent)} }}"
        if schema.get("properties"):
            return self._object(schema, indent) + (f" & {rest}" if rest else "")
        return rest or "{ readonly [key: string]: unknown }"


FAULTS: Final = "readonly { readonly loc: readonly (string | number)[]; readonly type: string; readonly msg: string }[]"
"""The detail of the error `invalid`, which every channel has."""

UNDER_MESSAGE: Final = frozenset({"joined", "message", "presence_diff", "resync", "heartbeat"})
"""Types of the hub's own events: data of that type comes to the listeners of `message` only, as the runtime has it."""

TOPICS: Final = """/** A message of a topic, and where it stands in its history. */
export interface TopicMessage<Data = unknown> {
  readonly type: "message";
  readonly topic: string;
  readonly offset?: number;
  readonly epoch?: string;
  readonly data: Data;
}

/** A topic was joined: what was missed follows (recovered), or its newest history. */
export interface TopicJoined {
  readonly type: "joined";
  readonly topic: string;
  readonly offset?: number;
  readonly epoch?: string;
  readonly recovered: boolean;
  readonly heartbeat?: number;
}
"""


def _sent(call: CallShape) -> str:
    fields = "fields" if call.fields is not None else "{}"
    tag = json.dumps(call.tag)
    if call.answer is AnswerForm.NONE:
        return f"this.send({{ type: {tag}, ...{fields} }}, call)"
    return f"this.{'stream' if call.answer is AnswerForm.STREAM else 'request'}({tag}, {fields}, call)"


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z_$][\w$]*", name) else json.dumps(name)


def _grouped(text: str) -> str:
    """In parentheses where it is more than one word or one object."""
    bare = re.sub(r'"(?:[^"\\]|\\.)*"', "x", text)
    while (shorter := re.sub(r"{[^{}]*}", "x", bare)) != bare:
        bare = shorter
    return f"({text})" if " " in bare else text


def _comment(text: str, indent: str, call: CallShape | None = None) -> list[str]:
    lines = text.replace("*/", "* /").splitlines()
    if call is not None and call.errors:
        lines.append(f"Errors: {', '.join(call.errors)}.")
    if call is not None and call.deprecated:
        lines.append("@deprecated")
    if not lines:
        return []
    if len(lines) == 1:
        return [f"{indent}/** {lines[0]} */"]
    return [f"{indent}/**", *(f"{indent} * {line}".rstrip() for line in lines), f"{indent} */"]
