// Two charts that share their time: requests a second, and the time to an answer. A line for each group, a mark for each
// election, configuration, and server that went or came. The tables below have the same numbers; while the pointer is in a
// chart, they show the moment that it points at.
"use strict";
{
  const SPANS = [
    [60, "1 min"],
    [300, "5 min"],
    [900, "15 min"],
    [3600, "1 h"],
  ];
  const QUANTILES = [
    ["p50", "p50"],
    ["p99", "p99"],
    ["p999", "p99.9"],
  ];
  const state = {
    span: 300,
    shown: 300,
    end: 0,
    quantile: "p99",
    charts: new Map(),
    pointed: null,
    data: null,
  };

  const markColor = (kind) =>
    page.css({ election: "--election", configuration: "--configuration" }[kind] ?? "--server-mark");

  const drawMarks = (chart) => {
    const { ctx, bbox } = chart;
    const { min, max } = chart.scales.x;
    ctx.save();
    ctx.lineWidth = devicePixelRatio;
    for (const mark of page.past.marks) {
      const at = mark.at / 1000;
      if (!(at >= min && at <= max)) continue;
      const x = Math.round(chart.valToPos(at, "x", true)) + 0.5;
      const tip = 4 * devicePixelRatio;
      ctx.strokeStyle = ctx.fillStyle = markColor(mark.kind);
      ctx.setLineDash(mark.kind === "configuration" ? [] : [4 * devicePixelRatio, 3 * devicePixelRatio]);
      ctx.beginPath();
      ctx.moveTo(x, bbox.top);
      ctx.lineTo(x, bbox.top + bbox.height);
      ctx.stroke();
      ctx.beginPath();
      ctx.moveTo(x - tip, bbox.top);
      ctx.lineTo(x + tip, bbox.top);
      ctx.lineTo(x, bbox.top + 1.6 * tip);
      ctx.fill();
    }
    ctx.restore();
  };

  const axis = (more) => ({
    stroke: () => page.css("--soft"),
    grid: { stroke: () => page.css("--line"), width: 1 },
    ticks: { show: false },
    font: "12px system-ui, sans-serif",
    ...more,
  });

  const timeWords = (chart, splits) =>
    splits.map((at) => (state.shown > 300 ? page.clock(at * 1000).slice(0, 5) : page.clock(at * 1000)));

  const options = (box, gids, values, least) => ({
    width: Math.max(120, box.clientWidth),
    height: 190,
    padding: [10, 28, 0, 0],
    legend: { show: false },
    cursor: { sync: { key: "charts" }, y: false, drag: { x: false, y: false }, points: { size: 7 } },
    scales: {
      x: { time: true, range: () => [state.end - state.shown, state.end] },
      y: { range: (chart, min, max) => [0, Math.max(max * 1.08, least)] },
    },
    axes: [
      axis({ values: timeWords, space: 90, size: 28 }),
      axis({ values: (chart, splits) => splits.map(values), size: 66, space: 36, gap: 6 }),
    ],
    series: [
      {},
      ...gids.map((gid, index) => ({
        label: String(gid),
        stroke: () => page.css(`--g${page.color(gid)}`),
        width: 1.75,
        dash: index >= 8 ? [6, 3] : undefined,
        points: { show: false },
        spanGaps: false,
      })),
    ],
    hooks: {
      draw: [drawMarks],
      setCursor: [
        (chart) => {
          const index = chart.cursor.idx;
          const pointed = index === null || index === undefined || chart.cursor.left < 0 ? null : index;
          if (pointed === state.pointed) return;
          state.pointed = pointed;
          drawTables(page.view);
        },
      ],
    },
  });

  const chartOf = (id, gids, values, least) => {
    const box = page.id(id);
    const key = gids.join(" ");
    const old = state.charts.get(id);
    if (old?.key === key) return old.chart;
    old?.chart.destroy();
    box.replaceChildren();
    const chart = new uPlot(options(box, gids, values, least), [[], ...gids.map(() => [])], box);
    state.charts.set(id, { key, chart });
    return chart;
  };

  // The samples of the shown span, by group.
  const collect = () => {
    const { past } = page;
    const times = past.times.tail(past.times.length);
    const from = state.end - state.shown - 5;
    let many = times.length;
    while (many > 0 && times[times.length - many] < from) many -= 1;
    const gids = [...past.groups.keys()].sort((a, b) => a - b);
    const series = new Map(
      gids.map((gid) => [
        gid,
        Object.fromEntries(page.SERIES.map((name) => [name, past.groups.get(gid)[name].tail(many)])),
      ]),
    );
    return { times: times.slice(times.length - many), gids, series };
  };

  const lineOf = (gid, figures) =>
    page.el(
      "tr",
      {},
      page.el("th", { scope: "row" }, page.tag(gid)),
      ...figures.map((figure) => page.el("td", { class: "n", data: { figure, group: gid } })),
    );

  // What a table says of a group: now, or at the moment that is pointed at.
  const reader = (view, at) => (gid) => {
    const group = view.model.groups.find((it) => it.gid === gid);
    if (at === null) return { get: (name) => group?.[name] ?? null, age: view.age(group?.age ?? 0), group };
    return { get: (name) => state.data.series.get(gid)?.[name][at] ?? null, age: 0, group: null };
  };

  const writeOps = (line, gid, { get, age, group }) => {
    const known = (state.data.series.get(gid)?.requests ?? []).filter((it) => it !== null);
    const mean = known.length ? page.sum(known) / known.length : null;
    const most = known.length ? known.reduce((a, b) => Math.max(a, b)) : null;
    const failed = group?.failed ?? null;
    const [, now, bad, middle, peak] = line.cells;
    page.figure(now, get("requests"), page.short(get("requests")), age);
    page.figure(bad, failed, page.short(failed), age);
    if (group?.failures) bad.title = group.failures;
    bad.classList.toggle("bad", failed > 0);
    page.figure(middle, mean, page.short(mean));
    page.figure(peak, most, page.short(most));
  };

  const writeLate = (line, { get, age }) => {
    ["p50", "p99", "p999"].forEach((name, index) => {
      page.figure(line.cells[index + 1], get(name), page.time(get(name)), age);
    });
  };

  const drawTables = (view) => {
    const { data, pointed } = state;
    if (!data) return;
    const at = pointed !== null && pointed < data.times.length ? pointed : null;
    const read = reader(view, at);
    const gids = data.gids.length ? data.gids : view.model.groups.map((group) => group.gid);
    const when = at === null ? "Now" : page.clock(data.times[at] * 1000);
    const [ops, late] = [page.id("ops-table"), page.id("late-table")];
    const same = (gid) => gid;
    page.text(ops.tHead.rows[0].cells[1], when);
    page.text(late.tHead.rows[0].cells[0], at === null ? "Group" : `At ${when}`);
    const opsLine = (gid) => lineOf(gid, ["requests", "failed", "mean", "most"]);
    page.each(ops.tBodies[0], gids, same, opsLine, (line, gid) => writeOps(line, gid, read(gid)));
    const lateLine = (gid) => lineOf(gid, ["p50", "p99", "p999"]);
    page.each(late.tBodies[0], gids, same, lateLine, (line, gid) => writeLate(line, read(gid)));
  };

  const drawCharts = () => {
    const { times, gids, series } = state.data;
    for (const id of ["ops", "late"]) {
      const few = times.length < 2;
      page.id(id).classList.toggle("few", few);
      if (few) {
        state.charts.get(id)?.chart.destroy();
        state.charts.delete(id);
        const words =
          page.view.link === "saved"
            ? "A saved document has one moment. The table has its figures."
            : "The first samples are on their way.";
        page.id(id).replaceChildren(page.el("p", { class: "empty", text: words }));
        continue;
      }
      const name = id === "ops" ? "requests" : state.quantile;
      const chart = id === "ops" ? chartOf(id, gids, page.short, 10) : chartOf(id, gids, page.time, 0.001);
      chart.setData([times, ...gids.map((gid) => series.get(gid)[name])]);
    }
  };

  const drawMarkList = (isSaved) => {
    const newest = page.past.marks.slice(-60).reverse();
    const make = (mark) =>
      page.el(
        "li",
        { data: { mark: mark.kind, group: mark.group, at: mark.at } },
        page.el("i", { class: "dot", "aria-hidden": "true" }),
        page.el("time", { text: page.clock(mark.at) }),
        page.el("span"),
      );
    page.each(
      page.id("marks"),
      newest,
      (mark) => mark.key ?? `${mark.at} ${mark.text}`,
      make,
      (item, mark) => page.text(item.lastElementChild, mark.text),
    );
    page.id("marks").hidden = newest.length === 0;
    page.id("marks-none").hidden = newest.length > 0;
    page.text(
      page.id("marks-none"),
      isSaved ? "A saved document has one moment." : "Nothing since this page was opened.",
    );
  };

  // Lines and axes have the colours of the theme, so another theme draws them anew.
  const again = () => {
    for (const { chart } of state.charts.values()) chart.redraw(false, true);
  };

  page.parts.push({
    name: "charts",
    start() {
      page.choice(page.id("span"), SPANS, state.span, (span) => {
        state.span = span;
        page.redraw();
      });
      page.choice(page.id("quantile"), QUANTILES, state.quantile, (quantile) => {
        state.quantile = quantile;
        page.redraw();
      });
      matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
      new ResizeObserver(() => {
        for (const [id, { chart }] of state.charts)
          chart.setSize({ width: Math.max(120, page.id(id).clientWidth), height: 190 });
      }).observe(page.id("ops"));
    },
    draw(view) {
      const { times } = page.past;
      state.end = times.length ? times.at(times.length - 1) : 0;
      // A page that was opened just now does not begin with an empty hour.
      state.shown = Math.min(state.span, Math.max(60, state.end - (times.length ? times.at(0) : 0)));
      state.data = collect();
      drawCharts();
      drawTables(view);
      drawMarkList(view.link === "saved");
    },
  });
}
