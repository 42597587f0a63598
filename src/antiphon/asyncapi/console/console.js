// A console for the channels of an AsyncAPI document: connect, send, see what comes. No library, nothing from elsewhere.

const $ = (id) => document.getElementById(id);
const MEANINGS = {
  1000: "normal end", 1001: "going away", 1002: "protocol error", 1003: "wrong kind of frame", 1005: "no code",
  1006: "lost, without a Close", 1007: "not what was asked for", 1008: "refused", 1009: "too big", 1011: "server error",
  1012: "server restarts: come back", 1013: "try again later",
};
const MOST = 500;
let api, key, message, socket, number = 0, people = {};
const pending = new Map();

function make(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [attribute, value] of Object.entries(attributes)) {
    if (attribute.startsWith("on")) made.addEventListener(attribute.slice(2), value);
    else if (value !== undefined && value !== false) made.setAttribute(attribute, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

function at(ref) {
  return ref.slice(2).split("/").reduce((found, part) => found?.[part], api);
}

function resolved(schema, depth = 0) {
  if (!schema || typeof schema !== "object" || depth > 9) return {};
  if (schema.$ref) return resolved(at(schema.$ref), depth + 1);
  if (schema.allOf?.length === 1) return { ...resolved(schema.allOf[0], depth + 1), ...schema, allOf: undefined };
  const some = schema.anyOf?.filter((one) => one.type !== "null"); // what may be null is left out when it is empty
  if (some?.length === 1) return { ...resolved(some[0], depth + 1), ...schema, anyOf: undefined };
  return schema;
}

// Inputs

function kindOf(schema) {
  if (schema.enum) return "enum";
  const kinds = [].concat(schema.type ?? []).filter((kind) => kind !== "null");
  return kinds.length === 1 && ["string", "integer", "number", "boolean"].includes(kinds[0]) ? kinds[0] : "json";
}

function inputFor(name, given, required, value) {
  const schema = resolved(given);
  const kind = kindOf(schema);
  const common = { name, "data-kind": kind, required: required && kind !== "boolean" };
  let input;
  if (kind === "enum") {
    input = make("select", common, ...(required ? [] : [make("option", { value: "" }, "")]));
    for (const one of schema.enum) input.append(make("option", { value: JSON.stringify(one) }, String(one)));
    input.value = JSON.stringify(value ?? schema.enum[0]);
  } else if (kind === "boolean") {
    input = make("input", { ...common, type: "checkbox", checked: value === true });
  } else if (kind === "json") {
    input = make("textarea", common);
    input.value = value === undefined ? "" : JSON.stringify(value, null, 1);
  } else {
    input = make("input", { ...common, type: kind === "string" ? "text" : "number", step: kind === "number" ? "any" : undefined });
    input.value = value ?? "";
  }
  const text = schema.description ? [make("small", {}, ` ${schema.description}`)] : [];
  return make("label", {}, name + (required ? " *" : ""), ...text, input, make("span", { class: "fault", role: "alert" }));
}

function valueOf(input) {
  if (input.dataset.kind === "boolean") return input.checked;
  if (input.value === "" && !(input.dataset.kind === "string" && input.required)) return undefined;
  if (input.dataset.kind === "string") return input.value;
  return JSON.parse(input.value);
}

function fault(input, text) {
  input.toggleAttribute("aria-invalid", false);
  if (text) input.setAttribute("aria-invalid", "true");
  input.parentElement.querySelector(".fault").textContent = text;
}

function clearFaults() {
  for (const input of $("fields").querySelectorAll("[name]")) fault(input, "");
}

// Channels and messages

function list() {
  $("channels").replaceChildren(...Object.entries(api.channels).map(([name, channel]) =>
    make("button", { type: "button", "data-channel": name, onclick: () => choose(name) }, channel.address)));
}

function choose(name) {
  socket?.close();
  key = name;
  message = undefined;
  const channel = api.channels[name];
  for (const button of $("channels").children) button.setAttribute("aria-current", button.dataset.channel === name);
  $("channel").textContent = channel.address;
  $("about").textContent = channel.description ?? channel.summary ?? "";
  const query = channel.bindings?.ws?.query ?? {};
  const rows = Object.entries(channel.parameters ?? {}).map(([one, told]) =>
    ["path", one, { description: told.description, ...resolved(told["x-antiphon"]?.schema), type: "string", enum: told.enum }, true]);
  for (const [one, schema] of Object.entries(query.properties ?? {}))
    rows.push(["query", one, schema, (query.required ?? []).includes(one)]);
  const notes = [];
  for (const scheme of schemes(name)) {
    if (scheme.type === "httpApiKey" && scheme.in === "query") rows.push(["query", scheme.name, { type: "string", description: "a key" }, true]);
    else notes.push(`Needs ${scheme.scheme ?? scheme.type} credentials${scheme.name ? ` (${scheme.in} ${scheme.name})` : ""}: a browser sends cookies, and no headers of a page's own on a WebSocket.`);
  }
  const read = Object.keys(channel.bindings?.ws?.headers?.properties ?? {});
  const headers = read.filter((one) => one.toLowerCase() !== "cookie");
  if (headers.length < read.length) notes.push("Reads cookies: the browser sends those of this site.");
  if (headers.length) notes.push(`Reads the ${headers.length > 1 ? "headers" : "header"} ${headers.join(", ")}, which a page cannot set: take cookies, the query or a subprotocol.`);
  $("parameters").replaceChildren(...rows.map(([place, one, schema, required]) => {
    const label = inputFor(one, schema, required, resolved(schema).default);
    label.querySelector("[name]").dataset.place = place;
    return label;
  }));
  $("credentials").textContent = [...new Set(notes)].join("\n");
  const sendable = Object.entries(api.operations ?? {}).filter(([, one]) => one.action === "receive" && one.channel.$ref === `#/channels/${name}`);
  $("messages").replaceChildren(...sendable.flatMap(([id, operation]) => operation.messages.map(({ $ref }) =>
    make("button", { type: "button", "data-message": $ref, onclick: () => pick(id, operation, $ref) }, at($ref).name))));
  $("message").hidden = true;
}

function schemes(name) {
  const found = Object.values(api.operations ?? {}).filter((one) => one.channel.$ref === `#/channels/${name}`).flatMap((one) => one.security ?? []);
  return [...new Set(found.map((one) => JSON.stringify(one.$ref ? at(one.$ref) : one)))].map((one) => JSON.parse(one));
}

function wire() {
  return { tag: "type", ref: "ref", content: null, ...api.channels[key]["x-antiphon"]?.wire };
}

function pick(id, operation, ref) {
  const told = at(ref);
  const payload = resolved(told.payload);
  message = { id, operation, told, payload, ref };
  for (const button of $("messages").children) button.setAttribute("aria-current", button.dataset.message === ref);
  $("name").textContent = told.name;
  $("told").textContent = told.description ?? told.summary ?? "";
  const answer = operation["x-antiphon"]?.answer ?? "none";
  const names = wire();
  const demanded = (payload.required ?? []).includes(names.ref);
  $("ref").checked = answer !== "none";
  $("ref").disabled = demanded || answer === "none" && told.name !== "cancel";
  $("ref").parentElement.hidden = !payload.properties?.[names.ref];
  $("raw").checked = !payload.properties;
  $("message").hidden = false;
  draw(example());
}

function example() {
  const made = structuredClone(message.told.examples?.[0]?.payload ?? {});
  if (made && typeof made === "object") delete made[wire().ref];
  return made;
}

function draw(value) {
  if ($("raw").checked) {
    const area = make("textarea", { name: "", rows: 8, "data-kind": "json" });
    area.value = JSON.stringify(value, null, 2);
    $("fields").replaceChildren(make("label", {}, "message", area, make("span", { class: "fault", role: "alert" })));
    return;
  }
  const names = wire();
  const { properties = {}, required = [] } = message.payload;
  $("fields").replaceChildren(...Object.entries(properties)
    .filter(([name]) => name !== names.tag && (name !== names.ref || message.told.name === "cancel"))
    .map(([name, schema]) => inputFor(name, schema, required.includes(name), value?.[name])));
}

function current() {
  if ($("raw").checked) return valueOf($("fields").querySelector("textarea")) ?? {};
  const { tag } = wire();
  const made = {};
  const schema = resolved(message.payload.properties[tag]);
  const value = schema.const ?? schema.enum?.[0];
  if (value !== undefined) made[tag] = value;
  for (const input of $("fields").querySelectorAll("[name]")) {
    try {
      const found = valueOf(input);
      if (found !== undefined) made[input.name] = found;
    } catch {
      fault(input, "This is not JSON.");
      throw new Error("not JSON");
    }
  }
  return made;
}

// The connection

function address() {
  const base = location.origin.replace(/^http/, "ws") + document.body.dataset.root;
  const query = new URLSearchParams();
  let path = api.channels[key].address;
  for (const input of $("parameters").querySelectorAll("[name]")) {
    const value = input.dataset.kind === "boolean" ? String(input.checked) : input.dataset.kind === "enum" && input.value ? String(JSON.parse(input.value)) : input.value;
    if (input.dataset.place === "path") path = path.replace(`{${input.name}}`, value.split("/").map(encodeURIComponent).join("/"));
    else if (value !== "") {
      let many = [value];
      if (input.dataset.kind === "json") try { many = [].concat(JSON.parse(value)); } catch { /* as it stands */ }
      for (const one of many) query.append(input.name, one);
    }
  }
  const text = query.toString();
  return base + path + (text ? `?${text}` : "");
}

function connect() {
  if (socket && socket.readyState < 2) {
    socket.close(1000);
    return;
  }
  const protocol = api.channels[key]["x-antiphon"]?.subprotocol;
  const mine = socket = new WebSocket(address(), protocol ? [protocol] : []);
  mine.binaryType = "arraybuffer";
  people = {};
  pending.clear();
  $("running").replaceChildren();
  showPeople();
  $("position").hidden = true;
  state("connecting …", "Close");
  mine.onopen = () => { state("connected", "Close"); log("note", "connected", mine.url); };
  mine.onmessage = ({ data }) => take(data);
  mine.onclose = ({ code, reason }) => {
    for (const one of pending.values()) one.cancel?.remove();
    pending.clear();
    const text = `closed: ${code} ${MEANINGS[code] ?? (code >= 4000 ? "as the application says" : "")}`;
    if (mine === socket) state(text, "Connect");
    log(code === 1000 ? "note" : "bad", text, reason);
  };
}

function state(text, button) {
  $("state").textContent = text;
  $("connect").textContent = button;
}

function send() {
  clearFaults();
  if (socket?.readyState !== 1) {
    state("connect first", "Connect");
    return;
  }
  let frame;
  try {
    frame = current();
  } catch {
    return;
  }
  if (message.told.contentType === "application/octet-stream") {
    socket.send(new TextEncoder().encode(typeof frame === "string" ? frame : JSON.stringify(frame)));
    log("out", "binary", "");
    return;
  }
  const names = wire();
  const asks = $("ref").checked && !$("ref").parentElement.hidden && message.told.name !== "cancel";
  if (asks) frame[names.ref] = ++number;
  socket.send(JSON.stringify(frame));
  log("out", message.told.name, JSON.stringify(frame, null, 1));
  if (asks) {
    const ref = number;
    const stream = message.operation["x-antiphon"]?.answer === "stream";
    const cancel = stream ? make("button", { type: "button", onclick: () => give(ref) }, `Cancel ${message.told.name} ${ref}`) : undefined;
    if (cancel) $("running").append(cancel);
    pending.set(ref, { name: message.told.name, message: message.ref, since: performance.now(), cancel });
  }
}

function give(ref) {
  const names = wire();
  const frame = JSON.stringify({ [names.tag]: "cancel", [names.ref]: ref });
  if (socket?.readyState === 1) socket.send(frame);
  log("out", "cancel", frame);
}

function take(data) {
  if (typeof data !== "string") {
    log("in", "binary", `${data.byteLength} bytes`);
    return;
  }
  let frame;
  try {
    frame = JSON.parse(data);
  } catch {
    log("in", "text", data);
    return;
  }
  const names = wire();
  const tag = frame?.[names.tag];
  const asked = pending.get(frame?.[names.ref]);
  const took = asked ? ` to ${asked.name}, ${Math.round(performance.now() - asked.since)} ms` : "";
  log(tag === "error" ? "bad" : "in", `${tag ?? "message"}${took}`, JSON.stringify(frame, null, 1));
  if (asked && ["reply", "end", "error"].includes(tag)) {
    asked.cancel?.remove();
    pending.delete(frame[names.ref]);
    if (tag === "error" && asked.message === message?.ref) mark(names.content ? frame[names.content] : frame);
  }
  if (tag === "presence_diff") apply(frame);
  if (frame?.epoch !== undefined) {
    $("position").hidden = false;
    $("position").textContent = `Position in ${frame.topic}: ${frame.offset}-${frame.epoch}`;
  }
}

function mark(error) {
  const details = Array.isArray(error?.detail) ? error.detail : [];
  for (const { loc, msg } of details) {
    const input = $("fields").querySelector(`[name="${CSS.escape(String(loc?.[0] ?? ""))}"]`) ?? $("fields").querySelector("[name]");
    if (input) fault(input, msg);
  }
}

function apply({ joins, leaves, updates }) {
  for (const user of Object.keys(leaves ?? {})) delete people[user];
  Object.assign(people, joins, updates);
  showPeople();
}

function showPeople() {
  const names = Object.keys(people);
  $("people").hidden = !names.length;
  $("people").textContent = `Here: ${names.join(", ")}`;
}

// The log

function log(kind, title, text) {
  const item = make("li", { class: kind }, make("b", {}, `${{ out: "→", in: "←", bad: "←", note: "·" }[kind]} ${title}`),
    make("small", {}, ` ${new Date().toLocaleTimeString()}`), make("pre", {}, text ?? ""));
  const lines = $("log");
  const follows = lines.scrollHeight - lines.scrollTop - lines.clientHeight < 40;
  lines.append(item);
  while ($("log").children.length > MOST) $("log").firstChild.remove();
  sift(item);
  if (follows) lines.scrollTop = lines.scrollHeight;
  return item;
}

function sift(item) {
  item.hidden = !item.textContent.toLowerCase().includes($("filter").value.toLowerCase());
}

// Copies

function copy(kind) {
  const text = JSON.stringify(current());
  const quoted = JSON.stringify(text);
  const url = JSON.stringify(address());
  const shell = (one) => `'${one.replaceAll("'", "'\\''")}'`;
  return {
    javascript: `const socket = new WebSocket(${url});\nsocket.onmessage = ({ data }) => console.log(JSON.parse(data));\nsocket.onopen = () => socket.send(${quoted});`,
    python: `from websockets.sync.client import connect\n\nwith connect(${url}) as socket:\n    socket.send(${quoted})\n    print(socket.recv())`,
    shell: `echo ${shell(text)} | antiphon connect ${shell(address())}`,
  }[kind];
}

async function start() {
  const answer = await fetch(document.body.dataset.document);
  if (!answer.ok) throw new Error(`${answer.status} ${answer.statusText}`);
  api = await answer.json();
  $("title").textContent = document.title = api.info.title;
  $("version").textContent = api.info.version;
  list();
  const first = Object.keys(api.channels)[0];
  if (first) choose(first);
}

$("connection").addEventListener("submit", (event) => { event.preventDefault(); if (key) connect(); });
$("message").addEventListener("submit", (event) => { event.preventDefault(); send(); });
$("message").addEventListener("keydown", (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); send(); } });
$("raw").addEventListener("change", () => {
  $("raw").checked = !$("raw").checked;
  let value;
  try { value = current(); } catch { return; }
  $("raw").checked = !$("raw").checked;
  draw(value);
});
$("filter").addEventListener("input", () => { for (const item of $("log").children) sift(item); });
$("clear").addEventListener("click", () => $("log").replaceChildren());
for (const button of document.querySelectorAll("[data-copy]")) button.addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText(copy(button.dataset.copy));
  } catch {
    log("note", "copy", copy(button.dataset.copy));
  }
});
start().catch((error) => { $("title").textContent = `The document cannot be read: ${error.message}`; });
