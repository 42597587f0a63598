// Drives clients for the tests: code comes in, what happens is kept. The same in Node.js and in a page.

const AsyncFunction = (async () => {}).constructor;

export class Driven {
  constructor(Client, options) {
    this.Client = Client;
    this.defaults = options;
  }

  open(url, options = {}) {
    this.client?.close();
    this.states = [];
    this.events = [];
    this.recovered = [];
    this.log = [];
    this.client = new this.Client(url, { ...this.defaults, ...options });
    this.client.watch((state) => { this.states.push(state); this.log.push(state.name); });
    this.client.on("*", (event) => this.events.push(event instanceof ArrayBuffer ? [...new Uint8Array(event)] : event));
    this.client.onRecovered((event) => { this.recovered.push(event); this.log.push(`recovered ${event.recovered}`); });
  }

  async run(code) {
    try {
      return { value: await new AsyncFunction("client", "driven", code)(this.client, this) };
    } catch (error) {
      return { error: { name: error.name, code: error.code, message: error.message, detail: error.detail } };
    }
  }
}
