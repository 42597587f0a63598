// Reads a JSON array of {name, document, frames: [{operation, side, payload}]} from stdin and prints what is wrong with each.
//
// The parser's diagnostics; and with ajv: examples against their payloads, and each frame against the messages of its
// operation, of which exactly one has to take it.
import { readFileSync } from "node:fs";
import parser from "@asyncapi/parser";
import Ajv from "ajv";
import addFormats from "ajv-formats";

function validators(document) {
  const ajv = new Ajv({ strict: false, allErrors: false });
  addFormats(ajv);
  for (const name of ["int64", "binary"]) ajv.addFormat(name, true);
  ajv.addSchema({ $id: "https://document/", ...document }, "https://document/");
  const known = new Map();
  return (pointer) => {
    if (!known.has(pointer)) known.set(pointer, ajv.compile({ $ref: `https://document/${pointer}` }));
    return known.get(pointer);
  };
}

function examples(document, validator) {
  const wrong = [];
  for (const [key, channel] of Object.entries(document.channels))
    for (const [name, message] of Object.entries(channel.messages))
      for (const { payload } of message.examples ?? []) {
        const check = validator(`#/channels/${key}/messages/${name}/payload`);
        if (!check(payload)) wrong.push(`example of ${key}/${name}: ${JSON.stringify(payload)}: ${JSON.stringify(check.errors)}`);
      }
  return wrong;
}

function frames(document, validator, seen) {
  const wrong = [];
  for (const { operation, side, payload } of seen) {
    const found = document.operations[operation];
    const messages = side === "reply" ? found.reply.messages : found.messages;
    const fitting = messages.map(({ $ref }) => $ref).filter((ref) => validator(`${ref}/payload`)(payload));
    if (fitting.length !== 1) wrong.push(`${operation} ${JSON.stringify(payload)} fits ${JSON.stringify(fitting)}`);
  }
  return wrong;
}

const results = [];
for (const { name, document, frames: seen } of JSON.parse(readFileSync(0, "utf8"))) {
  const parsed = await new parser.Parser().parse(JSON.stringify(document));
  const told = parsed.diagnostics.map((d) => [d.severity, d.code, d.path.join("/"), d.message]);
  let wrong = [];
  if (parsed.document) {
    const validator = validators(document);
    wrong = [...examples(document, validator), ...frames(document, validator, seen ?? [])];
  }
  results.push({ name, parsed: Boolean(parsed.document), diagnostics: told, wrong });
}
console.log(JSON.stringify(results));
