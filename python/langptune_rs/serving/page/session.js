// Whose profile is edited, what it was, what it is now, and the ranking by it.
//
// Everything that is shown follows from here. Events: "info", "leaving" (while the old state is still there), "who",
// "draft" (detail: why it changed), "saved", "ranking", "ranking-error", "busy" and "conflict". What a person wrote is
// never thrown away by an error: a draft goes only by an edit, and every edit can be undone.

import * as api from "./api.js";
import * as drafts from "./draft.js";
import * as link from "./link.js";
import { LatestOnly } from "./latest.js";

const TYPING = 50; // milliseconds without a key before the ranking follows
const ONE_CHANGE = 1000; // typing in one place without a longer pause is one step of undo
const STEPS = 200;
export const PAGE = 20;

class Session extends EventTarget {
  info = null;
  who = null; // {kind: "user", id, history, version} or {kind: "history", history}
  current = null; // the version that the server keeps
  saved = null; // its profile; for a pasted history null
  base = null; // {profile, words} that moves are counted from
  draft = null;
  ranking = null; // {items, left, profile, unread, isMoved}
  k = PAGE;
  past = [];
  future = [];
  conflict = null; // the version that somebody else made meanwhile

  #starting = null;
  #typed = { place: null, at: 0 };
  #opening = new LatestOnly();
  #ranking = new LatestOnly();
  #sentences = new Map(); // text -> the server's sentences
  #effects = new Map();

  constructor() {
    super();
    api.events.addEventListener("version", () => this.#onOtherModels());
  }

  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  // Whose profile

  /** Learn what is served. Nothing is opened before that is known, and it is asked again where it failed. */
  start() {
    this.#starting ??= this.#learnInfo().catch((error) => {
      this.#starting = null;
      throw error;
    });
    return this.#starting;
  }

  async #learnInfo(why) {
    this.info = await api.read("info");
    this.#tell("info", why);
  }

  /** Open a user, with what a link says of the draft. Raises `ApiError`; what was open stays open then. */
  async openUser(id, state = {}) {
    const signal = this.#opening.next();
    await this.start();
    const user = await api.read(api.userPath(id), {}, signal);
    if (signal.aborted) return;
    this.#open({ kind: "user", id: user.id, history: user.history });
    this.#keep(user.current);
    await this.#begin(state, signal);
    if (this.draft && state.version !== undefined && state.version !== (user.current?.number ?? 0) && this.isChanged) {
      this.#conflictWith(user.current);
    }
  }

  /** Open a history of items. */
  async openHistory(items, state = {}) {
    const signal = this.#opening.next();
    await this.start();
    if (signal.aborted) return;
    this.#open({ kind: "history", history: items });
    await this.#begin(state, signal);
  }

  #open(who) {
    if (this.who) this.#tell("leaving");
    this.#ranking.stop();
    Object.assign(this, { who, current: null, saved: null, base: null, draft: null, ranking: null, k: PAGE });
    Object.assign(this, { past: [], future: [], conflict: null });
    this.#tell("who");
  }

  /** What the server keeps is the new base. */
  #keep(version) {
    this.current = version;
    this.saved = version?.profile ?? null;
    this.conflict = null;
    if (version) this.#learn(version.profile);
    this.base = version ? { profile: version.profile, words: `version ${version.number}` } : null;
    this.#tell("saved");
  }

  async #begin({ text, weights = [], wishes = {} }, signal) {
    let draft = this.saved ? drafts.draftOf(this.saved) : null;
    if (text !== undefined) {
      draft = { ...drafts.replace(drafts.empty(), text), wishes };
      if (weights.length) {
        draft = drafts.adopt(draft, await this.sentencesOf(text, signal));
        for (const [number, weight] of weights) {
          if (draft.pieces[number - 1]) draft = drafts.weigh(draft, number - 1, weight);
        }
      }
      if (signal.aborted) return;
      if (this.saved) this.past.push(drafts.draftOf(this.saved));
    }
    this.draft = draft;
    this.#tell("draft", "opened");
    this.rank();
  }

  /** What a request says about items that are not ranked. */
  get without() {
    return this.who.kind === "user" ? { user: this.who.id } : { exclude: this.who.history.map(({ id }) => id) };
  }

  get numRanked() {
    return this.info.num_items - new Set(this.who.history.map(({ id }) => id)).size;
  }

  // The draft

  get text() {
    return this.draft ? drafts.textOf(this.draft) : "";
  }

  /** Why the draft can neither be ranked by nor saved, as a sentence; empty where it can. */
  get fault() {
    const { profile_characters: most, weights, requests } = this.info.limits;
    const length = drafts.length(this.text);
    if (!this.text.trim()) return "The profile is empty: write at least a word about what the user likes.";
    if (length > most) return `The profile has ${length} characters, ${length - most} more than the ${most} it may have.`;
    if (Object.keys(this.draft.wishes).length > requests) return `A profile has at most ${requests} wishes.`;
    if (this.draft.pieces.filter(({ weight }) => (weight ?? 1) !== 1).length > weights) {
      return `At most ${weights} sentences have a weight of their own.`;
    }
    return "";
  }

  /** Whether there is something to save. */
  get isChanged() {
    if (!this.draft) return false;
    if (!this.saved) return this.text.trim() !== "";
    return !drafts.same(this.#profile(), this.saved);
  }

  #profile() {
    return drafts.profileOf(this.draft, this.#sentences.get(this.text) ?? this.#guess());
  }

  /** The pieces as if they were the server's sentences: right but while a person types. */
  #guess() {
    let start = drafts.length(this.draft.gaps[0]);
    return this.draft.pieces.map(({ text }, place) => {
      const sentence = { number: place + 1, text, start, end: start + drafts.length(text) };
      start = sentence.end + drafts.length(this.draft.gaps[place + 1]);
      return sentence;
    });
  }

  /** Another draft. `typedIn` names the field that a person types in, whose changes are one step of undo. */
  change(draft, typedIn = null) {
    const now = performance.now();
    const isOneStep = typedIn !== null && typedIn === this.#typed.place && now - this.#typed.at < ONE_CHANGE;
    const isStart = this.draft === null && this.saved !== null; // there is a profile now, and nothing to go back to
    if (!isOneStep && !isStart) {
      this.past.push(this.draft);
      this.past.splice(0, this.past.length - STEPS);
    }
    this.future = [];
    this.#typed = { place: typedIn, at: now };
    performance.mark("langptune:edit");
    this.draft = draft;
    this.#tell("draft", typedIn === null ? "edited" : "typed");
    this.rank(typedIn === null ? 0 : TYPING);
  }

  undo() {
    this.#travel(this.past, this.future);
  }

  redo() {
    this.#travel(this.future, this.past);
  }

  #travel(from, to) {
    if (!from.length) return;
    to.push(this.draft);
    this.draft = from.pop() ?? (this.saved ? drafts.empty() : null);
    this.#typed.place = null;
    this.#tell("draft", "travelled");
    this.rank();
  }

  /** Back to what is saved. */
  discard() {
    this.change(this.saved ? drafts.draftOf(this.saved) : null);
  }

  /** Take the server's sentences for the draft's text, once nobody types in it. */
  settle() {
    const sentences = this.draft && this.#sentences.get(this.text);
    if (!sentences) return;
    const settled = drafts.adopt(this.draft, sentences);
    if (settled === this.draft) return;
    this.draft = settled;
    this.#tell("draft", "settled");
  }

  // Rankings

  #learn(profile) {
    if (this.#sentences.size > 500) this.#sentences.clear();
    this.#sentences.set(profile.text, profile.sentences);
  }

  /** The server's sentences of a text. */
  async sentencesOf(text, signal) {
    if (!this.#sentences.has(text)) {
      this.#learn((await api.rank("recommend", { profile: { text }, k: 1 }, signal)).profile);
    }
    return this.#sentences.get(text);
  }

  /** The draft as a request holds it. */
  async profile(signal) {
    const draft = this.draft;
    const sentences = drafts.hasWeights(draft) ? await this.sentencesOf(drafts.textOf(draft), signal) : [];
    return drafts.profileOf(draft, sentences);
  }

  /** Rank by the draft, in some milliseconds. What was asked before is dropped. */
  rank(delay = 0) {
    const signal = this.#ranking.next();
    this.#effects.clear();
    if (!this.draft || this.fault) {
      this.#tell("ranking-error", this.draft && (this.past.length || this.saved) ? this.fault : "");
      if (!this.draft) this.#show(null);
      return;
    }
    this.#tell("busy", true);
    setTimeout(() => this.#rankNow(signal), delay);
  }

  async #rankNow(signal) {
    if (signal.aborted) return;
    try {
      const asked = performance.now();
      const found = await this.rankingOf(this.base?.profile, await this.profile(signal), this.k, signal);
      if (signal.aborted) return;
      this.#tell("ranking-error", "");
      this.#show({ ...found, milliseconds: performance.now() - asked });
    } catch (error) {
      if (api.isAbort(error) || signal.aborted) return;
      if (!(error instanceof api.ApiError)) throw error;
      this.#tell("ranking-error", error.message);
    } finally {
      if (!signal.aborted) this.#tell("busy", false);
    }
  }

  #show(ranking) {
    this.ranking = ranking;
    this.#tell("ranking");
  }

  /** The first k items by a profile, with their moves since a base where there is one and the profile is another. */
  async rankingOf(base, profile, k, signal) {
    const where = this.without;
    if (!base || drafts.same(base, profile)) {
      const found = await api.rank("recommend", { profile, k, ...where }, signal);
      this.#learn(found.profile);
      return { items: found.items, left: [], profile: found.profile, unread: found.unread, isMoved: false };
    }
    const hasWeights = [base, profile].some(({ weights }) => Object.keys(weights).length);
    const sentences = hasWeights ? await this.sentencesOf(profile.text, signal) : [];
    const edits = drafts.editsOf(base, profile, sentences);
    const found = await api.rank("steer", { profile: asked(base), edits, k, ...where }, signal);
    this.#learn(found.profile_after);
    const moves = new Map(found.moves.map((move) => [move.id, move]));
    return {
      items: found.after.map((item) => ({ ...item, before: moves.get(item.id).rank_before })),
      left: found.moves.slice(found.after.length),
      profile: found.profile_after,
      unread: found.unread,
      isMoved: true,
    };
  }

  showMore() {
    this.k = Math.min(this.k + PAGE, this.most);
    this.rank();
  }

  /** How many items a ranking can have. */
  get most() {
    return Math.min(this.info.limits.k, this.numRanked);
  }

  /** Moves count from the ranking that is shown. */
  countFromHere() {
    this.base = { profile: asked(this.ranking.profile), words: "where you set the mark" };
    this.rank();
  }

  /** Items as they are, and as they would be without a piece of the draft. The same question is asked once. */
  effectOf(place, signal) {
    if (!this.#effects.has(place)) {
      const asking = this.#effectOf(place, signal);
      asking.catch(() => this.#effects.delete(place));
      this.#effects.set(place, asking);
    }
    return this.#effects.get(place);
  }

  async #effectOf(place, signal) {
    const draft = this.draft;
    const profile = await this.profile(signal);
    const sentences = await this.sentencesOf(profile.text, signal);
    const edits = drafts
      .placesOf(draft, sentences)
      .flatMap((other, number) => (other === place ? [number] : []))
      .filter((number) => drafts.at(profile.weights, sentences[number].text, 1) !== 0)
      .map((number) => ({ kind: "weigh", sentence: number + 1, weight: 0 }));
    if (!edits.length) return null;
    const found = await api.rank("steer", { profile, edits, k: this.k, ...this.without }, signal);
    const moves = new Map(found.moves.map((move) => [move.id, move]));
    const shown = new Set(found.before.map(({ id }) => id));
    return { moves, kept: found.moves.filter(({ id }) => !shown.has(id)) };
  }

  /** What each sentence does to an item; of a profile of one sentence, each word. */
  async explain(id, signal) {
    const profile = await this.profile(signal);
    const by = (await this.sentencesOf(profile.text, signal)).length > 1 ? "sentence" : "word";
    return { by, ...(await api.rank("explain", { profile, item: id, by, ...this.without }, signal)) };
  }

  // What is kept

  /** Keep the draft. Where somebody else was faster, "conflict" is told. Raises `ApiError`. */
  async save(name) {
    const body = { profile: await this.profile(), expected_version: this.current?.number ?? 0, ...by(name) };
    return this.#changed(() => api.change("PUT", api.userPath(this.who.id, "/profile"), body), { keepsDraft: true });
  }

  async undoVersion(name) {
    const body = { expected_version: this.current.number, ...by(name) };
    return this.#changed(() => api.change("POST", api.userPath(this.who.id, "/undo"), body));
  }

  async restore(number, name) {
    const body = { expected_version: this.current.number, ...by(name) };
    return this.#changed(() => api.change("POST", api.userPath(this.who.id, `/versions/${number}/restore`), body));
  }

  /** Have the policy write the profile from the history. */
  async writeProfile(name, signal) {
    const { who } = this;
    if (who.kind === "user") {
      const body = { expected_version: this.current?.number ?? 0, ...by(name) };
      return this.#changed(() => api.change("POST", api.userPath(who.id, "/profile"), body, signal));
    }
    const { profile } = await api.change("POST", "profile", { history: this.historyBody() }, signal);
    if (this.who !== who) return null;
    this.#learn(profile);
    this.change(drafts.draftOf(profile));
    this.base = { profile, words: "what the policy wrote" };
    this.rank();
    return null;
  }

  historyBody() {
    return this.who.history.map(({ id, rating }) => (rating === null ? { item: id } : { item: id, rating }));
  }

  async propose(instruction, signal) {
    const { profile } = await api.change("POST", "propose", { text: this.text, instruction }, signal);
    this.#learn(profile);
    return profile;
  }

  async #changed(work, { keepsDraft = false } = {}) {
    const who = this.who;
    let answer;
    try {
      answer = await work();
    } catch (error) {
      if (this.who === who && error.type === "conflict") this.#conflictWith(error.body.current);
      throw error;
    }
    if (this.who !== who) return null;
    this.#keep(answer.current);
    if (!keepsDraft) this.change(drafts.draftOf(this.saved));
    else this.rank();
    return answer.current;
  }

  #conflictWith(version) {
    this.conflict = version;
    if (version) this.#learn(version.profile);
    this.#tell("conflict");
  }

  /** Go on with the draft on top of what somebody else saved, or with theirs; the draft is a step of undo then. */
  settleConflict(takesTheirs) {
    this.#keep(this.conflict);
    if (takesTheirs) this.change(drafts.draftOf(this.saved));
    else this.rank();
  }

  /** Look whether somebody else has saved meanwhile. */
  async lookForOthers() {
    const { who } = this;
    if (who?.kind !== "user" || this.conflict) return;
    const { current } = await api.read(api.userPath(who.id));
    if (this.who !== who || (current?.number ?? 0) === (this.current?.number ?? 0)) return;
    if (this.isChanged) {
      this.#conflictWith(current);
    } else {
      this.#keep(current);
      this.change(current ? drafts.draftOf(this.saved) : null);
    }
  }

  async #onOtherModels() {
    await this.#learnInfo("other models");
    if (this.who) this.rank();
  }

  // The state as a link

  /** The fragment of the page's address that opens what is seen now. */
  async fragment() {
    const { who } = this;
    if (!who) return "";
    const state = who.kind === "user" ? { user: who.id } : { history: who.history.map(({ id, rating }) => [id, rating]) };
    if (this.draft && this.isChanged) {
      const { weights, requests } = this.#profile();
      const sentences = this.#sentences.get(this.text) ?? this.#guess();
      const weighed = sentences.flatMap(({ number, text }) => (Object.hasOwn(weights, text) ? [[number, weights[text]]] : []));
      state.text = this.text;
      if (who.kind === "user") state.version = this.current?.number ?? 0;
      if (weighed.length) state.weights = weighed;
      if (Object.keys(requests).length) state.wishes = requests;
    }
    return link.write(state);
  }
}

const by = (name) => (name ? { changed_by: name } : {});
const asked = ({ text, weights, requests }) => ({ text, weights, requests });

export const session = new Session();
