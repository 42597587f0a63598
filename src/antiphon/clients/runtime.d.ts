/**
 * The client side of antiphon: one object that outlives its connections.
 *
 * Alone it speaks to any endpoint: the hub's events come in, anything goes out. With a channel it also has requests,
 * streams and typed errors. It needs nothing but a WebSocket. docs/clients.md tells the rest.
 */
/** The reason in the state of a connection that was given up because nothing came any more. */
export declare const SILENCE = "the server did not answer any more";
/** The reason in the state while a token is waited for that did not come. */
export declare const NO_TOKEN = "the token did not come";
export type State = {
    readonly name: "connecting";
    readonly attempt: number;
} | {
    readonly name: "open";
    readonly silent: boolean;
} | {
    readonly name: "waiting";
    readonly attempt: number;
    readonly until: number;
    readonly code: number;
    readonly reason: string;
} | {
    readonly name: "closed" | "unauthorized";
    readonly code: number;
    readonly reason: string;
};
/** The result of joining a topic again: everything missed came (true), or not: load the state again. */
export interface Recovered {
    readonly topic: string;
    readonly recovered: boolean;
}
/** The members of a topic: by user, the presence of each of their connections. */
export type Members = ReadonlyMap<string, readonly unknown[]>;
/** An error that the server answered, or `closed`, `timeout`, `busy`, `too_slow` of our own. */
export declare class RemoteError extends Error {
    readonly name: string;
    readonly code: string;
    readonly detail: unknown;
    constructor(code: string, message: string, detail?: unknown);
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
/**
 * A connection that comes back. It connects at once, and again after each loss, until `close()` or a close code that
 * means no. `Events` maps the `type` of an event to its content.
 */
export declare class Client<Events extends object = Record<string, any>> {
    #private;
    constructor(address: Address, options?: Options);
    get state(): State;
    /** Where each topic was read to, as `since` wants it: to keep for the next page. */
    get positions(): Record<string, string>;
    /** Calls with the state, now and at each change. Returns how to stop it. */
    watch(listener: (state: State) => void): () => void;
    /**
     * Calls with each event of this type. A message published to a topic comes as `message`, and once more under the
     * `type` of its data, with the message around it as the second argument. `*`: everything that is no answer, also
     * without a type: a text that is no JSON, an ArrayBuffer.
     */
    on<Type extends keyof Events & string>(type: Type, listener: (event: Events[Type], message?: any) => void): () => void;
    /** Calls when a topic was joined once more, and at each `resync`: was everything told that was missed? */
    onRecovered(listener: (recovered: Recovered) => void): () => void;
    /** Calls with all members of a topic whenever one comes, goes or changes. While there is no connection they stay as they were. */
    onPresence(listener: (members: Members, topic: string) => void): () => void;
    /** Waits for a connection. Rejects with RemoteError `closed` when there will be none, or as `signal` says. */
    opened(signal?: AbortSignal): Promise<this>;
    /** Sends: text and bytes as they are, anything else as JSON. False: it neither went out nor waits for a connection. */
    send(message: unknown, { queue }?: {
        queue?: boolean | undefined;
    }): boolean;
    /** Sends a message that is answered. Rejects with RemoteError: the server's, `timeout`, or `closed`, and then it is not sent again. */
    request(type: string, fields?: object, call?: Call): Promise<unknown>;
    /** Sends a message that is answered by a stream, when its first item is asked for. To leave the loop cancels it. */
    stream(type: string, fields?: object, call?: Call): AsyncIterableIterator<unknown>;
    /** Tries again now, where a connection is waited for. */
    retry(): void;
    /** Leaves this connection for a new one, now. */
    reconnect(): void;
    /** Ends it for good. */
    close(code?: number, reason?: string): void;
}
