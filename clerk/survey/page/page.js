// The page: takes documents from the feed, and lets each part draw them.
//
// The head is drawn here: the sentence of health, what is wrong, and the figures of the whole cluster. A part that fails does
// not stop the others. A page that nobody sees remembers, and draws nothing.
"use strict";
{
  const DRAW_MS = 200;
  const LOST_SECONDS = 3;

  page.past = new page.Past();
  page.view = null;

  const now = { raw: null, configs: [], slow: [], received: null, model: null, isSaved: false, feed: null };
  let waiting = false;
  let drawn = 0;

  const extraOf = () =>
    now.isSaved || now.received === null ? 0 : (performance.now() - now.received) / 1000;

  const linkOf = () => {
    if (now.isSaved) return "saved";
    if (now.received === null) return "waiting";
    if (extraOf() > LOST_SECONDS) return "lost";
    return now.feed?.stream ? "live" : "polling";
  };

  const viewOf = () => {
    const extra = extraOf();
    return {
      model: now.model,
      slow: now.slow,
      isKnown: now.raw !== null,
      link: linkOf(),
      extra,
      // How old something is now that was so old when it came; null: never heard.
      age: (base) => (base ?? Infinity) + (extra > 1.5 ? extra : 0),
    };
  };

  const LINKS = {
    waiting: "Waiting for the first answer",
    live: "Live",
    polling: "Every two seconds",
    saved: "Saved document",
  };

  const drawLink = (view) => {
    const box = page.id("link");
    const words = view.link === "lost" ? "No answer" : LINKS[view.link];
    const when =
      view.link === "saved"
        ? view.model.at === null
          ? ""
          : `of ${page.day(view.model.at)}`
        : view.link === "lost"
          ? `for ${page.span(view.extra)}`
          : "";
    if (box.dataset.link !== view.link || box.children.length === 0) {
      const others =
        view.link === "lost"
          ? view.model.controllers.filter((it) => it.http && it.name !== view.model.seenBy)
          : [];
      box.replaceChildren(
        page.el("span", { class: "lamp", "aria-hidden": "true" }),
        page.el("span", { text: words }),
        page.el("span", { "aria-hidden": "true" }),
        ...others.map((it) => page.el("a", { href: `http://${it.http}/`, rel: "noreferrer", text: it.name })),
      );
    }
    page.data(box, { link: view.link, seconds: Math.round(view.extra) });
    page.text(box.children[2], when);
  };

  const leadersOf = (model) => {
    const rows = [
      ["ctrl", page.leaderOf(model.controllers)],
      ...model.groups.map((it) => [it.gid, it.leader]),
    ];
    return rows.filter(([gid]) => gid !== "ctrl" || model.controllers.length);
  };

  const factsOf = (view) => {
    const { model } = view;
    const servers = [...model.controllers, ...model.groups.flatMap((it) => it.replicas)];
    const up = servers.filter((it) => it.up).length;
    const leaders = leadersOf(model);
    const led = leaders.filter(([, it]) => it).length;
    const slowest = model.groups
      .map((it) => it.p99)
      .filter((it) => it !== null)
      .reduce((a, b) => Math.max(a, b), -1);
    const requests = model.groups.some((it) => it.requests !== null)
      ? page.sum(model.groups.map((it) => it.requests))
      : null;
    const oldest = view.age(
      model.groups
        .map((it) => it.age)
        .filter(Number.isFinite)
        .reduce((a, b) => Math.max(a, b), 0),
    );
    const [keys, bytes] = ["keys", "bytes"].map((name) => page.sum(model.groups.map((it) => it[name])));
    return [
      [
        "config",
        "Configuration",
        model.config,
        page.count(model.config),
        view.age(model.configAge),
        model.settled === false ? "not settled" : model.settled ? "settled" : "",
      ],
      [
        "servers",
        "Servers",
        up,
        `${up} of ${servers.length}`,
        view.age(0),
        up === servers.length ? "answer" : "answer now",
      ],
      [
        "leaders",
        "Leaders",
        led,
        `${led} of ${leaders.length}`,
        view.age(0),
        leaders.length > 4
          ? "groups have one"
          : leaders.map(([gid, it]) => it?.name ?? `none in ${gid}`).join(", "),
      ],
      ["requests", "Requests", requests, page.short(requests), oldest, "a second"],
      [
        "p99",
        "p99",
        slowest < 0 ? null : slowest,
        page.time(slowest < 0 ? null : slowest),
        oldest,
        "of the slowest group",
      ],
      ["keys", "Keys", keys, page.short(keys), oldest, page.bytes(bytes)],
      [
        "moving",
        "Moving",
        model.moves.length,
        page.count(model.moves.length),
        view.age(0),
        model.moves.length === 1 ? "shard" : "shards",
      ],
    ];
  };

  const drawFacts = (view) => {
    const make = ([name, label]) =>
      page.el(
        "div",
        { data: { fact: name } },
        page.el("dt", { text: label }),
        page.el("dd", {}, page.el("strong", { data: { figure: name } }), page.el("small")),
      );
    page.each(
      page.id("facts"),
      factsOf(view),
      ([name]) => name,
      make,
      (item, [, , value, text, age, note]) => {
        const [strong, small] = item.lastElementChild.children;
        page.figure(strong, value, text, age);
        page.text(small, age > page.OLD_SECONDS ? `${page.span(age)} ago` : note);
        small.title = note;
      },
    );
  };

  const drawHealth = (view) => {
    const { health } = view.model;
    const isLost = view.link === "lost";
    page.data(page.id("health"), {
      health: !view.isKnown ? "unknown" : isLost ? "old" : health.ok ? "ok" : "bad",
    });
    const words = !view.isKnown
      ? "Asking the servers"
      : isLost
        ? `This controller does not answer. The figures are ${page.span(view.extra)} old.`
        : health.text;
    page.text(page.id("health-text"), words);
    const others = health.problems.filter((it) => isLost || !health.text.startsWith(it));
    page.each(
      page.id("troubles"),
      others.slice(0, 8),
      (it) => it,
      (it) => page.el("li", { text: it }),
    );
    page.data(page.id("troubles"), { count: health.problems.length });
  };

  const drawHead = (view) => {
    page.text(page.id("cluster"), view.model.cluster ?? "cluster");
    const mark = { ok: "", bad: "(!) ", old: "(?) ", unknown: "" }[page.id("health").dataset.health] ?? "";
    document.title = `${mark}${view.model.cluster ?? "Cluster"}`;
    page.text(
      page.id("stamp"),
      view.model.at === null
        ? ""
        : `Seen ${view.model.seenBy ? `by ${view.model.seenBy} ` : ""}at ${page.day(view.model.at)}.`,
    );
  };

  const drawAll = () => {
    if (!now.model) now.model = page.model({}, now.configs);
    const view = viewOf();
    page.view = view;
    for (const draw of [drawLink, drawHealth, drawFacts, drawHead]) draw(view);
    for (const part of page.parts) part.choose?.(view);
    for (const part of page.parts) {
      try {
        part.draw(view);
      } catch (error) {
        console.error(part.name, error);
      }
    }
    drawn += 1;
    page.data(document.documentElement, {
      drawn,
      link: view.link,
      config: view.model.config,
      at: view.model.at,
    });
  };

  // At most one drawing each 200 ms, however many events come.
  page.redraw = () => {
    if (waiting) return;
    waiting = true;
    setTimeout(
      () =>
        requestAnimationFrame(() => {
          waiting = false;
          page.drawnAt = performance.now();
          drawAll();
        }),
      performance.now() - (page.drawnAt ?? -DRAW_MS) >= DRAW_MS ? 0 : DRAW_MS,
    );
  };

  const take = (kind, raw) => {
    if (kind === "slow") now.slow = page.array(page.object(raw).slow).slice(0, 128).map(page.object);
    if (kind === "past") page.past.addPast(page.object(raw).past);
    if (kind === "history") {
      now.configs = page.configsOf(raw);
      page.past.addConfigs(now.configs);
      if (now.raw) now.model = page.model(now.raw, now.configs);
    }
    if (kind === "state") {
      now.raw = raw;
      now.received = performance.now();
      now.model = page.model(raw, now.configs);
      page.past.add(now.model);
      page.addHeat(now.model);
    }
    if (!document.hidden) page.redraw();
  };

  const begin = () => {
    for (const part of page.parts) part.start?.();
    let saved = null;
    try {
      saved = page.saved();
    } catch {
      page.text(page.id("health-text"), "The saved document cannot be read.");
      return;
    }
    if (saved) {
      now.isSaved = true;
      take("past", saved);
      take("history", saved);
      take("slow", saved);
      take("state", saved);
      drawAll();
      return;
    }
    now.feed = new page.Feed(take);
    now.feed.start();
    drawAll();
    setInterval(() => {
      if (!document.hidden && extraOf() > 1.5) page.redraw();
    }, 1000);
    document.addEventListener("visibilitychange", () => !document.hidden && page.redraw());
  };

  begin();
}
