// Everything that touches the page. Text from people only ever goes through textContent.

const LINK = /\bhttps?:\/\/[^\s<>"']+[^\s<>"'.,;:!?)\]}]/g;
const ONLY_EMOJI = /^(?:\p{Extended_Pictographic}(?:\u{FE0F}|\p{Emoji_Modifier}|\u{200D}\p{Extended_Pictographic})*\s*){1,4}$/u;
const GROUP_WITHIN = 5 * 60_000;

export const $ = (id) => document.getElementById(id);

export function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

/** A hue for a person, the same in every window. */
export function hue(id) {
  let hash = 2166136261;
  for (const character of id) hash = Math.imul(hash ^ character.codePointAt(0), 16777619);
  hash = Math.imul(hash ^ (hash >>> 16), 0x45d9f3b); // the low bits alone would know only a few colours
  return ((hash ^ (hash >>> 16)) >>> 0) % 24 * 15;
}

export function paintAvatar(node, id, name) {
  const words = name.trim().split(/\s+/u);
  const initials = [...words[0]][0] + (words.length > 1 ? [...words.at(-1)][0] : "");
  node.textContent = initials.toLocaleUpperCase();
  node.style.setProperty("--hue", hue(id));
}

const still = matchMedia("(prefers-reduced-motion: reduce)");
const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const calendar = new Intl.DateTimeFormat(undefined, { weekday: "long", day: "numeric", month: "long" });
const dayOf = (at) => new Date(at).toDateString();

/** The list of messages. `me` is the id of the person looking. */
export class Log {
  #list; #scroll; #me; #known = new Map(); #last = null; #divider = null; #shownDay = null;

  constructor(list, scroll, me) {
    this.#list = list;
    this.#scroll = scroll;
    this.#me = me;
    list.replaceChildren();
  }

  set me(id) { this.#me = id; }
  get empty() { return this.#known.size === 0; }
  has(id) { return this.#known.has(id); }

  get atEnd() { return this.#scroll.scrollHeight - this.#scroll.scrollTop - this.#scroll.clientHeight < 60; }
  toEnd(smooth = false) { this.#scroll.scrollTo({ top: this.#scroll.scrollHeight, behavior: smooth && !still.matches ? "smooth" : "instant" }); }

  /** Show a message; a second one with the same id confirms the first instead. */
  message({ id, person, name, text, at }, { pending = false } = {}) {
    const shown = this.#known.get(id);
    if (shown) {
      shown.classList.toggle("pending", pending);
      return;
    }
    this.#day(at);
    const mine = person === this.#me;
    const row = element("li", mine ? "message mine" : "message");
    row.dataset.id = id;
    row.classList.toggle("pending", pending);
    row.classList.toggle("follows", this.#follows(person, at));
    row.style.setProperty("--hue", hue(person));
    if (!mine) {
      const avatar = element("span", "avatar");
      avatar.setAttribute("aria-hidden", "true");
      paintAvatar(avatar, person, name);
      row.append(avatar);
    }
    const body = element("div", "body");
    const head = element("div", "head");
    const author = element("bdi", "author", mine ? "You" : name);
    author.title = name;
    head.append(author, this.#time(at));
    body.append(head, this.#bubble(text));
    row.append(body);
    this.#list.append(row);
    this.#known.set(id, row);
    this.#last = { person, at };
  }

  /** A line in nobody's voice. */
  line(text) {
    this.#day(Date.now());
    this.#list.append(element("li", "line", text));
    this.#last = null;
  }

  /** What comes from here on does not follow on what is above: something is missing between the two. */
  gap(text) {
    const gap = element("li", "gap");
    gap.append(element("span", "", text));
    this.#list.append(gap);
    this.#last = null;
  }

  /** Mark that what comes from here on has not been seen. */
  unreadFromHere() {
    if (this.#divider) return;
    this.#divider = element("li", "divider");
    this.#divider.append(element("span", "", "New"));
    this.#list.append(this.#divider);
    this.#last = null;
  }

  allRead() {
    this.#divider?.remove();
    this.#divider = null;
  }

  #follows(person, at) {
    return this.#last !== null && this.#last.person === person && at - this.#last.at < GROUP_WITHIN;
  }

  #day(at) {
    const day = dayOf(at);
    if (this.#shownDay === day) return;
    this.#shownDay = day;
    this.#list.append(element("li", "day", day === dayOf(Date.now()) ? "Today" : calendar.format(at)));
    this.#last = null;
  }

  #time(at) {
    const time = element("time", "", clock.format(at));
    time.dateTime = new Date(at).toISOString();
    return time;
  }

  #bubble(text) {
    const bubble = element("p", ONLY_EMOJI.test(text) ? "bubble emoji" : "bubble");
    bubble.dir = "auto";
    let from = 0;
    for (const match of text.matchAll(LINK)) {
      bubble.append(text.slice(from, match.index));
      const link = element("a", "", match[0]);
      link.href = match[0];
      link.target = "_blank";
      link.rel = "noopener noreferrer";
      bubble.append(link);
      from = match.index + match[0].length;
    }
    bubble.append(text.slice(from));
    return bubble;
  }
}

export function showPeople(people, me) {
  const rows = [...people.values()]
    .sort((a, b) => (b.id === me) - (a.id === me) || a.name.localeCompare(b.name))
    .map(({ id, name }) => {
      const row = element("li");
      row.dataset.id = id;
      const avatar = element("span", "avatar small");
      avatar.setAttribute("aria-hidden", "true");
      paintAvatar(avatar, id, name);
      row.append(avatar, element("bdi", "person", name));
      if (id === me) row.append(element("span", "you", "you"));
      return row;
    });
  $("people").replaceChildren(...rows);
  $("people-count").textContent = people.size;
  $("subtitle").textContent = people.size === 1 ? "Only you are here" : `${people.size} people here`;
}

export function showRooms(names, current, counts, go) {
  const rows = names.map((name) => {
    const row = element("li");
    const button = element("button", "", name);
    button.type = "button";
    button.dataset.room = name;
    if (name === current) button.setAttribute("aria-current", "page");
    if (counts[name]) {
      const count = element("span", "count", counts[name]);
      count.setAttribute("aria-label", `${counts[name]} here`);
      button.append(count);
    }
    button.addEventListener("click", () => go(name));
    row.append(button);
    return row;
  });
  const focused = $("rooms").contains(document.activeElement) ? document.activeElement.dataset.room : null;
  $("rooms").replaceChildren(...rows);
  rows[names.indexOf(focused)]?.firstChild.focus();
}

const STATES = { connecting: "Connecting", open: "Live", silent: "No answer", waiting: "Offline" };

export function showState(state) {
  $("state").dataset.state = state;
  $("state-text").textContent = STATES[state];
}

/** Small round badge on the tab's icon and a count in its title. */
export function showUnread(count, room) {
  document.title = `${count ? `(${count}) ` : ""}${room} · antiphon`;
}

export function namesOf(people) {
  const names = people.map(({ name }) => name);
  return new Intl.ListFormat("en", { type: "conjunction" }).format(names);
}
