// Where the documents come from: a saved one in this page, or the stream of the controller that serves it.
//
// The stream ends now and then, and connects again on its own. If it cannot be had (ten others watch), the state is asked for
// every two seconds. `take` is given the kind and the document of each that came.
"use strict";
{
  const POLL_MS = 2000;
  const STREAM_AGAIN_MS = 15000;
  const SILENCE_MS = 10000;

  page.saved = () => {
    const text = page.id("document")?.textContent.trim();
    return text ? JSON.parse(text) : null;
  };

  page.Feed = class {
    constructor(take) {
      this.take = take;
      this.heard = performance.now();
      this.stream = null;
      this.timer = null;
      this.watchdog = null;
    }

    start() {
      this.open();
      // A connection may be dead without an end: open another one.
      this.watchdog = setInterval(() => {
        if (this.stream && performance.now() - this.heard > SILENCE_MS) {
          this.heard = performance.now();
          this.open();
        }
      }, 1000);
    }

    open() {
      this.stream?.close();
      clearInterval(this.timer);
      this.timer = null;
      const stream = new EventSource("v1/events");
      this.stream = stream;
      for (const kind of ["past", "history", "slow", "state"])
        stream.addEventListener(kind, (event) => this.got(kind, event.data));
      stream.addEventListener("error", () => {
        if (stream === this.stream && stream.readyState === EventSource.CLOSED) this.poll();
      });
    }

    got(kind, text) {
      this.heard = performance.now();
      let document = null;
      try {
        document = JSON.parse(text);
      } catch {
        return;
      }
      this.take(kind, document);
    }

    poll() {
      this.stream = null;
      const began = performance.now();
      clearInterval(this.timer);
      this.timer = setInterval(() => {
        if (performance.now() - began > STREAM_AGAIN_MS) this.open();
        else this.askOnce();
      }, POLL_MS);
      this.askOnce();
    }

    async askOnce() {
      if (this.asking) return;
      this.asking = true;
      try {
        const signal = AbortSignal.timeout(5000);
        const [state, slow] = await Promise.all(
          ["v1/state", "v1/slow"].map((path) =>
            fetch(path, { signal }).then((it) => (it.ok ? it.text() : null)),
          ),
        );
        if (state) {
          this.got("history", state);
          this.got("state", state);
        }
        if (slow) this.got("slow", slow);
      } catch {
        // The age of what is shown says it.
      } finally {
        this.asking = false;
      }
    }
  };
}
