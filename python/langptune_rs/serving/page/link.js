// The state of the page in the fragment of its address.
//
// `#user=42` is a user and nothing more. `state=` is what differs from what the server knows: JSON, compressed, in the
// alphabet of addresses. A link may come from anybody, so `read` takes nothing but what it expects.

import { WEIGHTS } from "./draft.js";

export const LONGEST = 8000;
const MOST = WEIGHTS.at(-1); // that a sentence or a wish can weigh

const pump = (bytes, stream) => new Response(new Blob([bytes]).stream().pipeThrough(stream));

async function pack(value) {
  const bytes = new TextEncoder().encode(JSON.stringify(value));
  const small = new Uint8Array(await pump(bytes, new CompressionStream("deflate-raw")).arrayBuffer());
  const letters = Array.from(small, (byte) => String.fromCharCode(byte)).join("");
  return btoa(letters).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/u, "");
}

async function unpack(text) {
  const letters = atob(text.replaceAll("-", "+").replaceAll("_", "/"));
  const bytes = Uint8Array.from(letters, (letter) => letter.charCodeAt(0));
  return JSON.parse(await pump(bytes, new DecompressionStream("deflate-raw")).text());
}

/**
 * The fragment of a state `{user, version, text, weights: [[number, weight]], wishes: {}, history: [[id, rating]]}`.
 * All but one of user and history is optional.
 */
export async function write({ user, ...rest }) {
  const fields = Object.entries(rest).filter(([, value]) => value !== undefined);
  const parts = user === undefined ? [] : [`user=${encodeURIComponent(user)}`];
  if (fields.length) parts.push(`state=${await pack(Object.fromEntries(fields))}`);
  return parts.join("&");
}

/** The state of a fragment; null for an empty one. Throws an error that says what is wrong. */
export async function read(fragment) {
  const fields = new URLSearchParams(fragment.replace(/^#/u, "").replaceAll("+", "%2B"));
  const [user, packed] = [fields.get("user"), fields.get("state")];
  if (user === null && packed === null) return null;
  if (packed === null) return { user };
  try {
    return { ...checked(await unpack(packed)), ...(user === null ? {} : { user }) };
  } catch {
    throw new Error("This link is broken: a part of it is missing or has been changed. Ask for it again.");
  }
}

const isText = (value) => typeof value === "string";
const isWeight = (value, least) => isNumber(value) && least <= value && value <= MOST;
const isNumber = (value) => typeof value === "number" && Number.isFinite(value);

function checked(state) {
  const { version, text, weights, wishes, history } = state;
  const isRight =
    (version === undefined || Number.isInteger(version)) &&
    (text === undefined || isText(text)) &&
    (weights === undefined || weights.every(([number, weight]) => Number.isInteger(number) && isWeight(weight, 0))) &&
    (wishes === undefined || Object.values(wishes).every((weight) => isWeight(weight, -MOST))) &&
    (history === undefined || history.every(([id, rating]) => isText(id) && (rating === null || isNumber(rating))));
  if (!isRight) throw new TypeError("not a state");
  return { version, text, weights, wishes, history };
}
