// A profile while it is edited: its sentences, the gaps between them, and the wishes beside them.
//
// A draft is a value: every edit returns a new one, so undoing is taking the one before.
// Only the server knows where a sentence ends. Until it has answered, a draft has the pieces that a person sees, and
// `adopt` brings both together. Offsets are those of the server, in code points.

export const WEIGHTS = [0, 0.25, 0.5, 0.75, 1, 1.5, 2, 3, 4, 5];
const WISHES = [0.25, 0.5, 0.75, 1, 1.5, 2, 3, 4, 5];
export const WISH_WEIGHTS = [...WISHES.map((weight) => -weight).reverse(), ...WISHES];

let keys = 0;

const piece = (text, weight) => ({ key: ++keys, text, weight });

/** What values keyed by text have for one, or else the usual value: a text may be "constructor" like any other. */
export const at = (values, text, usual) => (Object.hasOwn(values, text) ? values[text] : usual);

export const length = (text) => Array.from(text).length;

/** The draft of a profile as an answer has it. */
export function draftOf(profile) {
  const points = Array.from(profile.text);
  const cut = (start, end) => points.slice(start, end).join("");
  const pieces = profile.sentences.map((sentence) => piece(sentence.text, sentence.weight));
  const ends = [0, ...profile.sentences.map((sentence) => sentence.end)];
  const starts = [...profile.sentences.map((sentence) => sentence.start), points.length];
  return { pieces, gaps: starts.map((start, place) => cut(ends[place], start)), wishes: { ...profile.requests } };
}

export const empty = () => ({ pieces: [], gaps: [""], wishes: {} });

export function textOf(draft) {
  return draft.gaps[0] + draft.pieces.map((piece, place) => piece.text + draft.gaps[place + 1]).join("");
}

const withPieces = (draft, pieces, gaps = draft.gaps) => ({ ...draft, pieces, gaps });

export function rewrite(draft, place, text) {
  return withPieces(draft, draft.pieces.with(place, { ...draft.pieces[place], text }));
}

export function weigh(draft, place, weight) {
  return withPieces(draft, draft.pieces.with(place, { ...draft.pieces[place], weight }));
}

/** Without a sentence and the space that stood before it. */
export function remove(draft, place) {
  const gaps = draft.gaps.toSpliced(place, 1);
  if (place === 0) gaps[0] = draft.gaps[0];
  return withPieces(draft, draft.pieces.toSpliced(place, 1), gaps);
}

/** With a sentence at the end, on a line of its own where the others have one. */
export function add(draft, text) {
  if (!draft.pieces.length) return withPieces(draft, [piece(text, 1)], ["", ""]);
  const between = draft.gaps.slice(1, -1);
  const gap = between.length && between.every((gap) => gap.includes("\n")) ? between.at(-1) : " ";
  return withPieces(draft, [...draft.pieces, piece(text, 1)], [...draft.gaps.slice(0, -1), gap, ""]);
}

/** With another text. What it says by the same sentence as before keeps its weight. */
export function replace(draft, text) {
  const weighed = draft.pieces.filter(({ weight }) => weight !== null).map(({ text, weight }) => [text, weight]);
  const kept = { ...draft.kept, ...Object.fromEntries(weighed) };
  return { ...withPieces(draft, text ? [piece(text, null)] : [], text ? ["", ""] : [""]), kept };
}

/** With the weight of a wish; without the wish where the weight is 0. */
export function wish(draft, text, weight) {
  const wishes = { ...draft.wishes, [text]: weight };
  if (!weight) delete wishes[text];
  return { ...draft, wishes };
}

/** A weight some steps up or down. */
export function step(weights, weight, by) {
  const place = by > 0 ? weights.findIndex((other) => other > weight) : weights.findLastIndex((other) => other < weight);
  return place < 0 ? weight : weights[place];
}

/** Whether what a draft weighs can only be said once the server has told its sentences. */
export const hasWeights = (draft) =>
  draft.pieces.some(({ weight }) => weight !== 1 && weight !== null) ||
  Object.values(draft.kept ?? {}).some((weight) => weight !== 1);

/** The piece that each of the server's sentences begins in, as its place among the pieces. */
export function placesOf(draft, sentences) {
  let end = length(draft.gaps[0]);
  const ends = draft.pieces.map((piece, place) => (end += length(piece.text) + length(draft.gaps[place + 1])));
  return sentences.map(({ start }) => Math.max(0, ends.findIndex((end) => start < end)));
}

function weightsOf(draft, sentences) {
  return placesOf(draft, sentences).map((place, number) => {
    const weight = draft.pieces[place]?.weight ?? null;
    return weight ?? at(draft.kept ?? {}, sentences[number].text, 1);
  });
}

/** The draft in the server's sentences for the same text; one that has them already is returned as it is. */
export function adopt(draft, sentences) {
  const same =
    draft.pieces.length === sentences.length &&
    draft.pieces.every(({ text, weight }, place) => text === sentences[place].text && weight !== null);
  if (same) return draft;
  const [weights, places] = [weightsOf(draft, sentences), placesOf(draft, sentences)];
  const { pieces, gaps } = draftOf({ text: textOf(draft), sentences, requests: {} });
  const named = pieces.map((piece, number) => {
    const [place, isFirst] = [places[number], places[number] !== places[number - 1]];
    return { ...piece, weight: weights[number], key: isFirst ? (draft.pieces[place]?.key ?? piece.key) : piece.key };
  });
  return { pieces: named, gaps, wishes: draft.wishes };
}

/** The profile that a request holds. `sentences` are needed where the draft has weights. */
export function profileOf(draft, sentences) {
  const weighed = weightsOf(draft, sentences).map((weight, number) => [sentences[number].text, weight]);
  const weights = Object.fromEntries(weighed.filter(([, weight]) => weight !== 1));
  return { text: textOf(draft), weights, requests: draft.wishes };
}

/** How many weights and wishes a profile has beside its text, in words; empty for none. */
export function besideWords({ weights, requests }) {
  const many = Object.keys(weights).length + Object.keys(requests).length;
  return many ? ` (and ${many} ${many === 1 ? "weight or wish" : "weights and wishes"})` : "";
}

const changed = (from, to, usual) =>
  [...new Set([...Object.keys(from), ...Object.keys(to)])].filter((key) => at(from, key, usual) !== at(to, key, usual));

/** Whether two profiles rank the same. */
export function same(one, other) {
  return (
    one.text === other.text &&
    !changed(one.weights, other.weights, 1).length &&
    !changed(one.requests, other.requests, 0).length
  );
}

/** The edits that make profile `to` of profile `from`. `sentences` are those of `to`. */
export function editsOf(from, to, sentences) {
  const edits = from.text === to.text ? [] : [{ kind: "rewrite", text: to.text }];
  const seen = new Set();
  sentences.forEach(({ text }, place) => {
    const [before, after] = [at(from.weights, text, 1), at(to.weights, text, 1)];
    if (before !== after && !seen.has(text)) edits.push({ kind: "weigh", sentence: place + 1, weight: after });
    seen.add(text);
  });
  for (const text of changed(from.requests, to.requests, 0)) {
    edits.push({ kind: "request", text, weight: at(to.requests, text, 0) });
  }
  return edits;
}
