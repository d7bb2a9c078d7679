// Saving a profile, its versions, and what happens when two people save at once.

import { ApiError, isAbort, read, userPath } from "./api.js";
import { $, announce, foreign, make, put, say, short, time } from "./dom.js";
import { showDiff } from "./diff.js";
import { besideWords } from "./draft.js";
import { session } from "./session.js";

const AT_ONCE = 20;

let shown = []; // versions, the newest first
let isWhole = false;

export function startVersions(nameOf) {
  const failing = (place, work) => async () => {
    say($(place), "");
    try {
      await work();
    } catch (error) {
      if (isAbort(error)) return;
      if (!(error instanceof ApiError)) throw error;
      if (error.type !== "conflict") say($(place), error.message);
    }
  };
  const save = failing("save-error", async () => {
    if (session.who?.kind !== "user" || !session.isChanged || session.conflict) return;
    if (session.fault) return say($("save-error"), session.fault);
    $("save").setAttribute("aria-busy", "true");
    try {
      const version = await session.save(nameOf());
      if (version) put($("save-status"), `Saved as version ${version.number}.`);
    } finally {
      $("save").removeAttribute("aria-busy");
    }
  });
  $("save").addEventListener("click", save);
  $("undo").addEventListener("click", () => session.undo());
  $("redo").addEventListener("click", () => session.redo());
  $("discard").addEventListener("click", () => {
    session.discard();
    announce("The changes are discarded. Undo brings them back.");
  });
  $("undo-version").addEventListener(
    "click",
    failing("versions-error", async () => told(await session.undoVersion(nameOf()), "Taken back")),
  );
  $("versions").addEventListener("click", (event) => {
    const number = Number(event.target.closest("[data-restore]")?.dataset.restore);
    if (number) failing("versions-error", async () => told(await session.restore(number, nameOf()), "Restored"))();
  });
  $("versions-more").addEventListener("click", failing("versions-error", () => load(true)));
  $("versions-box").addEventListener("toggle", failing("versions-error", () => load(false)));
  $("conflict-keep").addEventListener("click", () => settle(false));
  $("conflict-take").addEventListener("click", () => settle(true));

  session.addEventListener("who", () => {
    for (const place of ["save-error", "versions-error"]) say($(place), "");
    put($("save-status"), "");
    showActions();
  });
  session.addEventListener("saved", () => {
    showVersion();
    showConflict();
    failing("versions-error", () => load(false))();
  });
  session.addEventListener("draft", ({ detail }) => {
    if (detail === "typed" || detail === "edited") {
      put($("save-status"), "");
      say($("save-error"), "");
    }
    showActions();
  });
  session.addEventListener("ranking", showActions);
  session.addEventListener("conflict", () => {
    showConflict();
    $("conflict").focus();
  });
  document.addEventListener("visibilitychange", () => {
    if (document.visibilityState === "visible") failing("save-error", () => session.lookForOthers())();
  });
  return save;
}

function told(version, word) {
  if (version) put($("save-status"), `${word}: version ${version.number} is version ${version.restores ?? "—"} again.`);
}

function showActions() {
  const isUser = session.who?.kind === "user";
  const { isChanged, current, draft, past, future } = session;
  // A disabled button loses the focus, so these say that they cannot be used and stay.
  const enable = (id, can) => $(id).setAttribute("aria-disabled", String(!can));
  $("save").hidden = $("name-row").hidden = !isUser;
  $("versions-box").hidden = !isUser || (!draft && !current);
  $("actions").hidden = !draft && !past.length && !future.length;
  enable("save", isChanged && !session.conflict);
  put($("save"), isChanged ? `Save version ${(current?.number ?? 0) + 1}` : "Saved");
  if (!current && !isChanged) put($("save"), "Save");
  enable("undo", past.length > 0);
  enable("redo", future.length > 0);
  $("discard").hidden = !isChanged || !session.saved;
  const isAlone = !isUser && session.who && draft;
  if (isAlone) put($("save-status"), "A pasted history has nobody to save a profile for. A link keeps it.");
}

function showVersion() {
  const { current } = session;
  const line = $("version-line");
  if (!current) return put(line, "");
  line.replaceChildren(`Version ${current.number}, `, ...originOf(current));
}

const wordOf = ({ kind, restores }) =>
  ({ written: "written", edited: "edited", restored: `version ${restores} again, restored` })[kind];

/** How a version came to be, by whom if they gave a name, and when. */
function originOf(version) {
  const { kind, changed_by, changed_at } = version;
  const name = changed_by === "anonymous" ? [] : [kind === "written" ? " for " : " by ", foreign(changed_by)];
  return [wordOf(version), kind === "written" ? " by the policy" : "", ...name, ", ", time(changed_at)];
}

// The list

async function load(isMore) {
  const { who, current } = session;
  put($("versions-count"), current ? ` (${current.number})` : "");
  $("undo-version").hidden = !current || (current.restores ?? current.number) === 1; // nothing comes before the first
  if (current) put($("undo-version"), `Take back version ${current.number}`);
  if (!$("versions-box").open || who?.kind !== "user") return;
  const before = isMore ? shown.at(-1)?.number : undefined;
  const { versions } = await read(userPath(who.id, "/versions"), { limit: AT_ONCE, ...(before ? { before } : {}) });
  if (session.who !== who) return;
  shown = isMore ? [...shown, ...versions] : versions;
  isWhole = versions.length < AT_ONCE;
  $("versions-more").hidden = isWhole;
  $("versions").replaceChildren(...shown.map(entryOf));
  if (!shown.length) $("versions").replaceChildren(make("li", { className: "hint", textContent: "There is none yet." }));
}

function entryOf(version) {
  const isCurrent = version.number === session.current?.number;
  const line = make("p", { className: "hint" }, ...originOf(version));
  const text = make("p", { className: "snippet" }, foreign(short(version.profile.text, 160)), besideWords(version.profile));
  const restore = make("button", {
    type: "button",
    textContent: isCurrent ? "Current" : "Restore",
    "aria-label": isCurrent ? null : `Restore version ${version.number}`,
    "data-restore": isCurrent ? null : version.number,
    disabled: isCurrent,
  });
  return make("li", {}, make("span", { className: "number", textContent: version.number }), make("div", {}, line, text), restore);
}

// Two at once

function showConflict() {
  const { conflict } = session;
  $("conflict").hidden = conflict === null;
  if (conflict === null) return;
  const { number, changed_by, profile } = conflict;
  const who = changed_by === "anonymous" ? "somebody" : foreign(changed_by);
  $("conflict-heading").replaceChildren("Meanwhile ", who, ` saved version ${number}`);
  showDiff($("conflict-diff"), session.text, profile.text);
  const beside = [
    ...Object.entries(profile.weights).map(([text, weight]) => `“${short(text)}” counts ×${weight}`),
    ...Object.entries(profile.requests).map(([text, weight]) => `${weight < 0 ? "less" : "more"} of “${short(text)}”, ×${Math.abs(weight)}`),
  ];
  const words = "Struck out is what only you have, underlined what only they have.";
  put($("conflict-beside"), beside.length ? `${words} In theirs: ${beside.join("; ")}.` : words);
  put($("conflict-keep"), "Keep mine, on top of theirs");
  put($("conflict-take"), "Take theirs");
}

function settle(takesTheirs) {
  session.settleConflict(takesTheirs);
  announce(takesTheirs ? "You see their version. Undo brings yours back." : "Your draft stays. Save keeps it as the next version.");
  (takesTheirs ? $("profile-heading") : $("save")).focus();
}
