// Reads lines from stdin, each a JSON array of {name, document, frames: [{operation, side, payload}]}, and answers each
// with a line that says what is wrong with them.
//
// The parser's diagnostics; and with ajv: examples against their payloads, and each frame against the messages of its
// operation, of which exactly one has to take it.
import { createInterface } from "node:readline";
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

async function judge({ name, document, frames: seen }) {
  const parsed = await new parser.Parser().parse(JSON.stringify(document));
  const told = parsed.diagnostics.map((d) => [d.severity, d.code, d.path.join("/"), d.message]);
  let wrong = [];
  if (parsed.document) {
    const validator = validators(document);
    wrong = [...examples(document, validator), ...frames(document, validator, seen ?? [])];
  }
  return { name, parsed: Boolean(parsed.document), diagnostics: told, wrong };
}

for await (const line of createInterface({ input: process.stdin })) {
  const results = [];
  for (const asked of JSON.parse(line)) results.push(await judge(asked));
  console.log(JSON.stringify(results));
}
