// What was said in a room and not yet heard back. It outlives a reload, and goes out one after the other: the server
// answers as fast as people may speak.

const MOST = 200;

export class Outgoing {
  #messages = new Map(); // id -> { id, text, … }: in the order in which they were said
  #say; #save; #ready = false; #going = false;

  /** `say(message)` resolves when the server has it; `saved` is what `save(messages)` was given last, perhaps by the page before. */
  constructor({ say, saved, save }) {
    this.#say = say;
    this.#save = save;
    for (const message of saved) this.#messages.set(message.id, message);
  }

  get full() { return this.#messages.size >= MOST; }
  get messages() { return [...this.#messages.values()]; }

  add(message) {
    this.#messages.set(message.id, message);
    this.#save(this.messages);
    this.#go();
  }

  /** A new connection is good: what the one before did not confirm goes out again (others know it by its id). */
  ready() {
    this.#ready = true;
    this.#go();
  }

  /** The connection is gone; what is said now waits. */
  wait() { this.#ready = false; }

  /** The server passed it on. */
  heard(id) {
    if (this.#messages.delete(id)) this.#save(this.messages);
  }

  async #go() {
    if (this.#going) return;
    this.#going = true;
    while (this.#ready && this.#messages.size) {
      const [{ id, text }] = this.#messages.values();
      try {
        await this.#say({ id, text });
      } catch ({ code }) {
        if (code === "timeout") continue; // once more
        if (code !== "invalid") break; // the connection is gone: `ready` comes
      }
      this.heard(id);
    }
    this.#going = false;
  }
}
