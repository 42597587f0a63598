// The harness in Node.js: a line of JSON in, a line of JSON out. Arguments: the runtime, and ws for a Node without WebSocket.

import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";
import { Driven } from "./harness.mjs";

const [runtime, ws] = process.argv.slice(2);
const { Client } = await import(pathToFileURL(runtime));
const options = globalThis.WebSocket ? {} : { WebSocket: (await import(pathToFileURL(ws))).default };
const driven = new Driven(Client, options);
process.on("uncaughtException", (error) => { console.error(error); process.exit(1); });
for await (const line of createInterface({ input: process.stdin })) {
  const { id, code } = JSON.parse(line);
  driven.run(code).then((result) => process.stdout.write(`${JSON.stringify({ id, ...result })}\n`));
}
process.exit(0);
