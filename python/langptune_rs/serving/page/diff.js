// What differs between two texts, word by word.

import { make } from "./dom.js";

/** Words and signs with the space before them, which does not count where they are compared. */
const wordsOf = (text) => text.match(/\s*(?:[\p{L}\p{M}\p{N}’'-]+|\S)/gu) ?? [];

/**
 * Runs of words as `[kind, text]`: "same", "del" (in `before` alone) or "ins" (in `after` alone).
 * What stays is the longest common subsequence of words.
 */
export function diff(before, after) {
  const [a, b] = [wordsOf(before), wordsOf(after)];
  const [left, right] = [a, b].map((words) => words.map((word) => word.trimStart()));
  const width = b.length + 1;
  const lengths = new Uint16Array((a.length + 1) * width);
  for (let i = a.length - 1; i >= 0; i--) {
    for (let j = b.length - 1; j >= 0; j--) {
      lengths[i * width + j] =
        left[i] === right[j]
          ? lengths[(i + 1) * width + j + 1] + 1
          : Math.max(lengths[(i + 1) * width + j], lengths[i * width + j + 1]);
    }
  }
  const runs = [];
  let [i, j, removed, added] = [0, 0, "", ""];
  const close = () => {
    if (removed) runs.push(["del", removed]);
    if (added) runs.push(["ins", added]);
    [removed, added] = ["", ""];
  };
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && left[i] === right[j]) {
      close();
      if (runs.at(-1)?.[0] === "same") runs.at(-1)[1] += b[j];
      else runs.push(["same", b[j]]);
      i++;
      j++;
    } else if (j === b.length || (i < a.length && lengths[(i + 1) * width + j] >= lengths[i * width + j + 1])) {
      removed += a[i++];
    } else {
      added += b[j++];
    }
  }
  close();
  return runs;
}

/** Write the difference into an element, as deleted and inserted text. */
export function showDiff(element, before, after) {
  const nodes = diff(before, after).flatMap(([kind, text]) => {
    if (kind === "same") return [text];
    const bare = text.trimStart();
    return [text.slice(0, text.length - bare.length), make(kind, { textContent: bare })];
  });
  element.replaceChildren(...nodes);
}
