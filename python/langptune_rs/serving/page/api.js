// What the page asks of the server: one call at a time, its errors as sentences, its token, and whether it is there.

import { $, say } from "./dom.js";

const TOKEN = "langptune.token";
const SECONDS_BETWEEN = 1.5;

/** Why there is no answer. `type` is the server's word, or "gone" where nothing answered. */
export class ApiError extends Error {
  constructor(message, status = 0, type = "gone", body = {}) {
    super(message);
    Object.assign(this, { status, type, body });
  }
}

export const isAbort = (error) => error?.name === "AbortError";

/** Emits "version" with the version of the models when it changes. */
export const events = new EventTarget();

let version = null;

function seen(answer) {
  const now = answer.model_version;
  const before = version;
  if (now === undefined || now === before) return;
  version = now;
  if (before !== null) events.dispatchEvent(new CustomEvent("version", { detail: now }));
}

async function call(method, path, { query = {}, body, signal } = {}) {
  const address = new URL(`v2/${path}`, document.baseURI);
  address.hash = "";
  for (const [name, values] of Object.entries(query)) {
    for (const value of [values].flat()) address.searchParams.append(name, value);
  }
  const headers = {};
  const token = tokenKept();
  if (token) headers.Authorization = `Bearer ${token}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(address, { method, headers, body: JSON.stringify(body), signal });
  } catch (error) {
    if (isAbort(error)) throw error;
    throw new ApiError("The server does not answer. What you wrote is still here.");
  }
  if (response.status === 401) {
    await askForToken(token);
    return call(method, path, { query, body, signal });
  }
  const answer = await response.json().catch((error) => {
    if (isAbort(error)) throw error;
    return { error: `The server answered ${response.status} and nothing that can be read.`, error_type: "internal" };
  });
  if (!response.ok) throw new ApiError(sentence(answer.error), response.status, answer.error_type, answer);
  seen(answer);
  return answer;
}

/** What the server says, as a sentence. */
function sentence(text) {
  const said = String(text ?? "").trim() || "The server gave no reason.";
  const whole = said.charAt(0).toUpperCase() + said.slice(1);
  return /[.?!…]$/u.test(whole) ? whole : `${whole}.`;
}

/** Do a call that changes nothing, again and again while the server is away or not ready. */
async function patiently(work, signal) {
  for (;;) {
    try {
      return await work();
    } catch (error) {
      const isAway = error instanceof ApiError && (error.type === "gone" || error.status === 503);
      if (!isAway) throw error;
      await serverIsBack(error, signal);
    }
  }
}

export const read = (path, query, signal) => patiently(() => call("GET", path, { query, signal }), signal);
export const rank = (path, body, signal) => patiently(() => call("POST", path, { body, signal }), signal);
/** A call that keeps something, or that takes the policy's time: it is done once, and its failure is told. */
export const change = (method, path, body, signal) => call(method, path, { body, signal });

export const userPath = (user, rest = "") => `users/${encodeURIComponent(user)}${rest}`;

// The server is away

let waiting = null;

/** Resolves when the server is ready again. One loop asks, for all who wait. */
async function serverIsBack(error, signal) {
  waiting ??= askUntilReady(error).finally(() => (waiting = null));
  if (!signal) return waiting;
  return new Promise((resolve, reject) => {
    const stop = () => reject(new DOMException("not wanted any more", "AbortError"));
    if (signal.aborted) stop();
    signal.addEventListener("abort", stop, { once: true });
    waiting.then(resolve, reject);
  });
}

async function askUntilReady(error) {
  const banner = $("connection");
  let why = error;
  for (;;) {
    const isLoading = why.type === "loading";
    say($("connection-text"), wordsOf(why));
    banner.classList.toggle("good", isLoading);
    $("connection-retry").hidden = isLoading;
    banner.hidden = false;
    await pause(SECONDS_BETWEEN);
    try {
      const response = await fetch(new URL("v2/health/ready", document.baseURI));
      if (response.ok) break;
      const answer = await response.json();
      why = new ApiError(sentence(answer.error), response.status, answer.error_type);
    } catch {
      why = new ApiError("The server does not answer.");
    }
  }
  say($("connection-text"), why.type === "loading" ? "The models are loaded." : "The server is back.");
  banner.classList.add("good");
  $("connection-retry").hidden = true;
  setTimeout(() => {
    if (!waiting) banner.hidden = true;
  }, 4000);
}

function wordsOf({ type, message }) {
  if (type === "loading") return "The models are being loaded. This page goes on when they are there.";
  return type === "gone" ? "The server does not answer. Trying again; what you wrote is still here." : message;
}

function pause(seconds) {
  return new Promise((resolve) => {
    setTimeout(resolve, seconds * 1000);
    $("connection-retry").addEventListener("click", resolve, { once: true });
  });
}

// The token

let asking = null;
let tokenHere = null; // where the browser keeps nothing

function tokenKept() {
  try {
    return sessionStorage.getItem(TOKEN) ?? tokenHere;
  } catch {
    return tokenHere;
  }
}

function keepToken(token) {
  tokenHere = token;
  try {
    sessionStorage.setItem(TOKEN, token);
  } catch {
    // It is kept in this page alone.
  }
}

/** Resolves when there is another token than the one that was refused. One dialog serves all who wait. */
async function askForToken(refused) {
  if (tokenKept() !== refused) return;
  asking ??= new Promise((resolve) => {
    const [dialog, form, field] = [$("token"), $("token-form"), $("token-field")];
    say($("token-error"), refused ? "The server does not take this token. Give the one that it was started with." : "");
    field.value = "";
    dialog.oncancel = (event) => event.preventDefault(); // without the token there is nothing to see
    form.onsubmit = (event) => {
      event.preventDefault();
      const token = field.value.trim();
      if (!token) return;
      if (!/^[\x21-\x7e]+$/u.test(token)) {
        say($("token-error"), "A token has letters, digits and signs, and no space.");
        return;
      }
      keepToken(token);
      asking = null;
      dialog.close();
      resolve();
    };
    dialog.showModal();
  });
  return asking;
}
