// Shards on their way: how far each is, how fast, how long it still takes, and what it waits for.
"use strict";
{
  const SHOWN = 12;

  const PHASES = {
    offered: "served by the old group meanwhile",
    sealed: "frozen until it has arrived",
    awaited: "only the new group answers",
  };

  // What waits comes first, then what is under way.
  const rank = (it) => (it.waits_for ? 0 : it.rows ? 1 : 2);
  const first = (a, b) => rank(a) - rank(b) || a.shard - b.shard;

  const make = (it) =>
    page.el(
      "li",
      { class: "move", data: { shard: it.shard } },
      page.el(
        "span",
        { class: "move-what" },
        page.el("strong", { text: `Shard ${it.shard}` }),
        page.tag(it.from),
        "→",
        page.tag(it.to),
      ),
      page.el(
        "span",
        {
          class: "bar",
          role: "progressbar",
          "aria-label": `Shard ${it.shard}`,
          "aria-valuemin": 0,
          "aria-valuemax": 100,
        },
        page.el("i"),
      ),
      page.el("span", { class: "move-rows", data: { figure: "rows" } }),
      page.el("span", { class: "move-rate", data: { figure: "rate" } }),
      page.el("span", { class: "move-left", data: { figure: "left" } }),
      page.el("span", { class: "move-why" }),
    );

  const write = (item, it, view) => {
    const [, bar, rows, rate, left, why] = item.children;
    const total = page.number(it.rows_total);
    const share = total ? Math.min(1, (page.number(it.rows) ?? 0) / total) : 0;
    const age = view.age(0);
    page.data(item, { from: it.from, to: it.to, phase: it.phase, rows: it.rows, total });
    bar.firstElementChild.style.width = `${share * 100}%`;
    bar.setAttribute("aria-valuenow", Math.round(share * 100));
    page.data(bar, { level: it.waits_for ? "warn" : null });
    page.figure(rows, page.number(it.rows), `${page.count(it.rows)} of ${page.count(total)} keys`, age);
    page.figure(
      rate,
      page.number(it.rows_per_second),
      page.number(it.rows_per_second) === null ? "" : `${page.short(it.rows_per_second)} keys/s`,
      age,
    );
    page.figure(
      left,
      page.number(it.seconds_left),
      page.number(it.seconds_left) === null ? "" : `${page.span(it.seconds_left)} left`,
      age,
    );
    page.text(why, it.waits_for ? `Waits: ${it.waits_for}` : (PHASES[it.phase] ?? ""));
    why.classList.toggle("bad", Boolean(it.waits_for));
  };

  page.parts.push({
    name: "moves",
    start() {
      page.id("moves").append(page.el("ul", { class: "moves" }), page.el("p", { class: "hint" }));
    },
    draw(view) {
      const { moves, pending } = view.model;
      const [list, more] = page.id("moves").children;
      const rows = page.sum(moves.map((it) => it.rows));
      const total = page.sum(moves.map((it) => it.rows_total));
      page.text(
        page.id("moves-sum"),
        moves.length
          ? `${page.plural(moves.length, "shard")} on the way, ${page.percent(total ? rows / total : 0)} of their keys arrived`
          : "",
      );
      page.data(page.id("moves"), { count: moves.length });
      page.each(
        list,
        [...moves].sort(first).slice(0, SHOWN),
        (it) => it.shard,
        make,
        (item, it) => write(item, it, view),
      );
      const words =
        moves.length > SHOWN
          ? `And ${moves.length - SHOWN} more.`
          : moves.length
            ? ""
            : pending.length
              ? pending.slice(0, 5).join("; ")
              : "No shard moves.";
      page.text(more, words);
    },
  });
}
