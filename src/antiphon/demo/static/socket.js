// A WebSocket that comes back. Knows nothing of chat: events in, events out.

const FIRST_DELAY = 500;
const LONGEST_DELAY = 15_000;
const REFUSED = 1008; // the server will not take us as we are: trying again is no use

export class Reconnecting extends EventTarget {
  #address; #socket = null; #timer = null; #attempt = 0; #closed = false;
  #online = () => { if (!this.open) this.retry(); };

  /** `address()` is asked anew for each attempt. */
  constructor(address) {
    super();
    this.#address = address;
    window.addEventListener("online", this.#online);
    this.retry();
  }

  /** Whether a message sent now goes out now. */
  get open() { return this.#socket?.readyState === WebSocket.OPEN; }

  send(message) {
    if (!this.open) return false;
    this.#socket.send(JSON.stringify(message));
    return true;
  }

  /** The connection is good: the next loss starts with a short delay again. */
  settled() { this.#attempt = 0; }

  retry() {
    clearTimeout(this.#timer);
    if (this.#closed || (this.#socket && this.#socket.readyState <= WebSocket.OPEN)) return;
    this.#tell("connecting");
    const socket = new WebSocket(this.#address());
    this.#socket = socket;
    socket.onopen = () => this.#tell("open");
    socket.onmessage = (event) => this.#tell("message", JSON.parse(event.data));
    socket.onclose = (event) => { if (socket === this.#socket) this.#lost(event); };
  }

  close() {
    this.#closed = true;
    clearTimeout(this.#timer);
    window.removeEventListener("online", this.#online);
    const socket = this.#socket;
    this.#socket = null;
    socket?.close(1000);
  }

  #lost({ code, reason }) {
    if (this.#closed) return;
    if (code === REFUSED) {
      this.close();
      this.#tell("refused", { reason });
      return;
    }
    const longest = Math.min(LONGEST_DELAY, FIRST_DELAY * 2 ** this.#attempt++);
    const delay = longest / 2 + Math.random() * longest / 2; // everybody lost the server at once: do not return at once
    this.#timer = setTimeout(() => this.retry(), delay);
    this.#tell("waiting", { code, reason, until: Date.now() + delay });
  }

  #tell(type, detail = null) { this.dispatchEvent(new CustomEvent(type, { detail })); }
}
