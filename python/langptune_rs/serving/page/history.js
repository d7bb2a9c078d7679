// A history that a person pastes: its lines, and the items of the catalog that they name.

import { read } from "./api.js";

const AT_ONCE = 6;

/** Lines as `{line, name, rating}`; what follows the last bar, tab or semicolon is the rating if it is a number. */
export function linesOf(text) {
  return text.split(/\r?\n/u).flatMap((whole, place) => {
    const found = /^(.*\S)\s*[|\t;]\s*(-?\d+(?:[.,]\d+)?)\s*$/u.exec(whole);
    const name = (found ? found[1] : whole).trim();
    const rating = found ? Number(found[2].replace(",", ".")) : null;
    return name ? [{ line: place + 1, name, rating }] : [];
  });
}

/**
 * The items that lines name, and what is wrong with the others.
 *
 * Returns `{items: [{id, title, rating, review}], problems: [{line, name, why, near: [title]}]}`.
 */
export async function resolve(lines, info, signal) {
  const found = Array(lines.length);
  const left = lines.keys();
  const work = async () => {
    for (const place of left) found[place] = await find(lines[place].name, info, signal);
  };
  await Promise.all(Array.from({ length: AT_ONCE }, work));

  const [items, problems, seen] = [[], [], new Map()];
  lines.forEach(({ line, name, rating }, place) => {
    const { item, near = [], why } = found[place];
    const problem = (why, near = []) => problems.push({ line, name, why, near });
    if (!item) return problem(why, near);
    if (seen.has(item.id)) return problem(`is the item of line ${seen.get(item.id)} again, and is used once.`);
    seen.set(item.id, line);
    const { low, high } = info.rating_scale;
    const isOnScale = rating === null || (rating >= low && rating <= high);
    if (!isOnScale) problem(`has the rating ${rating}, which is not from ${low} to ${high}. It is used without one.`);
    items.push({ id: item.id, title: item.title, rating: isOnScale ? rating : null, review: null });
  });
  return { items, problems };
}

const folded = (text) => text.normalize("NFC").toLowerCase();
const withoutYear = (title) => folded(title).replace(/\s*\(\d{4}\)$/u, "");

async function find(name, info, signal) {
  if (Array.from(name).length > info.limits.name_characters) return { why: "is too long for a title." };
  const { items } = await read("items", { query: name, limit: 100 }, signal);
  const exact = items.find(({ id }) => id === name) ?? items.find(({ title }) => folded(title) === folded(name));
  if (exact) return { item: exact };
  for (const isMeant of [(title) => withoutYear(title) === folded(name), (title) => folded(title).startsWith(folded(name))]) {
    const meant = items.filter(({ title }) => isMeant(title));
    if (meant.length === 1) return { item: meant[0] };
  }
  if (items.length) return { why: "may be one of several items:", near: byLikeness(name, items.map(({ title }) => title)).slice(0, 5) };
  const near = await nearest(name, signal);
  return { why: near.length ? "is no item of the catalog. Nearest:" : "is no item of the catalog.", near };
}

/** Titles near to a name that no title holds, among those that share a word with it, or a part of one. */
async function nearest(name, signal) {
  const words = [...new Set(folded(name).match(/[\p{L}\p{N}]{3,}/gu) ?? [])].slice(0, 6);
  const found = (await Promise.all(words.map((word) => titlesNear(word, signal)))).flat();
  return byLikeness(name, found.filter((title) => similarity(name, title) > 0.4)).slice(0, 3);
}

const byLikeness = (name, titles) =>
  [...new Set(titles)].sort((one, other) => similarity(name, other) - similarity(name, one));

async function titlesNear(word, signal) {
  const whole = await titlesWith(word, signal);
  if (whole.length || word.length < 5) return whole;
  const parts = [0, (word.length - 4) >> 1, word.length - 4].map((start) => word.slice(start, start + 4));
  return (await Promise.all(parts.map((part) => titlesWith(part, signal)))).flat();
}

async function titlesWith(text, signal) {
  return (await read("items", { query: text, limit: 100 }, signal)).items.map(({ title }) => title);
}

/** Share of the pairs of letters that two texts have in common (Dice); years do not make titles alike. */
export function similarity(one, other) {
  const pairs = (text) => {
    const letters = Array.from(withoutYear(text));
    return new Set(letters.slice(1).map((letter, place) => letters[place] + letter));
  };
  const [a, b] = [pairs(one), pairs(other)];
  return (2 * [...a].filter((pair) => b.has(pair)).length) / (a.size + b.size || 1);
}
