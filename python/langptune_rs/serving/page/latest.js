/** Of things that are asked one after the other, only the last one counts: asking anew stops what was asked before. */
export class LatestOnly {
  #controller = new AbortController();

  next() {
    this.stop();
    this.#controller = new AbortController();
    return this.#controller.signal;
  }

  stop() {
    this.#controller.abort();
  }
}
