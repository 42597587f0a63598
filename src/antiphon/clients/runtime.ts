/**
 * The client side of antiphon: one object that outlives its connections.
 *
 * Alone it speaks to any endpoint: the hub's events come in, anything goes out. With a channel it also has requests,
 * streams and typed errors. It needs nothing but a WebSocket. docs/clients.md tells the rest.
 */

const DELAYS = [500, 1_000, 2_000, 4_000, 4_000, 4_000, 8_000, 15_000]; // the longest wait before each attempt in a row
const STEADY_AFTER = 5_000; // a connection that lasted as long was a good one: the next loss is a first one
const ANSWER_WITHIN = 10_000; // from the attempt, the token included, to an open connection
const WATCHED_EVERY = 500;
const QUEUE = 64;
const QUEUE_SIZE = 1 << 20; // characters or bytes
const MOST_BUFFERED = 8 << 20; // bytes that the browser has not sent yet, or that a stream's reader has not read
const MOST_TOPICS = 256;
const TOKEN_WITHIN = 9_000; // the token's share of that
const LONGEST_PAUSE = 5_000; // between two tries to renew
const FINAL = [1000, 1008, 3003];
const UNAUTHORIZED = 3000; // a new token may help, once

/** The reason in the state of a connection that was given up because nothing came any more. */
export const SILENCE = "the server did not answer any more";

/** The reason in the state while a token is waited for that did not come. */
export const NO_TOKEN = "the token did not come";

export type State =
  | { readonly name: "connecting"; readonly attempt: number }
  | { readonly name: "open"; readonly silent: boolean }
  | { readonly name: "waiting"; readonly attempt: number; readonly until: number; readonly code: number; readonly reason: string }
  | { readonly name: "closed" | "unauthorized"; readonly code: number; readonly reason: string };

/** The result of joining a topic again: everything missed came (true), or not: load the state again. */
export interface Recovered { readonly topic: string; readonly recovered: boolean }

/** The members of a topic: by user, the presence of each of their connections. */
export type Members = ReadonlyMap<string, readonly unknown[]>;

/** An error that the server answered, or `closed`, `timeout`, `busy`, `too_slow` of our own. */
export class RemoteError extends Error {
  override readonly name: string = "RemoteError";
  readonly code: string;
  readonly detail: unknown;
  constructor(code: string, message: string, detail?: unknown) {
    super(message);
    this.code = code;
    this.detail = detail;
  }
}

export interface Call {
  /** Milliseconds until the answer; Infinity waits for ever. For a stream: until its first item. */
  readonly timeout?: number | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Wait for a connection where there is none, instead of failing at once. */
  readonly queue?: boolean | undefined;
}

export interface Options {
  /** Asked anew for each attempt, and when the server says `auth_expiring`: the new token then goes out as `auth`. */
  readonly token?: (() => string | null | undefined | Promise<string | null | undefined>) | undefined;
  /** Where it goes: into the query as `tokenParameter`, as subprotocol behind `bearer`, or first of all as `auth`. */
  readonly tokenVia?: "query" | "subprotocol" | "message" | undefined;
  readonly tokenParameter?: string | undefined;
  readonly protocols?: string | string[] | undefined;
  /** Messages sent without a connection wait for one. False: they fail at once. A call may say otherwise. */
  readonly queue?: boolean | undefined;
  /** How many messages may wait. */
  readonly queueLimit?: number | undefined;
  /** Milliseconds for the answer to a request. */
  readonly timeout?: number | undefined;
  /** Seconds between two signs of life that the server promises, where it does not say so itself. */
  readonly heartbeat?: number | undefined;
  /** Query parameter to topic, or to a prefix of its name with a `*`. `{ since: "*" }` by default; null: never resume. */
  readonly resume?: Readonly<Record<string, string>> | null | undefined;
  /** `client.positions` of a page before this one. */
  readonly positions?: Readonly<Record<string, string>> | undefined;
  /** Close codes between 4000 and 4999 after which to come back anyway. */
  readonly retry?: readonly number[] | undefined;
  /** The class to use where there is no global one: `ws` for an old Node.js. */
  readonly WebSocket?: (new (url: string, protocols?: string | string[]) => Socket) | undefined;
}

/** The part of a WebSocket that is used. */
export interface Socket {
  readonly readyState: number;
  readonly bufferedAmount: number;
  binaryType: any;
  onopen: any;
  onmessage: any;
  onclose: any;
  onerror: any;
  send(data: any): void;
  close(code?: number, reason?: string): void;
}

export type Address = string | URL | (() => string | URL | Promise<string | URL>);

type Json = Record<string, unknown>;
type Data = string | ArrayBuffer | ArrayBufferView;
type Listener = (event: any, message?: any) => void;
interface Place { readonly epoch: string; readonly entered: number; seen: number | null; gap?: Gap | undefined }
type Gap = "ahead" | "behind"; // of our position: the missed messages are still available from here, or no longer
interface Standing { readonly topic: string; readonly offset: number; readonly epoch: string }
interface Ask { sent: number; take?(data: unknown, size: number): void; end(error?: unknown, data?: unknown): void }
interface Surroundings {
  readonly WebSocket?: Options["WebSocket"];
  readonly document?: { readonly baseURI: string; readonly visibilityState: string } & Target;
  readonly addEventListener?: Target["addEventListener"];
  readonly removeEventListener?: Target["removeEventListener"];
  readonly reportError?: (error: unknown) => void;
}
interface Target {
  addEventListener(type: string, listener: (event: any) => void): void;
  removeEventListener(type: string, listener: (event: any) => void): void;
}

const around = globalThis as unknown as Surroundings;
const OPEN = 1;
const ANSWERS = new Set(["reply", "item", "end", "error"]);
const RESERVED = new Set([...ANSWERS, "joined", "message", "presence_diff", "resync", "heartbeat"]);

/**
 * A connection that comes back. It connects at once, and again after each loss, until `close()` or a close code that
 * means no. `Events` maps the `type` of an event to its content.
 */
export class Client<Events extends object = Record<string, any>> {
  readonly #address: Address;
  readonly #options: Options;
  readonly #asks = new Map<unknown, Ask>(); // by ref: requests without an answer yet
  readonly #places = new Map<string, Place>(); // by topic
  readonly #listeners = new Map<string, Set<Listener>>();
  readonly #watchers = new Set<(state: State) => void>();
  readonly #returned = new Set<(recovered: Recovered) => void>();
  readonly #present = new Set<(members: Members, topic: string) => void>();
  readonly #members = new Map<string, Map<string, readonly unknown[]>>(); // by topic, then by user
  readonly #removals: (() => void)[] = [];
  #state: State = Object.freeze({ name: "connecting", attempt: 0 });
  #queue: { readonly data: Data; readonly ref: number | null }[] = [];
  #queued = 0; // its size
  #socket: Socket | null = null;
  #attempt: object | null = null; // this one; results of an older one are ignored
  #failures = 0; // in a row
  #refused = false; // with 3000, and no message since
  #renewing: object | null = null; // the attempt whose token is being renewed
  #timer: ReturnType<typeof setTimeout> | undefined;
  #watch: ReturnType<typeof setInterval> | undefined;
  #heartbeat = 0; // milliseconds; 0: none was promised
  #heard = 0; // when the last message came
  #began = 0; // when this attempt, or this connection, did
  #suspected = 0; // when the silence was first noticed
  #ref = 0;

  constructor(address: Address, options: Options = {}) {
    this.#options = options;
    const { tokenVia = "query" } = options;
    if (!["query", "subprotocol", "message"].includes(tokenVia)) throw new TypeError(`tokenVia: ${tokenVia} is none of query, subprotocol, message`);
    this.#address = typeof address === "function" ? address : absolute(address);
    for (const [topic, text] of Object.entries(options.positions ?? {})) {
      const [, offset, epoch] = /^(\d{1,15})-(.+)$/.exec(String(text)) ?? [];
      if (epoch) this.#places.set(topic, { epoch, entered: Number(offset), seen: Number(offset) });
    }
    this.#listen(around, "online", () => this.retry());
    this.#listen(around, "pagehide", ({ persisted }) => { if (persisted) this.#lost(1001, "the page was left"); });
    this.#listen(around, "pageshow", ({ persisted }) => { if (persisted) this.retry(); });
    this.#listen(around.document, "resume", () => this.#look());
    this.#listen(around.document, "visibilitychange", () => {
      if (around.document?.visibilityState !== "visible") return;
      this.#look();
      this.retry();
    });
    void this.#connect();
  }

  get state(): State { return this.#state; }

  /** Where each topic was read to, as `since` wants it: to keep for the next page. */
  get positions(): Record<string, string> {
    return Object.fromEntries([...this.#places].flatMap(([topic, { seen, epoch, gap }]) => seen === null || gap === "behind" ? [] : [[topic, `${seen}-${epoch}`]]));
  }

  /** Calls with the state, now and at each change. Returns how to stop it. */
  watch(listener: (state: State) => void): () => void {
    this.#watchers.add(listener);
    safely(listener, this.#state);
    return () => void this.#watchers.delete(listener);
  }

  /**
   * Calls with each event of this type. A message published to a topic comes as `message`, and once more under the
   * `type` of its data, with the message around it as the second argument. `*`: everything that is no answer, also
   * without a type: a text that is no JSON, an ArrayBuffer.
   */
  on<Type extends keyof Events & string>(type: Type, listener: (event: Events[Type], message?: any) => void): () => void {
    const all = this.#listeners.get(type) ?? new Set();
    this.#listeners.set(type, all.add(listener));
    return () => void all.delete(listener);
  }

  /** Calls when a topic was joined once more, and at each `resync`: was everything told that was missed? */
  onRecovered(listener: (recovered: Recovered) => void): () => void {
    this.#returned.add(listener);
    return () => void this.#returned.delete(listener);
  }

  /** Calls with all members of a topic whenever one comes, goes or changes. While there is no connection they stay as they were. */
  onPresence(listener: (members: Members, topic: string) => void): () => void {
    this.#present.add(listener);
    return () => void this.#present.delete(listener);
  }

  /** Waits for a connection. Rejects with RemoteError `closed` when there will be none, or as `signal` says. */
  opened(signal?: AbortSignal): Promise<this> {
    return new Promise((resolve, reject) => {
      const abort = () => { over(); reject(signal?.reason); };
      const check = (state: State) => {
        if (state.name === "open") { over(); resolve(this); }
        if (this.#over) { over(); reject(this.#gone()); }
      };
      const over = () => { this.#watchers.delete(check); signal?.removeEventListener("abort", abort); };
      if (signal?.aborted) return reject(signal.reason);
      signal?.addEventListener("abort", abort);
      this.#watchers.add(check);
      check(this.#state);
    });
  }

  /** Sends: text and bytes as they are, anything else as JSON. False: it neither went out nor waits for a connection. */
  send(message: unknown, { queue = this.#options.queue ?? false }: { queue?: boolean | undefined } = {}): boolean {
    const text = typeof message === "string" || message instanceof ArrayBuffer || ArrayBuffer.isView(message) ? message : JSON.stringify(message);
    if (text === undefined) throw new TypeError("a message needs a JSON form");
    return this.#put(text, null, queue);
  }

  /** Sends a message that is answered. Rejects with RemoteError: the server's, `timeout`, or `closed`, and then it is not sent again. */
  request(type: string, fields: object = {}, call: Call = {}): Promise<unknown> {
    return new Promise((resolve, reject) => {
      this.#ask(type, fields, call, { end: (error, data) => error !== undefined ? reject(error) : resolve(data) });
    });
  }

  /** Sends a message that is answered by a stream, when its first item is asked for. To leave the loop cancels it. */
  stream(type: string, fields: object = {}, call: Call = {}): AsyncIterableIterator<unknown> {
    const items: [unknown, number][] = [];
    const readers: [(result: IteratorResult<unknown>) => void, (error: unknown) => void][] = [];
    let cancel: (() => void) | null = null;
    let waiting = 0;
    let ended = false;
    let failure: unknown;
    const done: IteratorResult<unknown> = { done: true, value: undefined };
    const end = (error?: unknown) => {
      ended = true;
      if (error === undefined || !readers.length) failure = error;
      else readers.shift()?.[1](error);
      for (const [resolve] of readers.splice(0)) resolve(done);
    };
    const take = (value: unknown, size: number) => {
      const reader = readers.shift();
      if (reader) return reader[0]({ done: false, value });
      items.push([value, size]);
      if ((waiting += size) <= MOST_BUFFERED) return;
      cancel?.();
      end(new RemoteError("too_slow", "the items of this stream were not read fast enough"));
    };
    return {
      [Symbol.asyncIterator]() { return this; },
      next: () => new Promise((resolve, reject) => {
        const item = items.shift();
        if (item) { waiting -= item[1]; return resolve({ done: false, value: item[0] }); }
        if (failure !== undefined) { reject(failure); failure = undefined; return; }
        if (ended) return resolve(done);
        readers.push([resolve, reject]);
        cancel ??= this.#ask(type, fields, call, { take, end });
      }),
      return: async () => {
        items.length = 0;
        cancel?.();
        failure = undefined;
        end();
        return done;
      },
    };
  }

  /** Tries again now, where a connection is waited for. */
  retry(): void {
    if (this.#state.name === "waiting") void this.#connect();
  }

  /** Leaves this connection for a new one, now. */
  reconnect(): void {
    if (this.#over) return;
    this.#forget();
    void this.#connect();
  }

  /** Ends it for good. */
  close(code = 1000, reason = ""): void {
    if (!this.#over) this.#end(code, reason, code);
  }

  // --- the connection -----------------------------------------------------------------------------------------------

  async #connect(): Promise<void> {
    clearTimeout(this.#timer);
    const mine = this.#attempt = {};
    this.#began = this.#heard = Date.now();
    this.#watch ??= setInterval(() => this.#look(), WATCHED_EVERY);
    this.#become({ name: "connecting", attempt: this.#failures });
    if (mine !== this.#attempt) return; // a listener closed us
    try {
      const [url, token] = await this.#url();
      if (mine !== this.#attempt) return;
      const Class = this.#options.WebSocket ?? around.WebSocket;
      if (!Class) throw new Error("there is no WebSocket here: give one as an option");
      const via = this.#options.tokenVia;
      const offered = via === "subprotocol" && token !== null ? ["bearer", token] : [];
      const socket = new Class(url, [...offered, ...[this.#options.protocols ?? []].flat()]);
      this.#socket = socket;
      socket.binaryType = "arraybuffer";
      socket.onopen = () => this.#opened(via === "message" ? token : null);
      socket.onmessage = ({ data }: { data: unknown }) => this.#hear(data);
      socket.onclose = ({ code, reason }: { code: number; reason: string }) => this.#lost(code, String(reason));
      socket.onerror = () => {}; // onclose follows
    } catch (error) {
      if (mine === this.#attempt) this.#lost(1006, error instanceof Error ? error.message : String(error));
    }
  }

  async #url(): Promise<[url: string, token: string | null]> {
    const { tokenVia = "query", tokenParameter = "token", resume = { since: "*" } } = this.#options;
    const url = absolute(typeof this.#address === "function" ? await this.#address() : this.#address);
    const token = await this.#token();
    if (token !== null && tokenVia === "query") url.searchParams.set(tokenParameter, token);
    const positions = Object.entries(this.positions);
    for (const [parameter, pattern] of Object.entries(resume ?? {})) {
      const fits = (topic: string) => pattern.endsWith("*") ? topic.startsWith(pattern.slice(0, -1)) : topic === pattern;
      const found = positions.find(([topic]) => fits(topic));
      if (found) url.searchParams.set(parameter, found[1]);
    }
    return [url.href, token];
  }

  /** A new one, in time. Every failure is an error. */
  async #token(): Promise<string | null> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const late = new Promise<never>((_, reject) => { timer = setTimeout(() => reject(new Error(NO_TOKEN)), TOKEN_WITHIN); });
    try {
      const token = await Promise.race([this.#options.token?.(), late]);
      return token == null ? null : String(token);
    } finally {
      clearTimeout(timer);
    }
  }

  /** Sends a new token, and tries again as long as the old one lasts; then the server closes with 3000. */
  async #renew(seconds: unknown): Promise<void> {
    const mine = this.#attempt;
    if (!this.#options.token || this.#renewing === mine) return;
    this.#renewing = mine;
    const until = Date.now() + 1000 * (typeof seconds === "number" ? Math.min(seconds, 3600) : 0);
    for (let pause = 1000; ; pause = Math.min(2 * pause, LONGEST_PAUSE)) {
      try {
        const token = await this.#token();
        if (token === null || mine !== this.#attempt) break;
        await this.request("auth", { token }, { timeout: ANSWER_WITHIN, queue: false });
        break;
      } catch (error) { // the token's, or the answer: another may be better
        if (error instanceof RemoteError && error.code === "unknown_type") break;
      }
      if (mine !== this.#attempt || Date.now() + pause >= until) break;
      await new Promise((resolve) => setTimeout(resolve, pause));
      if (mine !== this.#attempt) break;
    }
    if (this.#renewing === mine) this.#renewing = null;
  }

  #opened(token: string | null): void {
    this.#began = this.#heard = Date.now();
    this.#heartbeat = (this.#options.heartbeat ?? 0) * 1000;
    this.#members.clear();
    if (token !== null) this.#socket?.send(JSON.stringify({ type: "auth", token }));
    const queue = this.#queue;
    this.#queue = [];
    this.#queued = 0;
    for (const { data, ref } of queue) if (!this.#put(data, ref, false)) this.#asks.get(ref)?.end(this.#gone());
    this.#become({ name: "open", silent: false });
  }

  #lost(code: number, reason: string): void {
    if (this.#over || this.#state.name === "waiting") return;
    const lasted = this.#state.name === "open" && Date.now() - this.#began >= STEADY_AFTER;
    if (code === UNAUTHORIZED && this.#refused && !lasted) return this.#end(code, reason, 1000, "unauthorized");
    if (code === UNAUTHORIZED) this.#refused = true;
    if (FINAL.includes(code) || (code >= 4000 && !this.#options.retry?.includes(code))) return this.#end(code, reason);
    if (lasted) this.#failures = 0;
    const longest = DELAYS[Math.min(this.#failures++, DELAYS.length - 1)] as number;
    const delay = Math.random() * longest; // all lost it at once: do not return at once
    this.#forget();
    this.#timer = setTimeout(() => this.retry(), delay);
    this.#become({ name: "waiting", attempt: this.#failures, until: Date.now() + delay, code, reason });
  }

  #end(code: number, reason: string, tell = 1000, name: "closed" | "unauthorized" = "closed"): void {
    clearTimeout(this.#timer);
    for (const remove of this.#removals.splice(0)) remove();
    this.#forget(tell, reason);
    this.#queue = [];
    this.#state = Object.freeze({ name, code, reason });
    for (const ask of [...this.#asks.values()]) ask.end(this.#gone());
    this.#become(this.#state);
  }

  /** Its end no longer matters: a dead link would report it a minute later. Its requests get no answer. */
  #forget(code = 1000, reason = ""): void {
    clearInterval(this.#watch);
    this.#watch = undefined;
    this.#attempt = null;
    const socket = this.#socket;
    this.#socket = null;
    if (socket) {
      socket.onopen = socket.onmessage = socket.onclose = null;
      try { socket.close(code, reason); } catch { try { socket.close(); } catch { /* it never was open */ } }
    }
    for (const ask of [...this.#asks.values()]) if (ask.sent) ask.end(new RemoteError("closed", "the connection was lost before the answer came"));
  }

  /** After a sleep there is a long silence and, behind it, the messages that came meanwhile. So it takes two looks. */
  #look(): void {
    const { name } = this.#state;
    if (name !== "open" && name !== "connecting") return;
    const quiet = Date.now() - this.#heard;
    const most = name === "open" ? 2 * this.#heartbeat : ANSWER_WITHIN;
    if (!most || quiet < most * 0.75) return;
    if (this.#state.name === "open" && !this.#state.silent) {
      this.#suspected = Date.now();
      this.#become({ name: "open", silent: true });
    } else if (quiet >= most && (name !== "open" || Date.now() - this.#suspected >= WATCHED_EVERY / 2)) this.#lost(1006, SILENCE);
  }

  get #over(): boolean {
    return this.#state.name === "closed" || this.#state.name === "unauthorized";
  }

  get #ready(): boolean {
    return this.#socket?.readyState === OPEN && this.#socket.bufferedAmount <= MOST_BUFFERED;
  }

  #gone(): RemoteError {
    const { state } = this;
    if (state.name === "closed" || state.name === "unauthorized") return new RemoteError("closed", `the connection was closed with ${state.code} ${state.reason}`.trim(), state);
    return this.#socket?.readyState === OPEN ? new RemoteError("busy", "too much waits to be sent") : new RemoteError("closed", "there is no connection");
  }

  #put(data: Data, ref: number | null, queue: boolean): boolean {
    if (this.#ready && !this.#queue.length) {
      const ask = this.#asks.get(ref);
      if (ask) ask.sent = Date.now();
      this.#socket?.send(data);
      return true;
    }
    const away = this.#socket?.readyState !== OPEN && !this.#over;
    const size = this.#queued + sizeOf(data);
    if (!queue || !away || this.#queue.length >= (this.#options.queueLimit ?? QUEUE) || size > QUEUE_SIZE) return false;
    this.#queue.push({ data, ref });
    this.#queued = size;
    return true;
  }

  /** Returns how to give it up. */
  #ask(type: string, fields: object, call: Call, { take, end }: Omit<Ask, "sent">): () => void {
    const { signal, timeout = this.#options.timeout ?? 30_000, queue = this.#options.queue ?? false } = call;
    const ref = ++this.#ref;
    const text = JSON.stringify(Object.assign({ type, ref }, fields, { type, ref }));
    let timer: ReturnType<typeof setTimeout> | undefined;
    const ask: Ask = {
      sent: 0,
      take: (data, size) => { if (take) clearTimeout(timer); take?.(data, size); },
      end: (error, data) => {
        this.#asks.delete(ref);
        clearTimeout(timer);
        signal?.removeEventListener("abort", abort);
        end(error, data);
      },
    };
    const withdraw = (error?: any) => {
      if (this.#asks.get(ref) !== ask) return;
      this.#queue = this.#queue.filter((one) => one.ref !== ref || void (this.#queued -= sizeOf(one.data)));
      const dead = error?.code === "timeout" && ask.sent && this.#heard < ask.sent && !this.#heartbeat;
      if (ask.sent && this.#ready) this.#socket?.send(JSON.stringify({ type: "cancel", ref }));
      ask.end(error);
      if (dead) this.#lost(1006, SILENCE); // not a word since, and nobody promised one: as good as dead
    };
    const abort = () => withdraw(signal?.reason);
    if (signal?.aborted) { end(signal.reason); return () => {}; }
    this.#asks.set(ref, ask);
    signal?.addEventListener("abort", abort);
    if (timeout < 2 ** 31) timer = setTimeout(() => withdraw(new RemoteError("timeout", `no answer within ${timeout} ms`)), timeout);
    if (!this.#put(text, ref, queue)) ask.end(this.#gone());
    return withdraw;
  }

  // --- incoming -----------------------------------------------------------------------------------------------------

  #hear(data: unknown): void {
    this.#heard = Date.now();
    if (this.#state.name === "open" && this.#state.silent) this.#become({ name: "open", silent: false });
    let event: any = data;
    if (typeof data === "string") try { event = JSON.parse(data); } catch { /* a text, then */ }
    const type: unknown = typeof data === "string" && event !== null ? event.type : undefined;
    this.#settle(type === "joined" || type === "message" || type === "resync" ? event.topic : undefined);
    if (type !== "error") this.#refused = false;
    if (type === "auth_expiring") void this.#renew(event.expires_in);
    if (type === "heartbeat" && Object.keys(event).every((key) => key === "type" || key === "interval")) return this.#beats(event.interval);
    if (ANSWERS.has(type as string) && event.ref != null) return this.#answered(event, (data as string).length);
    if (type === "message" && this.#known(event)) return;
    if (type === "joined") this.#joined(event);
    if (type === "resync" && typeof event.topic === "string") this.#missed(event.topic);
    if (type === "presence_diff" && typeof event.topic === "string") this.#met(event);
    if (typeof type === "string") this.#tell(type, event);
    const inner = type === "message" && event.data?.type;
    if (typeof inner === "string" && !RESERVED.has(inner)) this.#tell(inner, event.data, event);
    this.#tell("*", event);
  }

  #answered({ type, ref, data, code, message, detail }: Json, size: number): void {
    const ask = this.#asks.get(ref);
    if (type === "item") ask?.take?.(data, size);
    else if (type === "error") ask?.end(new RemoteError(String(code), String(message ?? code), detail));
    else ask?.end(undefined, data);
  }

  /** A fresh join forgets the old position: the next messages are not the missed ones. */
  #joined(event: Json): void {
    const { topic, recovered, heartbeat } = event;
    this.#beats(heartbeat);
    this.#members.delete(topic as string);
    const before = this.#places.get(topic as string);
    const now = placeIn(event);
    if (now && !(recovered && before?.epoch === now.epoch)) this.#stand(now, null);
    else if (now && before) before.gap = undefined;
    if (before) this.#back({ topic: topic as string, recovered: recovered === true });
  }

  /** Whether this message came before. */
  #known(event: Json): boolean {
    const now = placeIn(event);
    const before = now && this.#places.get(now.topic);
    if (!now || (before?.epoch === now.epoch && before.seen !== null && now.offset <= before.seen)) return now !== null;
    this.#stand(now, now.offset, before?.gap && "behind");
    return false;
  }

  /** The first of a connection, and of each time that a topic is joined, lists everybody. */
  #met({ topic, joins, leaves, updates }: Json): void {
    const name = topic as string;
    const members = this.#members.get(name) ?? new Map<string, readonly unknown[]>();
    if (!this.#members.has(name) && this.#members.size >= MOST_TOPICS) return;
    this.#members.set(name, members);
    for (const [user, infos] of Object.entries({ ...joins as Json, ...updates as Json })) if (Array.isArray(infos)) members.set(user, infos);
    for (const user of Object.keys(leaves ?? {})) members.delete(user);
    for (const listener of [...this.#present]) safely(listener, members, name);
  }

  /** Something was lost: a return from here brings it, a return from behind the next message would not. */
  #missed(topic: string): void {
    const place = this.#places.get(topic);
    if (place) place.gap ??= place.seen === null ? "behind" : "ahead";
    this.#back({ topic, recovered: false });
  }

  #stand({ topic, offset, epoch }: Standing, seen: number | null, gap?: Gap): void {
    if (this.#places.has(topic) || this.#places.size < MOST_TOPICS) this.#places.set(topic, { epoch, entered: offset, seen, gap });
  }

  #beats(interval: unknown): void {
    if (typeof interval === "number" && interval >= 1 && interval <= 3600) this.#heartbeat = interval * 1000;
  }

  /** Behind `joined` its topic's history comes first. Something else came: there was none, and this is where we are. */
  #settle(except?: unknown): void {
    for (const [topic, place] of this.#places) if (topic !== except) place.seen ??= place.entered;
  }

  #back(recovered: Recovered): void {
    for (const listener of [...this.#returned]) safely(listener, recovered);
  }

  #tell(type: string, event: unknown, message?: unknown): void {
    for (const listener of [...this.#listeners.get(type) ?? []]) safely(listener, event, message);
  }

  #become(state: State): void {
    this.#state = Object.freeze(state);
    for (const listener of [...this.#watchers]) safely(listener, state);
  }

  #listen(target: Partial<Target> | undefined, type: string, listener: (event: any) => void): void {
    target?.addEventListener?.(type, listener);
    this.#removals.push(() => target?.removeEventListener?.(type, listener));
  }
}

/** An exception of a listener is its own page's error. */
function safely<Values extends unknown[]>(listener: (...values: Values) => void, ...values: Values): void {
  try {
    listener(...values);
  } catch (error) {
    if (around.reportError) around.reportError(error);
    else console.error(error);
  }
}

/** Where an event of a topic stands, if it says so. */
function placeIn({ topic, offset, epoch }: Json): Standing | null {
  const stands = typeof topic === "string" && typeof offset === "number" && typeof epoch === "string";
  return stands && Number.isSafeInteger(offset) && offset >= 0 && epoch.length <= 64 ? { topic, offset, epoch } : null;
}

function sizeOf(data: Data): number {
  return typeof data === "string" ? data.length : data.byteLength;
}

function absolute(address: string | URL): URL {
  const url = new URL(address, around.document?.baseURI);
  url.protocol = url.protocol.replace("http", "ws");
  url.hash = "";
  return url;
}
