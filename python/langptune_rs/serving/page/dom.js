// Small helpers around the document. All text goes in as text: nothing here takes markup.

export const $ = (id) => document.getElementById(id);

/** An element with properties, attributes (`aria-…`, `data-…`, `role`, `for`, `dir`) and children; texts stay texts. */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (name in element && !name.startsWith("aria")) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

/** Text that came from a server or a person: it runs in its own direction. */
export const foreign = (text, tag = "bdi") => make(tag, { dir: "auto", textContent: text });

/** Show a sentence in its place, or nothing. */
export function say(element, text) {
  element.textContent = text;
  element.hidden = !text;
}

/** Set a text only where it changes, so that screen readers do not read it again. */
export function put(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

const sayings = new Map();
let announcing = 0;

/** Have a screen reader say a sentence, once nothing newer came for a moment. Of each kind the newest is said. */
export function announce(text, kind = "done") {
  sayings.delete(kind);
  sayings.set(kind, text);
  clearTimeout(announcing);
  announcing = setTimeout(() => {
    $("announcer").textContent = [...sayings.values()].join(" ");
    sayings.clear();
  }, 600);
}

/** Run something that keeps the focus and the caret where they are, though it moves elements. */
export function keepingFocus(work) {
  const focused = document.activeElement;
  work();
  if (focused && focused !== document.activeElement && focused.isConnected) focused.focus({ preventScroll: true });
}

export const isStill = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

const numbers = new Intl.NumberFormat("en");
export const count = (number, one, many = `${one}s`) => `${numbers.format(number)} ${number === 1 ? one : many}`;
export const number = (value) => numbers.format(value);
export const weight = (value) => `×${numbers.format(value)}`;

const times = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
export const time = (iso) => make("time", { dateTime: iso, textContent: times.format(new Date(iso)) });

/** A text on one line, cut at a length. */
export function short(text, length = 60) {
  const line = text.replace(/\s+/gu, " ").trim();
  const points = Array.from(line);
  return points.length > length ? `${points.slice(0, length - 1).join("")}…` : line;
}
