// Choosing a user, or pasting a history; and the history that was chosen.

import { isAbort, read } from "./api.js";
import { $, announce, count, foreign, make, number, put, say } from "./dom.js";
import { linesOf, resolve } from "./history.js";
import { LatestOnly } from "./latest.js";
import { session } from "./session.js";

const SUGGESTED = 8;
const SHOWN = 8;

const users = new LatestOnly();
const pasting = new LatestOnly();
let active = -1;
let showsAll = false;

export function startChooser() {
  for (const radio of document.getElementsByName("source")) radio.addEventListener("change", showSource);
  const field = $("user-field");
  field.addEventListener("input", suggest);
  field.addEventListener("focus", () => {
    field.select();
    suggest();
  });
  field.addEventListener("blur", () => setTimeout(close, 100));
  field.addEventListener("keydown", onKey);
  $("user-any").addEventListener("click", chooseAny);
  $("history-panel").addEventListener("submit", (event) => {
    event.preventDefault();
    useHistory();
  });
  $("past-more").addEventListener("click", () => {
    showsAll = !showsAll;
    showPast();
  });
  session.addEventListener("info", () => {
    const { num_users, num_items, rating_scale } = session.info;
    put($("user-hint"), `${count(num_users, "user")}. Type the beginning of an id.`);
    put($("served"), `${count(num_items, "item")}, ${count(num_users, "user")}`);
    $("user-any").hidden = num_users < 2;
    $("history-hint").replaceChildren(
      "A rating from ",
      `${number(rating_scale.low)} to ${number(rating_scale.high)} may follow after a bar or a tab, as in `,
      make("code", { textContent: `Title | ${number(rating_scale.high)}` }),
      ".",
    );
  });
  session.addEventListener("who", () => {
    showsAll = false;
    document.documentElement.dataset.open = "";
    const { who } = session;
    if (who.kind === "user") field.value = who.id;
    else if (!$("history-field").value) fillHistory(who.history);
    $(`source-${who.kind}`).checked = true;
    showSource();
    showPast();
    document.title = who.kind === "user" ? `User ${who.id} – LangPTune` : "A history – LangPTune";
  });
}

function showSource() {
  const isUser = $("source-user").checked;
  $("user-panel").hidden = !isUser;
  $("history-panel").hidden = isUser;
}

export function goToUsers() {
  $("source-user").checked = true;
  showSource();
  $("user-field").focus();
}

// A user

async function suggest() {
  const signal = users.next();
  try {
    const prefix = session.who?.id === $("user-field").value ? "" : $("user-field").value.trim();
    const found = await read("users", { prefix, limit: SUGGESTED }, signal);
    if (signal.aborted || document.activeElement !== $("user-field")) return;
    say($("user-error"), "");
    offer(found.users, found.total, prefix);
  } catch (error) {
    if (!isAbort(error)) say($("user-error"), error.message);
  }
}

function offer(ids, total, prefix) {
  active = -1;
  $("user-list").replaceChildren(
    ...ids.map((id, place) => {
      const option = make("li", { role: "option", id: `user-${place}`, "aria-selected": "false" }, foreign(id, "span"));
      option.addEventListener("pointerdown", (event) => {
        event.preventDefault();
        choose(id);
      });
      return option;
    }),
  );
  const found = prefix ? `${count(total, "user begins", "users begin")} with “${prefix}”.` : `${count(total, "user")} in all.`;
  put($("user-hint"), found);
  announce(found);
  open(ids.length > 0);
}

function open(isOpen) {
  $("user-list").hidden = !isOpen;
  $("user-field").setAttribute("aria-expanded", String(isOpen));
  if (!isOpen) $("user-field").removeAttribute("aria-activedescendant");
}

const close = () => open(false);

function activate(place) {
  const options = [...$("user-list").children];
  options[active]?.setAttribute("aria-selected", "false");
  active = (place + options.length) % options.length;
  options[active].setAttribute("aria-selected", "true");
  options[active].scrollIntoView({ block: "nearest" });
  $("user-field").setAttribute("aria-activedescendant", options[active].id);
}

function onKey(event) {
  const options = [...$("user-list").children];
  const isOpen = !$("user-list").hidden;
  if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    event.preventDefault();
    if (!isOpen) suggest();
    else activate(event.key === "ArrowDown" ? active + 1 : Math.max(active, 0) - 1);
  } else if (event.key === "Enter") {
    event.preventDefault();
    const typed = event.target.value.trim();
    if (isOpen && active >= 0) choose(options[active].textContent);
    else if (typed) choose(typed);
  } else if (event.key === "Escape" && isOpen) {
    event.stopPropagation();
    close();
  }
}

async function choose(id) {
  users.stop();
  close();
  const field = $("user-field");
  field.value = id;
  try {
    await session.openUser(id);
    say($("user-error"), "");
    announce(`User ${id} is open.`);
  } catch (error) {
    if (isAbort(error)) return;
    say($("user-error"), error.message);
    field.select();
  }
}

/** Open some user: who comes to look around knows no id. */
async function chooseAny() {
  try {
    const offset = Math.floor(Math.random() * session.info.num_users);
    const { users } = await read("users", { offset, limit: 1 });
    if (users.length) await choose(users[0]);
  } catch (error) {
    if (!isAbort(error)) say($("user-error"), error.message);
  }
}

// A history

async function useHistory() {
  const signal = pasting.next();
  const lines = linesOf($("history-field").value);
  const fail = (words) => {
    put($("history-status"), "");
    say($("history-error"), words);
  };
  fail("");
  try {
    await session.start();
    const { history_items: most } = session.info.limits;
    if (!lines.length) return fail("There is no line yet: write at least one title.");
    if (lines.length > most) return fail(`There are ${lines.length} titles, and a history has at most ${most}. Take the newest.`);
    put($("history-status"), "Looking the titles up…");
    const { items, problems } = await resolve(lines, session.info, signal);
    if (signal.aborted) return;
    showProblems(problems);
    if (!items.length) return fail("None of these titles is in the catalog, so there is no history yet.");
    put($("history-status"), `${count(items.length, "title")} of ${lines.length} used.`);
    await session.openHistory(items);
  } catch (error) {
    if (!isAbort(error)) fail(error.message);
  }
}

function showProblems(problems) {
  $("history-problems").hidden = !problems.length;
  $("history-problems").replaceChildren(
    ...problems.map(({ line, name, why, near }) => {
      const entry = make("li", {}, `Line ${line}, `, foreign(`“${name}”`), ` ${why}`);
      for (const title of near) {
        const use = make("button", { type: "button", className: "quiet" }, foreign(title));
        use.addEventListener("click", () => correct(line, name, title));
        entry.append(" ", use);
      }
      return entry;
    }),
  );
}

/** Put the right title into a line, and look again. */
function correct(line, name, title) {
  const lines = $("history-field").value.split(/\r?\n/u);
  lines[line - 1] = lines[line - 1].replace(name, () => title);
  $("history-field").value = lines.join("\n");
  $("history-field").focus();
  useHistory();
}

function fillHistory(history) {
  const lines = history.map(({ title, rating }) => (rating === null ? title : `${title} | ${rating}`));
  $("history-field").value = lines.join("\n");
}

function showPast() {
  const { history } = session.who;
  const { high } = session.info.rating_scale;
  const shown = showsAll ? history : history.slice(-SHOWN);
  $("past").hidden = false;
  put($("past-heading"), session.who.kind === "user" ? "History" : "The history you gave");
  $("past-list").replaceChildren(
    ...shown.map(({ title, rating, review }) => {
      const entry = make("li", {}, make("span", { className: "title" }, foreign(title)));
      if (rating !== null) {
        const spoken = make("span", { className: "hidden", textContent: `rated ${number(rating)} of ${number(high)}` });
        const seen = make("span", { "aria-hidden": "true", textContent: `★ ${number(rating)}` });
        entry.append(make("span", { className: "rating" }, seen, spoken));
      }
      if (review) entry.append(foreign(review, "q"));
      return entry;
    }),
  );
  $("past-more").hidden = history.length <= SHOWN;
  put($("past-more"), showsAll ? `Show the newest ${SHOWN}` : `Show all ${number(history.length)}`);
}
