// What was said in a room and not yet heard back. It outlives a reload, and goes out no faster than the server takes it.

const MOST = 200;
const MARGIN = 0.9; // what leaves evenly arrives in bunches

export class Outgoing {
  #messages = new Map(); // id -> { id, text, …, sent }: in the order in which they were said
  #send; #save; #timer = null; #ready = false;
  #burst = 1; #perSecond = 1; #tokens = 0; #filled = 0;

  /** `send(message)` sends one now; `saved` is what `save(messages)` was given last, perhaps by the page before. */
  constructor({ send, saved, save }) {
    this.#send = send;
    this.#save = save;
    for (const message of saved) this.#messages.set(message.id, { ...message, sent: false });
  }

  get full() { return this.#messages.size >= MOST; }
  get messages() { return [...this.#messages.values()]; }

  say(message) {
    this.#messages.set(message.id, { ...message, sent: false });
    this.#changed();
    this.#go();
  }

  /** A new connection is good: what the one before did not confirm goes out again (others know it by its id). */
  ready({ burst, per_second: perSecond }) {
    for (const message of this.#messages.values()) message.sent = false;
    this.#burst = Math.max(1, burst - 1);
    this.#perSecond = perSecond * MARGIN;
    this.#tokens = this.#burst;
    this.#filled = Date.now();
    this.#ready = true;
    this.#go();
  }

  /** The connection is gone; what is said now waits. */
  wait() {
    this.#ready = false;
    clearTimeout(this.#timer);
    this.#timer = null;
  }

  /** The server passed it on. */
  heard(id) {
    if (this.#messages.delete(id)) this.#changed();
  }

  /** The server found it too fast: once more, a little later. */
  refused(id) {
    const message = this.#messages.get(id);
    if (!message) return;
    message.sent = false;
    this.#tokens = 0;
    this.#filled = Date.now();
    this.#go();
  }

  #go() {
    if (!this.#ready || this.#timer !== null) return;
    const now = Date.now();
    this.#tokens = Math.min(this.#burst, this.#tokens + Math.max(0, now - this.#filled) / 1000 * this.#perSecond);
    this.#filled = now;
    for (const message of this.#messages.values()) {
      if (message.sent) continue;
      if (this.#tokens < 1) {
        const pause = Math.ceil((1 - this.#tokens) / this.#perSecond * 1000);
        this.#timer = setTimeout(() => { this.#timer = null; this.#go(); }, pause);
        return;
      }
      if (!this.#send({ type: "say", id: message.id, text: message.text })) return; // gone: `wait` comes
      message.sent = true;
      this.#tokens -= 1;
    }
  }

  #changed() { this.#save(this.messages.map(({ sent, ...message }) => message)); }
}
