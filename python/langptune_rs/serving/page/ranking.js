// The ranking: items that move, what a sentence does to them, and why an item is where it is.

import { isAbort } from "./api.js";
import { $, announce, count, foreign, isStill, keepingFocus, make, number, put, say, short } from "./dom.js";
import { rowsOfSentences } from "./editor.js";
import { LatestOnly } from "./latest.js";
import { PAGE, session } from "./session.js";

const LOOKING = 120; // milliseconds on a sentence before its effect is asked for
const MOVING = 280;
const WORDS = 6; // of a profile of one sentence, shown to explain an item

const rows = new Map(); // id of an item -> its row
const looking = new LatestOnly();
const explaining = new LatestOnly();
let effect = null; // {moves, kept} while a sentence is looked at
let opened = null; // id of the item that is explained
let fault = ""; // why the ranking is not that of the draft
let isSeen = false; // whether the ranking is on the screen

export function startRanking() {
  session.addEventListener("who", clear);
  session.addEventListener("busy", ({ detail }) => $("ranking").setAttribute("aria-busy", String(detail)));
  session.addEventListener("draft", () => lookAt(null));
  session.addEventListener("look", ({ detail }) => lookAt(detail));
  session.addEventListener("ranking", show);
  session.addEventListener("ranking-error", ({ detail }) => {
    fault = detail;
    $("ranking").classList.toggle("stale", fault !== "");
    showLines();
  });
  const watch = ([{ isIntersecting }]) => {
    isSeen = isIntersecting;
    showGlance();
  };
  new IntersectionObserver(watch, { rootMargin: "0px 0px -33%" }).observe($("ranking"));
  $("glance").addEventListener("click", () => {
    $("ranking-heading").scrollIntoView({ behavior: isStill() ? "auto" : "smooth" });
    $("ranking-heading").focus({ preventScroll: true });
  });
  $("ranking-more").addEventListener("click", () => session.showMore());
  $("count-from-here").addEventListener("click", () => {
    session.countFromHere();
    $("ranking-heading").focus();
  });
  $("ranking").addEventListener("keydown", (event) => {
    if (event.key !== "ArrowDown" && event.key !== "ArrowUp") return;
    const buttons = [...$("ranking").querySelectorAll(".item")];
    const place = buttons.indexOf(document.activeElement);
    if (place < 0) return;
    event.preventDefault();
    buttons[place + (event.key === "ArrowDown" ? 1 : -1)]?.focus();
  });
}

function clear() {
  rows.forEach(({ element }) => element.remove());
  rows.clear();
  closeWhy();
  show();
}

function show() {
  const { ranking } = session;
  effect = null;
  const items = ranking?.items ?? [];
  const isFirst = rows.size === 0;
  const tops = isStill() || isFirst ? null : topsOf();
  keepingFocus(() => placeRows(items));
  if (tops) animate(tops);
  showLeft(ranking?.left ?? []);
  showLines();
  showGlance();
  $("ranking-more").hidden = !ranking || items.length >= session.most;
  put($("ranking-more"), `Show ${Math.min(PAGE, session.info ? session.most - items.length : PAGE)} more`);
  const waits = session.who?.kind === "user" ? "this user" : "this history";
  say($("ranking-empty"), ranking || session.draft ? "" : `The ranking follows when ${waits} has a profile.`);
  if (!ranking) return;
  if (opened !== null && rows.has(opened)) explain(opened);
  else closeWhy();
  performance.clearMeasures("langptune:ranking");
  requestAnimationFrame(() =>
    setTimeout(() => {
      if (performance.getEntriesByName("langptune:edit").length) performance.measure("langptune:ranking", "langptune:edit");
      performance.clearMarks("langptune:edit");
    }),
  );
  if (!isFirst || ranking.isMoved) announce(summary(ranking), "moved");
}

function placeRows(items) {
  const ids = new Set(items.map(({ id }) => id));
  for (const [id, row] of rows) {
    if (!ids.has(id)) {
      row.element.remove();
      rows.delete(id);
    }
  }
  const list = $("ranking");
  items.forEach((item, place) => {
    if (!rows.has(item.id)) rows.set(item.id, makeRow(item));
    const row = rows.get(item.id);
    if (list.children[place] !== row.element) list.insertBefore(row.element, list.children[place] ?? null);
    row.show(item);
  });
}

function topsOf() {
  return new Map([...rows].map(([id, { element }]) => [id, element.getBoundingClientRect().top]));
}

/** Let rows that are seen slide from where they stood. */
function animate(tops) {
  for (const [id, { element }] of rows) {
    const now = element.getBoundingClientRect().top;
    if (now > innerHeight || now < -200) continue;
    const before = tops.get(id);
    if (before === undefined) {
      element.animate([{ opacity: 0 }, { opacity: 1 }], { duration: MOVING, easing: "ease-out" });
    } else if (before !== now) {
      const frames = [{ transform: `translateY(${before - now}px)` }, { transform: "none" }];
      element.animate(frames, { duration: MOVING, easing: "cubic-bezier(.2,.7,.2,1)" });
    }
  }
}

function makeRow({ id, title }) {
  const rank = make("span", { className: "rank" });
  const move = make("span", { className: "move" });
  const score = make("span", { className: "score" });
  const button = make(
    "button",
    { type: "button", className: "item", "aria-expanded": "false" },
    rank,
    make("span", { className: "title" }, foreign(title)),
    move,
    score,
  );
  const why = make("div", { className: "why", hidden: true });
  const element = make("li", { "data-id": id }, button, why);
  button.addEventListener("click", () => (opened === id ? closeWhy() : explain(id)));
  return {
    element,
    button,
    why,
    item: null,
    show(item) {
      this.item = item;
      put(rank, number(item.rank));
      put(score, item.score.toFixed(3));
      score.title = "Similarity of item and profile";
      this.showMove();
    },
    showMove() {
      const seen = effect ? effectWords(this.item) : moveWords(this.item);
      const key = JSON.stringify(seen);
      if (move.dataset.key === key) return;
      move.dataset.key = key;
      move.className = `move ${seen?.kind ?? ""}`;
      element.classList.toggle("lifted", effect !== null && seen?.kind === "up");
      element.classList.toggle("lowered", effect !== null && seen?.kind === "down");
      move.replaceChildren(
        ...(seen
          ? [
              make("span", { "aria-hidden": "true", className: "arrow", textContent: seen.arrow }),
              make("span", { "aria-hidden": "true", className: "from", textContent: seen.from }),
              make("span", { className: "hidden", textContent: `, ${seen.spoken}` }),
            ]
          : []),
      );
    },
  };
}

/** How an item's move since the base looks and sounds; null where nothing moved. */
function moveWords({ rank, before }) {
  if (before === undefined || before === rank) return null;
  const by = number(Math.abs(before - rank));
  const from = `was ${number(before)}`;
  if (before > session.ranking.items.length && rank <= session.ranking.items.length) {
    return { kind: "new up", arrow: `new ▲ ${by}`, from, spoken: `new in the list, up ${by}, ${from}` };
  }
  return before > rank
    ? { kind: "up", arrow: `▲ ${by}`, from, spoken: `up ${by}, ${from}` }
    : { kind: "down", arrow: `▼ ${by}`, from, spoken: `down ${by}, ${from}` };
}

/** The same for what the sentence does that is looked at. */
function effectWords({ id }) {
  const move = effect.moves.get(id);
  if (!move || move.rank_after === move.rank_before) return null;
  const lift = move.rank_after - move.rank_before;
  const by = number(Math.abs(lift));
  const from = `${number(move.rank_after)} without`;
  return lift > 0
    ? { kind: "up", arrow: `▲ ${by}`, from, spoken: `lifted ${by} by the sentence, ${from}` }
    : { kind: "down", arrow: `▼ ${by}`, from, spoken: `lowered ${by} by the sentence, ${from}` };
}

function showLines() {
  const { ranking, base } = session;
  $("count-from-here").hidden = !ranking || fault !== "" || (!ranking.isMoved && base !== null);
  if (!ranking) return put($("ranking-line"), "");
  if (fault) return put($("ranking-line"), "This is the ranking before the last change, which cannot be ranked by.");
  const many = `The ${number(ranking.items.length)} nearest of ${count(session.numRanked, "item")}.`;
  const moves = ranking.isMoved ? ` Moves since ${base.words}.` : "";
  put($("ranking-line"), many + moves);
}

/** Where the ranking is below the profile, its first items are seen beside what is edited. */
function showGlance() {
  const { ranking } = session;
  $("glance").hidden = !ranking || isSeen;
  if (!ranking) return;
  const first = ranking.items
    .slice(0, 3)
    .flatMap(({ rank, title }) => [`${rank > 1 ? " · " : ""}${number(rank)} `, foreign(short(title, 40))]);
  const moved = ranking.items.filter(({ before, rank }) => before !== undefined && before !== rank).length;
  $("glance-items").replaceChildren(...first);
  put($("glance-moves"), moved ? ` ${number(moved)} moved ↓` : " Ranking ↓");
}

function showLeft(left) {
  $("left").hidden = !left.length;
  $("left-list").replaceChildren(
    ...left.map(({ title, rank_before, rank_after }) =>
      make(
        "li",
        {},
        make("span", { className: "title" }, foreign(title)),
        make("span", { className: "places", "aria-hidden": "true", textContent: `${number(rank_before)} → ${number(rank_after)}` }),
        make("span", { className: "hidden", textContent: `, from ${number(rank_before)} to ${number(rank_after)}` }),
      ),
    ),
  );
}

function summary({ items, left, isMoved }) {
  const first = `First is ${items[0]?.title ?? "nothing"}.`;
  if (!isMoved) return `The ranking is up to date. ${first}`;
  const moved = items.filter(({ before, rank }) => before !== rank).length;
  return `${count(moved, "item has", "items have")} moved, ${number(left.length)} left the list. ${first}`;
}

// What a sentence does

async function lookAt(place) {
  const signal = looking.next();
  for (const { element } of rowsOfSentences()) element.classList.remove("looked");
  if (effect && place === null) {
    effect = null;
    rows.forEach((row) => row.showMove());
    showLines();
  }
  if (place === null || !session.ranking) return;
  await new Promise((resolve) => setTimeout(resolve, LOOKING));
  if (signal.aborted) return;
  try {
    const found = await session.effectOf(place, signal);
    if (signal.aborted) return;
    effect = found;
    rows.forEach((row) => row.showMove());
    const isAll = session.draft.pieces.length === 1;
    const which = isAll ? "Beside an empty text, this sentence" : `Sentence ${place + 1}`;
    const words = `${which} ${found ? effectSummary(found) : "counts ×0, so it does nothing."}`;
    put($("ranking-line"), words);
    announce(words, "looked");
    rowsOfSentences().forEach(({ element, note }, other) => {
      element.classList.toggle("looked", other === place);
      say(note, other === place ? words : "");
    });
  } catch (error) {
    if (!isAbort(error)) put($("ranking-line"), error.message);
  }
}

function effectSummary({ moves, kept }) {
  const shown = [...rows.values()].map(({ item }) => ({ item, move: moves.get(item.id) })).filter(({ move }) => move);
  const lift = ({ move }) => move.rank_after - move.rank_before;
  const lifted = shown.filter((entry) => lift(entry) > 0).sort((a, b) => lift(b) - lift(a));
  const lowered = shown.filter((entry) => lift(entry) < 0);
  if (!lifted.length && !lowered.length) return "moves none of these.";
  const most = lifted[0];
  const best = most
    ? `, most ${short(most.item.title)} from ${number(most.move.rank_after)} to ${number(most.move.rank_before)}`
    : "";
  const out = kept.length ? ` It keeps out ${short(kept[0].title)}${kept.length > 1 ? ` and ${kept.length - 1} more` : ""}.` : "";
  return `lifts ${lifted.length} of these${best}, and lowers ${lowered.length}.${out}`;
}

// Why an item is there

function closeWhy() {
  explaining.stop();
  const row = rows.get(opened);
  opened = null;
  if (!row) return false;
  row.why.hidden = true;
  row.button.setAttribute("aria-expanded", "false");
  row.element.classList.remove("open");
  return true;
}

export function closeOpened() {
  const row = rows.get(opened);
  const hadFocus = row?.element.contains(document.activeElement);
  const wasOpen = closeWhy();
  if (hadFocus) row.button.focus();
  return wasOpen;
}

async function explain(id) {
  if (opened !== id) closeWhy();
  opened = id;
  const signal = explaining.next();
  const row = rows.get(id);
  row.button.setAttribute("aria-expanded", "true");
  row.element.classList.add("open");
  if (row.why.hidden) row.why.replaceChildren(make("p", { className: "hint", textContent: "Looking why…" }));
  row.why.hidden = false;
  try {
    const found = await session.explain(id, signal);
    if (signal.aborted) return;
    row.why.replaceChildren(...whyOf(found));
  } catch (error) {
    if (!isAbort(error)) row.why.replaceChildren(make("p", { className: "error", role: "alert", textContent: error.message }));
  }
}

function whyOf({ by, item, num_ranked, parts, history }) {
  const strongest = [...parts].sort((one, other) => Math.abs(other.effect) - Math.abs(one.effect));
  const shown = by === "word" ? strongest.slice(0, WORDS) : parts;
  const greatest = Math.abs(strongest[0]?.effect ?? 0) || 1;
  const heading = (text) => make("th", { scope: "col", textContent: text });
  const isSigned = shown.some(({ effect }) => effect < 0);
  const name = by === "word" ? "Word" : "Sentence";
  const caption = by === "word" ? "The words that do most to this item" : "What each sentence does to this item";
  const table = make(
    "table",
    { className: isSigned ? "signed" : "" },
    make("caption", { className: "hidden", textContent: caption }),
    make("thead", {}, make("tr", {}, heading(name), heading("Effect"), heading("Rank without"))),
    make("tbody", {}, ...shown.map((part) => partRow(part, item.rank, (isSigned ? 50 : 100) / greatest))),
  );
  const rank = `Rank ${number(item.rank)} of ${number(num_ranked)}, similarity ${item.score.toFixed(3)}.`;
  const nearest = make(
    "ul",
    { className: "nearest" },
    ...history.slice(0, 5).map(({ title, similarity }) =>
      make(
        "li",
        {},
        make("span", { className: "title" }, foreign(title)),
        make("span", { className: "score", textContent: similarity.toFixed(3) }),
      ),
    ),
  );
  return [
    make("p", { className: "hint", textContent: rank }),
    table,
    ...(history.length ? [make("h3", { textContent: "Nearest in the history" }), nearest] : []),
  ];
}

function partRow({ text, effect, rank_without }, rank, percent) {
  const bar = make("span", { className: `bar ${effect < 0 ? "minus" : "plus"}`, "aria-hidden": "true" });
  bar.style.inlineSize = `${percent * Math.abs(effect)}%`;
  const signed = `${effect < 0 ? "−" : "+"}${Math.abs(effect).toFixed(3)}`;
  return make(
    "tr",
    {},
    make("th", { scope: "row" }, foreign(text, "span")),
    make("td", {}, make("span", { className: "bars", "aria-hidden": "true" }, bar), make("span", { textContent: signed })),
    make("td", { textContent: number(rank_without), className: rank_without === rank ? "faint" : "" }),
  );
}
