// Requests that took longer than the limit, and where their time went.
"use strict";
{
  const STAGES = ["queue", "sync", "replicate", "confirm", "apply", "read"];
  const SHOWN = 10;
  let all = false;

  const words = (name, seconds) => `${name} ${page.time(seconds)}`;

  const make = (it) => {
    const place = ([name]) => (STAGES.includes(name) ? STAGES.indexOf(name) : STAGES.length);
    const stages = Object.entries(page.object(it.stages))
      .filter(([, seconds]) => page.number(seconds) !== null)
      .sort((one, other) => place(one) - place(other));
    const total = Math.max(
      page.number(it.seconds) ?? 0,
      page.sum(stages.map(([, seconds]) => seconds)),
      1e-9,
    );
    const bar = page.el("span", { class: "stages", "aria-hidden": "true" });
    for (const [name, seconds] of stages) {
      const part = page.el("i", { data: { stage: STAGES.includes(name) ? name : "other" } });
      part.style.width = `${(seconds / total) * 100}%`;
      bar.append(part);
    }
    const where = [it.server, page.number(it.shard) === null ? null : `shard ${it.shard}`]
      .filter(Boolean)
      .map(String)
      .join(" · ");
    return page.el(
      "li",
      { class: "late", data: { server: it.server, verb: it.verb, seconds: it.seconds, outcome: it.outcome } },
      page.el("time", { text: page.clock(it.at) }),
      page.el("strong", { text: String(it.verb ?? page.none) }),
      page.el("span", { class: "late-where", text: where }),
      page.el("span", { class: "late-time", text: page.time(page.number(it.seconds)) }),
      page.el("span", {
        class: `late-outcome ${it.outcome === "ok" ? "hint" : "bad"}`,
        text: String(it.outcome ?? ""),
      }),
      bar,
      page.el("span", {
        class: "hint late-stages",
        text: stages.map(([name, seconds]) => words(name, seconds)).join(", "),
      }),
    );
  };

  page.parts.push({
    name: "slow",
    start() {
      const more = page.el("button", {
        type: "button",
        class: "quiet",
        on: {
          click: () => {
            all = !all;
            page.redraw();
          },
        },
      });
      page.id("slow").append(page.el("ol", { class: "lates" }), page.el("p", { class: "empty" }), more);
    },
    draw(view) {
      const slow = view.slow;
      const [list, empty, more] = page.id("slow").children;
      page.data(page.id("slow"), { count: slow.length });
      page.text(
        page.id("slow-sum"),
        slow.length ? `${page.plural(slow.length, "request")}, newest first` : "",
      );
      const shown = all ? slow : slow.slice(0, SHOWN);
      const seen = new Map();
      const key = (it) => {
        const name = `${it.server} ${it.at} ${it.verb} ${it.seconds}`;
        seen.set(name, (seen.get(name) ?? 0) + 1);
        return `${name} ${seen.get(name)}`;
      };
      page.each(list, shown, key, make);
      page.text(empty, slow.length ? "" : "No request was slow.");
      more.hidden = slow.length <= SHOWN;
      page.text(more, all ? "Show fewer" : `Show all ${slow.length}`);
    },
  });
}
