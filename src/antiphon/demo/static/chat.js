// The chat room: joins what the server says with what the page shows.

import { Outgoing } from "./outgoing.js";
import { Chat, SILENCE } from "/asyncapi/client.js";
import { $, Log, namesOf, paintAvatar, showPeople, showRooms, showState, showUnread } from "./view.js";

const USUAL_ROOMS = ["lobby", "music", "workshop"];
const TYPING_SHOWN_FOR = 4000;
const TYPING_TOLD_EVERY = 2500;
const ROOMS_ASKED_EVERY = 10_000;
const BACK_WITHIN = 30_000; // after a restart people come back one by one; that is no news

const remembering = (storage) => ({
  get(key) { try { return storage().getItem(`antiphon.${key}`); } catch { return null; } },
  set(key, value) { try { storage().setItem(`antiphon.${key}`, value); } catch { /* private window: forget */ } },
  delete(key) { try { storage().removeItem(`antiphon.${key}`); } catch { /* there is nothing */ } },
});
const memory = remembering(() => localStorage); // of this person
const tab = remembering(() => sessionStorage); // of this tab: what is written and not yet said

const slug = (text) => text.trim().toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-+|-+$/g, "").slice(0, 32);
const random = () => Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");

// One person in several tabs is one person: the server knows us by a cookie that no script sees, and tells us which id
// that is for everybody. The name may change.
const me = { id: memory.get("id") ?? "", name: memory.get("name") ?? "" };

const state = {
  room: slug(location.hash.slice(1)) || "lobby",
  rooms: JSON.parse(memory.get("rooms") ?? "null") ?? USUAL_ROOMS,
  counts: {},
  people: new Map(),
  typing: new Map(), // person -> { name, until }
  missed: new Set(), // people who were here when the connection was lost
  missedUntil: 0,
  unread: 0,
  epoch: null, // the life of the history that the page shows
  address: null, // for friends, where ours is good on this machine only
  ready: false, // joined, and what was missed has come
  everReady: false,
  rosterKnown: false,
};
let client = null;
let outgoing = null;
let log = null;
let told = 0;
let waitingUntil = 0;
let following = true; // the reader is at the end of the log

// --- the connection ---------------------------------------------------------------------------------------------

function enter(room) {
  const left = client;
  client = null;
  left?.close();
  outgoing?.wait();
  clearNotice();
  state.room = room;
  if (!state.rooms.includes(room)) state.rooms = [...state.rooms, room].slice(-12);
  memory.set("rooms", JSON.stringify(state.rooms));
  history.replaceState(null, "", `#${room}`);
  state.people = new Map();
  state.typing = new Map();
  state.missed = new Set();
  Object.assign(state, { epoch: null, ready: false, everReady: false, rosterKnown: false });
  log = new Log($("log"), $("scroll"), me.id);
  following = true;
  seen();
  $("title").textContent = room;
  $("text").placeholder = `Message ${room}`;
  $("text").value = tab.get(`draft.${room}`) ?? "";
  fit();
  $("empty").hidden = true;
  $("subtitle").textContent = "";
  showPeople(state.people, me.id);
  $("subtitle").textContent = "Entering…";
  drawRooms();
  openDrawer(false);

  const mine = client = new Chat("", { room, name: me.name });
  outgoing = new Outgoing({
    say: (message) => mine.say(message),
    saved: unsent(room),
    save: (messages) => messages.length ? tab.set(`unsent.${room}`, JSON.stringify(messages)) : tab.delete(`unsent.${room}`),
  });
  for (const [type, handle] of Object.entries(handlers)) mine.on(type, (event) => { handle(event); drawTyping(); });
  mine.watch((now) => { if (mine === client) states[now.name](now); });
}

/** What the page before said in this room and did not hear back. */
function unsent(room) {
  try { return JSON.parse(tab.get(`unsent.${room}`) ?? "[]"); } catch { return []; }
}

// What the connection does, by the name of its state.
const states = {
  connecting() {
    state.ready = false;
    showState("connecting");
  },
  open({ silent }) {
    if (state.ready) { showState(silent ? "silent" : "open"); return; }
    state.rosterKnown = false;
    $("log").setAttribute("aria-busy", "true");
  },
  waiting({ code, reason, until }) {
    if (state.ready) {
      $("notice").dataset.why = reason === SILENCE ? reason : code; // of the loss, not of attempts since
      state.missed = new Set(state.people.keys());
    }
    state.ready = false;
    outgoing.wait();
    state.typing.clear();
    waitingUntil = until;
    showState("waiting");
    $("subtitle").textContent = "Not connected";
    drawNotice();
  },
  closed({ reason }) { askName(reason || "The server did not let you in."); },
};

// What the server sends, by type.
const handlers = {
  you({ id, address }) {
    state.address = address;
    if (id === me.id) return;
    me.id = id;
    memory.set("id", id);
    log.me = id;
    paintAvatar($("me-avatar"), me.id, me.name);
  },
  /** We are in the topic. What was said follows, then who is here, then what is said from now on. */
  joined({ topic, epoch, recovered }) {
    if (!topic.startsWith("room/")) return;
    const restarted = state.epoch !== epoch;
    const again = state.epoch !== null;
    state.epoch = epoch;
    if (!again || recovered || log.empty) return;
    // What is on the page stays: it was said. What comes next does not follow on it.
    arrived(() => log.gap(restarted ? "The server was restarted. Messages may be missing here."
      : "You were away for long. Messages are missing here."));
  },
  said(said) {
    const known = log.has(said.id);
    outgoing.heard(said.id);
    state.typing.delete(said.person);
    const news = state.everReady && !known && said.person !== me.id;
    arrived(() => log.message(said), { counts: news });
  },
  typing({ person, name }) {
    state.typing.set(person, { name, until: Date.now() + TYPING_SHOWN_FOR });
  },
  /** The first one after joining lists everybody, and ends what was missed. */
  presence_diff({ joins, leaves, updates }) {
    if (!state.rosterKnown) state.people.clear();
    for (const [id, infos] of Object.entries({ ...joins, ...updates })) state.people.set(id, { id, name: infos.at(-1).name });
    const gone = Object.keys(leaves).map((id) => state.people.get(id)).filter(Boolean);
    for (const id of Object.keys(leaves)) { state.people.delete(id); state.typing.delete(id); }
    if (state.rosterKnown) {
      const others = (people) => people.filter((person) => person && person.id !== me.id);
      const back = Date.now() < state.missedUntil ? state.missed : new Set();
      const came = others(Object.keys(joins).filter((id) => !back.delete(id)).map((id) => state.people.get(id)));
      if (came.length) arrived(() => log.line(`${namesOf(came)} joined`));
      if (others(gone).length) arrived(() => log.line(`${namesOf(others(gone))} left`));
    }
    state.rosterKnown = true;
    drawPeople();
    askCounts();
    if (!state.ready) caughtUp();
  },
  /** Messages may be missing: come in again, and be told whether they are. */
  resync({ topic }) {
    if (topic.startsWith("room/")) client.reconnect();
  },
};

function caughtUp() {
  const first = !state.everReady;
  state.ready = state.everReady = true;
  state.missedUntil = Date.now() + BACK_WITHIN;
  showState("open");
  clearNotice();
  $("log").removeAttribute("aria-busy");
  $("empty").hidden = !log.empty;
  for (const message of outgoing.messages) if (!log.has(message.id)) showUnsent(message);
  outgoing.ready();
  if (first) log.toEnd();
}

// --- what people do ---------------------------------------------------------------------------------------------

function say(text) {
  const message = { id: random(), person: me.id, name: me.name, text, at: Date.now() };
  log.allRead();
  showUnsent(message);
  log.toEnd();
  outgoing.add(message); // goes out now, or when there is a connection again
}

function showUnsent(message) {
  log.message(message, { pending: true });
  $("empty").hidden = true;
}

$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = $("text").value.trim();
  if (!text || outgoing.full) return;
  say(text);
  $("text").value = "";
  tab.delete(`draft.${state.room}`);
  fit();
  told = 0;
  $("text").focus();
});

$("text").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  $("composer").requestSubmit();
});

$("text").addEventListener("input", () => {
  fit();
  tab.set(`draft.${state.room}`, $("text").value);
  if ($("text").value && Date.now() - told > TYPING_TOLD_EVERY && client?.send({ type: "typing" })) told = Date.now();
});

function fit() {
  const box = $("text");
  box.style.height = "auto";
  box.style.height = `${Math.min(box.scrollHeight, 160)}px`;
  $("send").disabled = !box.value.trim();
}

$("retry").addEventListener("click", () => client?.retry());
$("open").addEventListener("submit", (event) => {
  event.preventDefault();
  const room = slug($("open-name").value);
  $("open-name").value = "";
  if (room && room !== state.room) enter(room);
  if (room) $("text").focus();
});
$("share").addEventListener("click", async () => {
  const here = ["localhost", "127.0.0.1", "[::1]"].includes(location.hostname);
  const link = here && state.address ? `${state.address}/#${state.room}` : location.href;
  const alone = here && !state.address;
  let told = alone ? "Link copied. It opens on this machine only: antiphon demo --host 0.0.0.0 lets friends in"
    : `Link copied, send it to a friend: ${link}`;
  try {
    await navigator.clipboard.writeText(link);
  } catch { // not allowed to, or served without TLS: then a page has no clipboard
    told = alone ? "This page opens on this machine only: antiphon demo --host 0.0.0.0 lets friends in"
      : `Send this link to a friend: ${link}`;
  }
  arrived(() => log.line(told));
  log.toEnd(true);
});
window.addEventListener("hashchange", () => {
  const room = slug(location.hash.slice(1));
  if (room && room !== state.room && me.name) enter(room);
});

// --- unread -----------------------------------------------------------------------------------------------------

const looking = () => document.visibilityState === "visible" && document.hasFocus();

/** Add something to the log: stay at the end if that is where the reader is, else count it as unread. */
function arrived(add, { counts = false } = {}) {
  const follow = log.atEnd;
  $("empty").hidden = true;
  if (counts && (!looking() || !follow)) {
    log.unreadFromHere();
    state.unread += 1;
  }
  add();
  if (follow) log.toEnd();
  drawUnread();
}

function drawUnread() {
  showUnread(state.unread, state.room);
  const jump = $("jump");
  jump.hidden = log.atEnd;
  jump.textContent = state.unread ? `${state.unread} new ↓` : "↓";
  jump.setAttribute("aria-label", state.unread ? `Go to ${state.unread} new messages` : "Go to the newest message");
}

/** The count goes when somebody looks; the divider stays where it is until they speak or look away again. */
function seen() {
  state.unread = 0;
  drawUnread();
}

$("jump").addEventListener("click", () => { log.toEnd(true); $("text").focus(); });
$("scroll").addEventListener("scroll", () => {
  if (!log) return;
  following = log.atEnd;
  if (following && looking()) seen(); else drawUnread();
}, { passive: true });
window.addEventListener("focus", () => { if (log?.atEnd) seen(); });
window.addEventListener("blur", () => { if (state.unread === 0) log?.allRead(); });
document.addEventListener("visibilitychange", () => { if (log?.atEnd && looking()) seen(); });
// A longer message being typed, a notice, a keyboard: who was at the end stays there.
new ResizeObserver(() => { if (log && following) log.toEnd(); }).observe($("scroll"));

// --- drawing ----------------------------------------------------------------------------------------------------

function drawPeople() { showPeople(state.people, me.id); }
function drawRooms() { showRooms(state.rooms, state.room, state.counts, (room) => { if (room !== state.room) enter(room); else openDrawer(false); }); }

function drawTyping() {
  const now = Date.now();
  for (const [id, { until }] of state.typing) if (until < now) state.typing.delete(id);
  const people = [...state.typing.values()];
  $("typing").textContent = people.length === 0 ? "" : people.length > 3 ? "Several people are typing…"
    : `${namesOf(people)} ${people.length === 1 ? "is" : "are"} typing…`;
}

const REASONS = { 1012: "The server is restarting.", [SILENCE]: "The server did not answer any more." };

function drawNotice() {
  const seconds = Math.max(0, Math.ceil((waitingUntil - Date.now()) / 1000));
  const why = REASONS[$("notice").dataset.why] ?? "The connection was lost.";
  $("notice-text").textContent = `${why} Trying again ${seconds > 0 ? `in ${seconds} s` : "now"}…`;
  $("notice").hidden = false;
}

function clearNotice() { $("notice").hidden = true; }

setInterval(() => {
  drawTyping();
  if (!$("notice").hidden) drawNotice();
}, 500);

async function askCounts() {
  const query = new URLSearchParams(state.rooms.map((room) => ["room", room]));
  try {
    const answer = await fetch(`rooms?${query}`);
    if (answer.ok) state.counts = await answer.json();
  } catch { return; } // offline: the old figures stay
  drawRooms();
}
setInterval(() => { if (state.ready && document.visibilityState === "visible") askCounts(); }, ROOMS_ASKED_EVERY);

// Beside the room there is no drawer to open. Over it, the keyboard goes in and comes back.
function openDrawer(open) {
  if (open === $("side").classList.contains("shown")) return;
  $("side").classList.toggle("shown", open);
  $("veil").hidden = !open;
  document.querySelector("main").inert = open;
  (open ? $("rooms").querySelector("[aria-current]") : $("menu")).focus();
  $("menu").setAttribute("aria-expanded", String(open));
}
$("menu").addEventListener("click", () => openDrawer(!$("side").classList.contains("shown")));
$("veil").addEventListener("click", () => openDrawer(false));
document.addEventListener("keydown", (event) => { if (event.key === "Escape" && !$("door").open) openDrawer(false); });
matchMedia("(max-width: 820px)").addEventListener("change", () => openDrawer(false));

const THEMES = { auto: ["◐", "Theme: as the system"], light: ["☀", "Theme: light"], dark: ["☾", "Theme: dark"] };
function paintTheme(name) {
  const [symbol, label] = THEMES[name];
  $("theme").textContent = symbol;
  $("theme").setAttribute("aria-label", label);
  $("theme").title = label;
  if (name === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
}
$("theme").addEventListener("click", () => {
  const names = Object.keys(THEMES);
  const next = names[(names.indexOf(memory.get("theme") ?? "auto") + 1) % names.length];
  memory.set("theme", next);
  paintTheme(next);
});

// --- the door ---------------------------------------------------------------------------------------------------

function askName(wrong = "") {
  $("wrong").textContent = wrong;
  $("name").value = me.name;
  $("room").value = state.room;
  $("door").returnValue = "";
  if (!$("door").open) $("door").showModal();
  $("name").focus();
}

$("door").addEventListener("cancel", (event) => { if (!me.name) event.preventDefault(); });
$("rename").addEventListener("click", () => askName());
$("enter").addEventListener("submit", (event) => {
  const name = $("name").value.trim().replace(/\s+/gu, " ");
  const room = slug($("room").value);
  if (!name || !room) {
    event.preventDefault();
    $("wrong").textContent = name ? "A room's name has letters from a to z or digits." : "Please type a name.";
    return;
  }
  me.name = name;
  memory.set("name", name);
  state.room = room;
});
$("door").addEventListener("close", () => { if ($("door").returnValue === "enter") begin(state.room); });

function begin(room) {
  $("app").hidden = false;
  $("me-name").textContent = me.name;
  paintAvatar($("me-avatar"), me.id, me.name);
  enter(room);
  $("text").focus();
}

paintTheme(memory.get("theme") ?? "auto");
if (me.name) begin(state.room);
else askName();
