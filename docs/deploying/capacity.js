// The arithmetic of capacity.md, and its form. `plan` knows nothing of the page: a test runs it in node.

// Measured: docs/benchmarks, and the notes in capacity.md. CPU in microseconds, memory in KiB.
export const FIGURES = {
  message: 6.94, // receive one message and send one: echo-32
  delivery: 6.58, // one message to one of many sockets, one system call each: fanout-10000-turns
  overRedis: 82, // what a publish costs more in the processes than in memory: rooms, 10 receivers each
  overRelay: 43, // the same for the relay
  connect: 131, // handshake, one echo, close: connect
  redisPublish: 48, // in Redis: the script of a publish with history
  redisSend: 4, // in Redis: one more process that hears it
  member: 11.4, // a connection in a topic
  kernel: 4, // what the kernel keeps of a socket
  process: 47 * 1024, // a worker before its first connection
  pings: 20, // seconds between two
};

// connections: open at a time; rate: messages a second from all clients; receivers: of each message;
// work: microseconds that the application itself spends on a message; size: bytes of a message;
// hosts: machines or pods, joined by Redis when there are several; usage: share of a core that may be used;
// back: seconds in which everybody is to be back after a restart.
export function plan({ connections, rate, receivers, work, size, hosts, usage, back }) {
  const f = FIGURES;
  const over = hosts > 1 ? f.overRedis : f.overRelay;
  const busy =
    (rate * (f.message + work + over) + rate * receivers * f.delivery + (connections / f.pings) * f.message) / 1e6;
  const reconnect = ((connections / back) * f.connect) / 1e6;
  const cores = Math.max(1, hosts, Math.ceil(Math.max(busy, reconnect) / usage)); // a process on each host at least
  const memory = (cores * f.process + connections * (f.member + f.kernel)) / (1 << 20);
  const redis = hosts > 1 ? rate * (f.redisPublish + f.redisSend * cores) / 1e6 : 0;
  const bytes = rate * receivers * (size + 60); // frames, TCP and IP around each
  return {
    busy,
    cores,
    perCore: Math.ceil(connections / cores),
    memory,
    redis,
    megabits: (bytes * 8) / 1e6,
    descriptors: connections + 1000 * hosts,
  };
}

const UNITS = {
  busy: "cores busy",
  cores: "cores to have",
  perCore: "connections per core",
  memory: "GiB of memory",
  redis: "of a core of Redis",
  megabits: "Mbit/s out",
  descriptors: "open files in all",
};

function shown(number) {
  if (number < 10 && !Number.isInteger(number)) return number.toFixed(2);
  return Math.round(number).toLocaleString("en").replaceAll(",", "\u202f");
}

export function attach(form) {
  const output = form.querySelector("output");
  output.style.cssText = "display: block; white-space: pre-line; margin-top: 1em; font-weight: bold";
  output.setAttribute("aria-live", "polite");
  for (const label of form.querySelectorAll("label")) {
    label.style.cssText = "display: flex; justify-content: space-between; max-width: 34rem; margin: 0.3em 0";
    label.querySelector("input").style.cssText = "width: 8rem; text-align: end; border: 1px solid; border-radius: 4px";
  }
  const show = () => {
    const fields = [...form.elements].filter((one) => one.name);
    const wrong = fields.find((one) => one.value === "" || !one.checkValidity());
    if (wrong) {
      output.textContent = `${wrong.closest("label").textContent.trim()}: ${wrong.validationMessage || "a number, please"}`;
      return;
    }
    const found = plan(Object.fromEntries(fields.map((one) => [one.name, Number(one.value)])));
    output.textContent = Object.entries(UNITS)
      .map(([name, unit]) => `${shown(found[name])} ${unit}`)
      .join("\n");
  };
  form.addEventListener("input", show);
  form.addEventListener("submit", (event) => event.preventDefault());
  show();
}

if (typeof document !== "undefined") for (const form of document.querySelectorAll("form.capacity")) attach(form);
