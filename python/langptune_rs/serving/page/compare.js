// This profile's list beside those of the untrained policy's profile and of the most popular items.

import { ApiError, change, isAbort, rank, read, userPath } from "./api.js";
import { $, foreign, make, number, put } from "./dom.js";
import { besideWords } from "./draft.js";
import { LatestOnly } from "./latest.js";
import { session } from "./session.js";

const K = 10;

const loading = new LatestOnly();
let columns = null;
let others = []; // the other two columns' items, to be marked anew when the ranking changes

export function startCompare() {
  $("compare-toggle").addEventListener("click", () => toggle($("compare-columns").hidden));
  session.addEventListener("who", () => {
    $("compare").hidden = false;
    toggle(false);
  });
  session.addEventListener("ranking", () => {
    if (columns) showMine();
  });
  session.addEventListener("info", ({ detail }) => {
    if (detail && columns) toggle(true);
  });
}

function toggle(isOpen) {
  loading.stop();
  columns = null;
  others = [];
  $("compare-columns").hidden = !isOpen;
  $("compare-toggle").setAttribute("aria-expanded", String(isOpen));
  put($("compare-toggle"), isOpen ? "Hide" : "Show");
  if (isOpen) open();
}

function open() {
  columns = {
    mine: makeColumn("This profile"),
    untrained: makeColumn("The untrained policy’s profile"),
    popular: makeColumn("Most popular"),
  };
  $("compare-columns").replaceChildren(...Object.values(columns).map(({ element }) => element));
  const signal = loading.next();
  showMine();
  fill(columns.popular, () => popular(signal));
  if (session.info.has_policy) fill(columns.untrained, () => untrained(signal));
  else columns.untrained.say("This run has no policy, so there is none that was not trained.");
}

function makeColumn(title) {
  const text = make("p", { className: "hint", textContent: "Asking…" });
  const list = make("ol", { className: "items plain" });
  const element = make("section", { className: "column" }, make("h3", { textContent: title }), text, list);
  return {
    element,
    say(words, kind = "hint") {
      text.className = kind;
      text.replaceChildren(...[words].flat());
    },
    show(words, items) {
      this.say(words, typeof words === "string" ? "hint" : "quote");
      list.replaceChildren(...items.map((item) => entryOf(item)));
      this.mark();
    },
    mark() {
      for (const entry of list.children) {
        const place = session.ranking?.items.find(({ id }) => id === entry.dataset.id)?.rank;
        put(entry.querySelector(".here"), this === columns?.mine || !place ? "" : `${number(place)} here`);
      }
    },
  };
}

function entryOf({ id, title, rank: place }) {
  return make(
    "li",
    { "data-id": id },
    make("span", { className: "rank", textContent: number(place) }),
    make("span", { className: "title" }, foreign(title)),
    make("span", { className: "here" }),
  );
}

function showMine() {
  const { ranking } = session;
  if (ranking) columns.mine.show([foreign(ranking.profile.text), besideWords(ranking.profile)], ranking.items.slice(0, K));
  else columns.mine.show("There is no profile yet.", []);
  for (const column of others) column.mark();
}

async function fill(column, work) {
  try {
    const [words, items] = await work();
    others.push(column);
    column.show(words, items);
  } catch (error) {
    if (isAbort(error)) return;
    if (!(error instanceof ApiError)) throw error;
    column.say(error.message, "error");
    const again = make("button", { type: "button", textContent: "Try again" });
    again.addEventListener("click", () => {
      again.remove();
      column.say("Asking…");
      fill(column, work);
    });
    column.element.append(again);
  }
}

async function popular(signal) {
  const { items } = await read("popular", { k: K, ...session.without }, signal);
  return ["What most people chose, the same for everyone.", items];
}

async function untrained(signal) {
  columns.untrained.say("The untrained policy writes its profile. That takes some seconds…");
  const { who } = session;
  const { profile } =
    who.kind === "user"
      ? await change("GET", userPath(who.id, "/profile/untrained"), undefined, signal)
      : await change("POST", "profile", { history: session.historyBody(), policy: "untrained" }, signal);
  const body = { profile: { text: profile.text }, k: K, ...session.without };
  return [foreign(profile.text), (await rank("recommend", body, signal)).items];
}
