// The profile on the page: its sentences, its whole text, the wishes beside it, and what the policy proposes.

import { ApiError, isAbort } from "./api.js";
import { $, announce, foreign, keepingFocus, make, number, put, say, weight as weightWords } from "./dom.js";
import * as drafts from "./draft.js";
import { showDiff } from "./diff.js";
import { session } from "./session.js";

const rows = new Map(); // key of a piece -> its row
const wishRows = new Map();
const pointer = { x: 0, y: 0, xEdited: -99, yEdited: -99 };
const AWAY = 8; // pixels from where the pointer was at an edit, before it points at something again
let isMovingFocus = false;
let writing = null; // what stops the policy

export function startEditor(nameOf) {
  addEventListener("pointermove", ({ clientX, clientY }) => Object.assign(pointer, { x: clientX, y: clientY }));
  session.addEventListener("draft", ({ detail }) => {
    Object.assign(pointer, { xEdited: pointer.x, yEdited: pointer.y });
    show(detail);
  });
  session.addEventListener("who", () => {
    writing?.abort();
    closeProposal();
    say($("policy-error"), "");
    say($("wish-error"), "");
    $("work").hidden = false;
    showPolicy();
  });
  session.addEventListener("info", showPolicy);
  session.addEventListener("ranking", () => {
    say($("unread"), session.ranking?.unread ? unreadWords(session.ranking.unread) : "");
    if (!document.activeElement.closest(".sentence")) session.settle();
  });
  session.addEventListener("ranking-error", ({ detail }) => say($("profile-error"), detail));
  for (const radio of document.getElementsByName("view")) radio.addEventListener("change", showView);

  $("add-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const text = $("add-field").value.trim();
    if (!text) return;
    session.change(drafts.add(session.draft ?? drafts.empty(), text));
    $("add-field").value = "";
  });
  $("text-field").addEventListener("input", () => {
    session.change(drafts.replace(session.draft ?? drafts.empty(), $("text-field").value), "text");
  });
  $("text-field").addEventListener("blur", () => session.settle());
  $("wish-form").addEventListener("submit", addWish);
  $("instruct-form").addEventListener("submit", (event) => {
    event.preventDefault();
    propose();
  });
  $("write").addEventListener("click", () => write(nameOf));
  $("write-first").addEventListener("click", () => write(nameOf));
  $("writing-cancel").addEventListener("click", () => writing?.abort());
  $("proposal-take").addEventListener("click", takeProposal);
  $("proposal-discard").addEventListener("click", () => {
    closeProposal();
    $("instruct-field").focus();
  });
}

const unreadWords = (text) =>
  `The embedder reads no more than the beginning of this text. It does not see: “${text.length > 200 ? `…${text.slice(-200)}` : text}”`;

function show(why) {
  const { draft } = session;
  keepingFocus(() => {
    for (const { note } of rows.values()) if (why !== "settled") say(note, "");
    showSentences(draft?.pieces ?? []);
    showWishes(draft?.wishes ?? {});
  });
  const field = $("text-field");
  if (why !== "typed" || document.activeElement !== field) {
    if (field.value !== session.text) field.value = session.text;
  }
  showView();
  showCount();
  showEmpty();
  if (why === "opened") {
    $("wishes-box").open = Object.keys(draft?.wishes ?? {}).length > 0;
  }
}

function showView() {
  const isText = $("view-text").checked;
  $("sentences-view").hidden = isText;
  $("text-view").hidden = !isText;
  if (!isText) session.settle();
}

function showCount() {
  const [length, most] = [drafts.length(session.text), session.info.limits.profile_characters];
  put($("profile-count"), length > most * 0.8 ? `${number(length)} of ${number(most)} characters` : "");
}

function showEmpty() {
  const { who } = session;
  const whose = who.kind === "user" ? "This user has" : "This history has";
  const { has_policy } = session.info;
  const how = has_policy
    ? "Let the policy write one from the history, or begin with a sentence of your own."
    : "This run has no policy to write one: begin with a sentence of your own.";
  const isNone = session.draft === null;
  $("no-profile").hidden = !isNone;
  $("write-first").hidden = !has_policy;
  put($("no-profile-text"), `${whose} no profile yet. ${how}`);
  $("wishes-box").hidden = $("policy-box").hidden = $("profile-hint").hidden = isNone;
}

// Sentences

function showSentences(pieces) {
  const keys = new Set(pieces.map(({ key }) => key));
  for (const [key, row] of rows) {
    if (!keys.has(key)) {
      row.element.remove();
      rows.delete(key);
    }
  }
  pieces.forEach((piece, place) => {
    if (!rows.has(piece.key)) rows.set(piece.key, makeRow(piece.key));
    const row = rows.get(piece.key);
    const list = $("sentences");
    if (list.children[place] !== row.element) list.insertBefore(row.element, list.children[place] ?? null);
    row.show(piece, place, pieces.length);
  });
}

const placeOf = (key) => {
  const place = session.draft?.pieces.findIndex((piece) => piece.key === key) ?? -1;
  return place < 0 ? null : place;
};

function makeRow(key) {
  const text = make("textarea", { rows: 1, dir: "auto" });
  const grow = make("div", { className: "grow" }, text);
  const less = make("button", { type: "button", textContent: "−" });
  const much = make("span", { className: "weight" });
  const more = make("button", { type: "button", textContent: "+" });
  const drop = make("button", { type: "button", className: "drop", textContent: "×" });
  const tools = make("div", { className: "tools", role: "group" }, less, much, more, drop);
  const note = make("p", { className: "effect-note", hidden: true });
  const element = make("li", { className: "sentence", "data-key": key }, grow, tools, note);

  const weigh = (by) => {
    const place = placeOf(key);
    const weight = drafts.step(drafts.WEIGHTS, session.draft.pieces[place].weight ?? 1, by);
    if (weight === session.draft.pieces[place].weight) return;
    session.change(drafts.weigh(session.draft, place, weight));
    announce(`Sentence ${place + 1} counts ${weightWords(weight)}.`);
  };
  const remove = () => {
    const place = placeOf(key);
    session.change(drafts.remove(session.draft, place));
    announce(`Sentence ${place + 1} is removed.`);
    isMovingFocus = true; // what moved in the list is to be seen now, not what the next sentence does
    focusSentence(Math.min(place, session.draft.pieces.length - 1));
    isMovingFocus = false;
  };
  less.addEventListener("click", () => weigh(-1));
  more.addEventListener("click", () => weigh(1));
  drop.addEventListener("click", remove);
  text.addEventListener("input", () => {
    grow.dataset.text = text.value;
    session.change(drafts.rewrite(session.draft, placeOf(key), text.value), `sentence ${key}`);
  });
  text.addEventListener("keydown", (event) => {
    const isEnter = event.key === "Enter" && !event.shiftKey && !event.isComposing;
    if (isEnter) {
      event.preventDefault();
      const place = placeOf(key);
      if (place + 1 < session.draft.pieces.length) focusSentence(place + 1);
      else $("add-field").focus();
    } else if (event.altKey && (event.key === "ArrowUp" || event.key === "ArrowDown")) {
      event.preventDefault();
      weigh(event.key === "ArrowUp" ? 1 : -1);
    } else if ((event.altKey && event.key === "Delete") || (event.key === "Backspace" && !text.value)) {
      event.preventDefault();
      remove();
    }
  });
  const look = (isLooking) => session.dispatchEvent(new CustomEvent("look", { detail: isLooking ? placeOf(key) : null }));
  let isPointedAt = false;
  const point = ({ pointerType, clientX, clientY }) => {
    // A row that comes under a resting pointer, because an edit moved it, is not what a person points at.
    const isAway = Math.hypot(clientX - pointer.xEdited, clientY - pointer.yEdited) > AWAY;
    if (pointerType !== "mouse" || isPointedAt || !isAway) return;
    isPointedAt = true;
    look(true);
  };
  element.addEventListener("pointerenter", point);
  element.addEventListener("pointermove", point);
  element.addEventListener("pointerleave", ({ pointerType }) => {
    if (pointerType === "mouse") look((isPointedAt = false));
  });
  element.addEventListener("focusin", (event) => {
    if (!element.contains(event.relatedTarget) && !isMovingFocus) look(true);
  });
  element.addEventListener("focusout", (event) => {
    if (element.contains(event.relatedTarget)) return;
    look(false);
    const place = placeOf(key);
    if (place === null) return;
    if (!text.value.trim() && session.draft.pieces.length > 1) session.change(drafts.remove(session.draft, place));
    session.settle();
  });

  return {
    element,
    show(piece, place, total) {
      if (text.value !== piece.text) text.value = piece.text;
      grow.dataset.text = piece.text;
      const weight = piece.weight ?? 1;
      const name = `Sentence ${place + 1}`;
      text.setAttribute("aria-label", `${name} of ${total}`);
      tools.setAttribute("aria-label", name);
      put(much, weightWords(weight));
      const isPlain = weight === 1;
      much.classList.toggle("plain", isPlain);
      element.classList.toggle("off", weight === 0);
      less.setAttribute("aria-label", `Let sentence ${place + 1} count less, now ${weightWords(weight)}`);
      more.setAttribute("aria-label", `Let sentence ${place + 1} count more, now ${weightWords(weight)}`);
      less.disabled = weight <= drafts.WEIGHTS[0] && document.activeElement !== less;
      more.disabled = weight >= drafts.WEIGHTS.at(-1) && document.activeElement !== more;
      drop.setAttribute("aria-label", `Remove sentence ${place + 1}`);
      drop.title = "Remove";
    },
    note,
  };
}

/** The rows of the sentences, in their order. */
export const rowsOfSentences = () => (session.draft?.pieces ?? []).map(({ key }) => rows.get(key));

function focusSentence(place) {
  const key = session.draft.pieces[place]?.key;
  const field = key === undefined ? $("add-field") : rows.get(key).element.querySelector("textarea");
  field.focus();
}

// Wishes

function addWish(event) {
  event.preventDefault();
  const text = $("wish-field").value.trim();
  const { name_characters: longest, requests } = session.info.limits;
  const draft = session.draft ?? drafts.empty();
  say($("wish-error"), "");
  if (!text) return say($("wish-error"), "Write what there should be more or less of.");
  if (drafts.length(text) > longest) return say($("wish-error"), `A wish has at most ${longest} characters.`);
  if (!Object.hasOwn(draft.wishes, text) && Object.keys(draft.wishes).length >= requests) {
    return say($("wish-error"), `A profile has at most ${requests} wishes: remove one first.`);
  }
  if (!session.text.trim()) return say($("wish-error"), "Write a sentence first: a wish stands beside a profile.");
  session.change(drafts.wish(draft, text, 0.5 * Number($("wish-sign").value)));
  $("wish-field").value = "";
}

function showWishes(wishes) {
  const entries = Object.entries(wishes);
  put($("wishes-count"), entries.length ? ` (${entries.length})` : "");
  for (const [text, row] of wishRows) {
    if (!Object.hasOwn(wishes, text)) {
      row.element.remove();
      wishRows.delete(text);
    }
  }
  for (const [text, weight] of entries) {
    if (!wishRows.has(text)) {
      const row = makeWish(text);
      wishRows.set(text, row);
      $("wishes").append(row.element);
    }
    wishRows.get(text).show(weight);
  }
}

function makeWish(text) {
  const sign = make("span", { className: "sign" });
  const less = make("button", { type: "button", textContent: "−" });
  const much = make("span", { className: "weight" });
  const more = make("button", { type: "button", textContent: "+" });
  const drop = make("button", { type: "button", className: "drop", textContent: "×", title: "Remove" });
  const tools = make("div", { className: "tools", role: "group", "aria-label": "The wish's weight" }, less, much, more, drop);
  const element = make("li", { className: "wish" }, make("p", {}, sign, " ", foreign(text)), tools);
  const weigh = (by) => {
    const weight = drafts.step(drafts.WISH_WEIGHTS, session.draft.wishes[text], by);
    if (weight === session.draft.wishes[text]) return;
    session.change(drafts.wish(session.draft, text, weight));
    announce(`${signOf(weight)} ${text}, ${weightWords(Math.abs(weight))}.`);
  };
  const remove = () => {
    session.change(drafts.wish(session.draft, text, 0));
    announce("The wish is removed.");
    $("wish-field").focus();
  };
  less.addEventListener("click", () => weigh(-1));
  more.addEventListener("click", () => weigh(1));
  drop.addEventListener("click", remove);
  element.addEventListener("keydown", (event) => {
    if (!event.altKey || !["ArrowUp", "ArrowDown", "Delete"].includes(event.key)) return;
    event.preventDefault();
    if (event.key === "Delete") remove();
    else weigh(event.key === "ArrowUp" ? 1 : -1);
  });
  less.setAttribute("aria-label", `Less of ${text}`);
  more.setAttribute("aria-label", `More of ${text}`);
  drop.setAttribute("aria-label", `Remove the wish ${text}`);
  return {
    element,
    show(weight) {
      put(sign, signOf(weight));
      put(much, weightWords(Math.abs(weight)));
    },
  };
}

const signOf = (weight) => (weight < 0 ? "Less of" : "More of");

// The policy

function showPolicy() {
  const { has_policy } = session.info;
  $("policy-tools").hidden = !has_policy;
  const why = "This run has no policy: it trained an embedder alone. It ranks by any profile, and writes none.";
  say($("policy-none"), has_policy ? "" : why);
  const kept = "What it writes is saved as the next version; the others stay among the versions.";
  put($("write-hint"), session.who?.kind === "history" ? "What it writes takes the place of the text. Undo brings yours back." : kept);
}

/** Wait for a text of the policy, with the seconds that it takes and a way to stop it. */
async function whileWriting(words, work) {
  writing?.abort();
  const controller = (writing = new AbortController());
  const start = Date.now();
  const tick = () => put($("writing-seconds") ?? $("writing-text"), `${Math.round((Date.now() - start) / 1000)} s`);
  // The seconds stand apart, so that a screen reader does not read the sentence anew each second.
  $("writing-text").replaceChildren(`${words} `, make("span", { id: "writing-seconds", "aria-hidden": "true" }));
  $("writing").hidden = false;
  say($("policy-error"), "");
  tick();
  const clock = setInterval(tick, 1000);
  try {
    return await work(controller.signal);
  } catch (error) {
    if (isAbort(error)) announce("Stopped. Nothing was changed.");
    else if (!(error instanceof ApiError)) throw error;
    else if (error.type !== "conflict") say($("policy-error"), error.message);
    return undefined;
  } finally {
    clearInterval(clock);
    if (writing === controller) {
      writing = null;
      $("writing").hidden = true;
    }
  }
}

export function stopWriting() {
  writing?.abort();
  return writing !== null;
}

async function write(nameOf) {
  await whileWriting("The policy writes the profile…", (signal) => session.writeProfile(nameOf(), signal));
}

let proposed = null;

async function propose() {
  const instruction = $("instruct-field").value.trim();
  if (!instruction) return say($("policy-error"), "Write what to change, such as “less horror”.");
  if (!session.text.trim()) return say($("policy-error"), "There is no profile to change yet.");
  closeProposal();
  const before = session.text;
  const profile = await whileWriting("The policy writes a proposal…", (signal) => session.propose(instruction, signal));
  if (!profile) return;
  proposed = profile.text;
  const isSame = proposed.trim() === before.trim();
  put($("proposal-heading"), isSame ? "The policy proposes no change" : "The policy proposes");
  if (isSame) {
    $("proposal-diff").textContent = "It wrote the text again as it is. Say it in other words, or change the sentences yourself.";
  } else {
    showDiff($("proposal-diff"), before, proposed);
  }
  $("proposal-take").hidden = isSame;
  put($("proposal-discard"), isSame ? "Close" : "Discard");
  $("proposal").hidden = false;
  $("proposal").focus();
}

function takeProposal() {
  session.change(drafts.replace(session.draft, proposed));
  closeProposal();
  $("profile-heading").focus();
  announce("The proposal is your draft now. Save keeps it, undo takes it back.");
}

export function closeProposal() {
  const wasOpen = !$("proposal").hidden;
  $("proposal").hidden = true;
  proposed = null;
  return wasOpen;
}
