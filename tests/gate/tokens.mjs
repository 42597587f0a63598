// What a client of Node.js gets that brings a token in each way it can: the subprotocol it is answered, and the first
// message. Tokens come on stdin, so that no list of processes shows them.
import { readFileSync } from "node:fs";

const [which, url, wrapper] = process.argv.slice(2);
const [token, kubernetes] = readFileSync(0, "utf8").split("\n");
const WebSocket = which === "ws" ? (await import(wrapper)).WebSocket : globalThis.WebSocket;

function outcome(protocols, first, options) {
  return new Promise((resolve, reject) => {
    const socket = options ? new WebSocket(url, protocols, options) : new WebSocket(url, protocols);
    socket.onopen = () => first && socket.send(first);
    socket.onmessage = (event) => {
      resolve([socket.protocol, JSON.parse(event.data)]);
      socket.close();
    };
    socket.onerror = (event) => reject(new Error(`${JSON.stringify(protocols.length)}: ${event.message}`));
    socket.onclose = (event) => reject(new Error(`closed with ${event.code}`));
  });
}

const found = {
  bearer: await outcome(["bearer", token]),
  kubernetes: await outcome([kubernetes, "chat"]),
  "first message": await outcome([], JSON.stringify({ type: "auth", token })),
  "first message with a subprotocol": await outcome(["chat"], token),
};
if (which === "ws") {
  found.header = await outcome([], undefined, { headers: { Authorization: `Bearer ${token}` } });
}
console.log(JSON.stringify(found));
