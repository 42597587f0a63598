// A WebSocket that comes back. Knows nothing of chat: events in, events out.

const FIRST_DELAY = 500;
const LONGEST_DELAY = 15_000;
const ANSWER_WITHIN = 10_000; // from the attempt to a good connection
const WATCHED_EVERY = 500;
const REFUSED = 1008; // the server will not take us as we are: trying again is no use
export const SILENT = 4408; // our own word: nothing came, and nobody told us of an end

export class Reconnecting extends EventTarget {
  #address; #socket = null; #timer = null; #attempt = 0; #closed = false; #settled = false;
  #heartbeat = 0; // milliseconds; 0: the server sends none
  #heard = 0; // when the last message came
  #silent = false;
  #watch = setInterval(() => this.#look(), WATCHED_EVERY);
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

  /** The connection is good: the next loss starts with a short delay again. From now on the server says something at
   * least every `heartbeat` seconds; twice as long without a word, and the connection is dead, whatever the browser says. */
  settled(heartbeat = 0) {
    this.#attempt = 0;
    this.#settled = true;
    this.#heartbeat = heartbeat * 1000;
  }

  retry() {
    clearTimeout(this.#timer);
    if (this.#closed || (this.#socket && this.#socket.readyState <= WebSocket.OPEN)) return;
    this.#tell("connecting");
    const socket = new WebSocket(this.#address());
    this.#socket = socket;
    this.#settled = this.#silent = false;
    this.#heard = Date.now();
    socket.onopen = () => this.#tell("open");
    socket.onmessage = (event) => this.#listen(event);
    socket.onclose = (event) => { if (socket === this.#socket) this.#lost(event); };
  }

  /** Leave this connection for a new one, now. */
  again() {
    this.#forget();
    this.retry();
  }

  close() {
    this.#closed = true;
    clearTimeout(this.#timer);
    clearInterval(this.#watch);
    window.removeEventListener("online", this.#online);
    this.#forget();
  }

  #listen({ data }) {
    this.#heard = Date.now();
    if (this.#silent) {
      this.#silent = false;
      if (this.#settled) this.#tell("heard");
    }
    this.#tell("message", JSON.parse(data));
  }

  /** A page that slept finds a long silence and, behind it, the messages that came meanwhile: it looks twice. */
  #look() {
    if (!this.#socket || this.#socket.readyState > WebSocket.OPEN) return;
    const quiet = Date.now() - this.#heard;
    const most = this.#settled ? 2 * this.#heartbeat : ANSWER_WITHIN;
    if (!most || quiet < most * 0.75) return;
    if (this.#silent && quiet >= most) {
      this.#forget();
      this.#lost({ code: SILENT, reason: "" });
    } else if (!this.#silent) {
      this.#silent = true;
      if (this.#settled) this.#tell("silent");
    }
  }

  /** Its end is no news any more. A dead link would answer our Close never, and be reported a minute later. */
  #forget() {
    const socket = this.#socket;
    this.#socket = null;
    if (!socket) return;
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close(1000);
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
