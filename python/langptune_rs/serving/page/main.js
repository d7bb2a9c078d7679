// The beginning: puts the parts of the page together, and keeps the address and the keys.

import { ApiError, isAbort } from "./api.js";
import { goToUsers, startChooser } from "./chooser.js";
import { startCompare } from "./compare.js";
import { $, announce, number, put, say } from "./dom.js";
import { closeProposal, startEditor, stopWriting } from "./editor.js";
import { resolve } from "./history.js";
import * as link from "./link.js";
import { closeOpened, startRanking } from "./ranking.js";
import { session } from "./session.js";
import { startVersions } from "./versions.js";

const NAME = "langptune.name";
const ADDRESS = 400; // milliseconds after a change until the address follows

const nameOf = () => $("name-field").value.trim().slice(0, 200);

startChooser();
startEditor(nameOf);
const save = startVersions(nameOf);
startRanking();
startCompare();
startName();
startLink();
startKeys();
begin();

async function begin() {
  try {
    await session.start();
    await openLink();
  } catch (error) {
    if (!isAbort(error)) say($("user-error"), error.message);
  }
  performance.mark("langptune:ready");
  document.documentElement.dataset.ready = "";
}

session.addEventListener("info", ({ detail }) => {
  if (detail !== "other models") return;
  note("The server has loaded other models. The ranking is by them now; your draft stays.");
});

// Who changes things

function startName() {
  const field = $("name-field");
  try {
    field.value = localStorage.getItem(NAME) ?? "";
    field.addEventListener("change", () => localStorage.setItem(NAME, nameOf()));
  } catch {
    // Where the browser keeps nothing the name is for this visit.
  }
}

// The address

let written = location.hash;
let timer = 0;
let isTooLong = false;
let isArriving = false; // a link is being opened: the address has the new state already
let isStep = false; // the next address is another step of the browser's history
let writing = Promise.resolve(); // addresses are written one after the other

function startLink() {
  addEventListener("hashchange", () => {
    if (location.hash !== written) openLink();
  });
  session.addEventListener("leaving", () => {
    if (isArriving) return;
    clearTimeout(timer);
    writeAddress();
    isStep = true;
    note(session.isChanged ? "What you had not saved is there again when you go back in the browser." : "");
  });
  for (const type of ["draft", "saved", "who"]) {
    session.addEventListener(type, () => {
      clearTimeout(timer);
      timer = setTimeout(writeAddress, ADDRESS);
    });
  }
  session.addEventListener("draft", ({ detail }) => {
    if (detail === "typed" || detail === "edited") note("");
  });
  session.addEventListener("who", () => ($("copy-link").hidden = false));
  $("copy-link").addEventListener("click", copyLink);
  addEventListener("beforeunload", (event) => {
    if (isTooLong && session.isChanged) event.preventDefault();
  });
}

/** The page's address with this fragment; the longest that other programs keep whole is not much more. */
const addressOf = (fragment) => `${location.href.split("#")[0]}#${fragment}`;

/** Write the state of this moment into the address. Where it is too long for that, the browser keeps it beside. */
function writeAddress() {
  const [packing, short, asStep] = [session.fragment(), link.write({ user: session.who?.id }), isStep];
  isStep = false;
  writing = writing.then(async () => {
    const fragment = await packing;
    isTooLong = addressOf(fragment).length > link.LONGEST;
    const address = addressOf(isTooLong ? await short : fragment);
    if (address === location.href && !isTooLong) return;
    history[asStep ? "pushState" : "replaceState"](isTooLong ? { fragment } : null, "", address);
    written = location.hash;
  });
  return writing;
}

async function openLink() {
  written = location.hash;
  note("");
  isArriving = true;
  try {
    const state = await link.read(history.state?.fragment ?? location.hash);
    if (!state) return;
    if (state.user !== undefined) await session.openUser(state.user, state);
    else if (state.history) await session.openHistory(await itemsOf(state.history), state);
  } catch (error) {
    if (!isAbort(error)) note(error.message);
  } finally {
    isArriving = false;
  }
}

/** The items of a link's history, which names them by their ids. */
async function itemsOf(history) {
  const lines = history.slice(0, session.info.limits.history_items).map(([name, rating], place) => ({ line: place + 1, name, rating }));
  const { items, problems } = await resolve(lines, session.info);
  if (!items.length) throw new ApiError("None of the items of this link is in the catalog.", 404, "unknown");
  if (problems.length) note(`${problems.length} of the ${lines.length} items of this link are not in the catalog, and are left out.`);
  return items;
}

async function copyLink() {
  clearTimeout(timer);
  await writeAddress();
  if (isTooLong) {
    const length = number(addressOf(await session.fragment()).length);
    const way = session.who.kind === "user" ? "Save the profile, and the link to the user is enough." : "Shorten the profile or the history.";
    return note(`This state makes a link of ${length} characters, and many programs cut one after ${number(link.LONGEST)}. ${way}`);
  }
  try {
    await navigator.clipboard.writeText(location.href);
    note("The link is copied. It opens what you see, with what is not saved yet.");
  } catch {
    note("Copy this link:", location.href);
  }
}

function note(text, address = "") {
  $("link-note").hidden = !text;
  put($("link-text"), text);
  $("link-field").hidden = !address;
  $("link-field").value = address;
  if (address) $("link-field").select();
}

// Keys

function startKeys() {
  for (const skip of document.querySelectorAll(".skip")) {
    skip.addEventListener("click", (event) => {
      event.preventDefault(); // the address holds the state
      document.querySelector(skip.hash).focus();
    });
  }
  $("open-help").addEventListener("click", () => $("help").showModal());
  $("close-help").addEventListener("click", () => $("help").close());
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || $("help").open || $("token").open) return;
    if (event.key === "Escape") {
      if (stopWriting() || closeProposal() || closeOpened()) event.preventDefault();
      return;
    }
    if (!(event.ctrlKey || event.metaKey) || event.altKey) return;
    const key = event.key.toLowerCase();
    if (key === "s") {
      event.preventDefault();
      save();
    } else if (key === "k") {
      event.preventDefault();
      goToUsers();
    } else if ((key === "z" || key === "y") && isForDraft(event.target)) {
      event.preventDefault();
      const back = key === "z" && !event.shiftKey;
      if (back) session.undo();
      else session.redo();
      announce(back ? "Undone." : "Redone.");
    }
  });
}

/** Fields that are not of the draft undo by themselves. */
function isForDraft(target) {
  const isField = target.matches("input, textarea, select");
  return !isField || target.closest(".sentence") !== null || target.id === "text-field";
}
