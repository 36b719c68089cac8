// The shard map: a square for each shard, and beside it the shard that is pointed at and what each group holds.
//
// The map is one stop of the keyboard: arrow keys walk inside. Squares are made once; an update writes only what changed, so
// 16,384 of them are no burden.
"use strict";
{
  page.map = {
    squares: [],
    drawn: [],
    current: null,
    pointed: null,
    only: null,
    plan: new Map(),
  };

  const FIGURES = {
    group: "group",
    state: "state",
    to: "to",
    keys: "keys",
    bytes: "bytes",
    reads: "reads",
    writes: "writes",
    pin: "pin",
  };

  const makeSquare = (shard) =>
    page.el("div", {
      class: "square",
      role: "option",
      id: `shard-${shard}`,
      "aria-selected": "false",
      data: { shard },
    });

  // How large a square is, so that all of them fill the width and no more than about 400 pixels of height.
  page.squareSize = (count, width) => {
    if (count === 0 || width <= 0) return { size: 20, gap: 3 };
    const gap = (size) => (size >= 24 ? 4 : size >= 12 ? 2 : 1);
    let size = Math.max(5, Math.min(56, Math.floor(Math.sqrt((width * 400) / count))));
    while (size > 5 && Math.ceil(count / Math.max(1, Math.floor(width / size))) * size > 420) size -= 1;
    // The squares of a row share what is left of its width.
    const columns = Math.max(1, Math.floor(width / size));
    const wide = count > columns ? Math.floor((width + gap(size)) / columns) : size;
    return { size: wide - gap(size), gap: gap(size) };
  };

  const layOut = () => {
    const box = page.id("map");
    const { size, gap } = page.squareSize(page.map.squares.length, box.clientWidth - 6);
    box.style.setProperty("--size", `${size}px`);
    box.style.setProperty("--gap", `${gap}px`);
    box.classList.toggle("large", size >= 26);
    box.classList.toggle("small", size < 10);
  };

  const resize = (count) => {
    const { squares, drawn } = page.map;
    if (squares.length === count) return;
    while (squares.length > count) squares.pop().remove();
    const more = document.createDocumentFragment();
    while (squares.length < count) {
      const square = makeSquare(squares.length);
      squares.push(square);
      more.append(square);
    }
    drawn.length = count;
    page.id("map").append(more);
    if (page.map.current !== null && page.map.current >= count) page.map.current = null;
    layOut();
  };

  const write = (square, shard, old, plan) => {
    const changed = {};
    for (const [name, key] of Object.entries(FIGURES))
      if (!old || old[key] !== shard[key]) changed[name] = shard[key];
    if (!old || old.group !== shard.group) changed.color = page.color(shard.group);
    if (!old || old.to !== shard.to || old.planned !== plan)
      changed.toColor = (plan ?? shard.to) ? page.color(plan ?? shard.to) : null;
    if (!old || old.planned !== plan) changed.plan = plan;
    if (!old || old.isOld !== shard.isOld) changed.old = shard.isOld ? "" : null;
    if (!old || old.changed !== shard.changed) changed.changed = shard.changed ? "" : null;
    page.data(square, changed);
    const done = shard.to !== null ? page.doneOf(shard) : 0;
    if (!old || old.done !== done) square.style.setProperty("--done", `${Math.round(done * 100)}%`);
    shard.done = done;
    shard.planned = plan;
  };

  // What part of a moving shard has arrived.
  page.doneOf = (shard) => {
    const arrived = shard.arrived ?? shard.progress ?? 0;
    const total = shard.total ?? shard.keys;
    return total ? Math.min(1, arrived / total) : 0;
  };

  const drawMap = (shards, view) => {
    const { squares, drawn, plan, only } = page.map;
    resize(shards.length);
    shards.forEach((shard, index) => {
      shard.isOld = view.age(shard.age) > page.OLD_SECONDS;
      write(squares[index], shard, drawn[index], plan.get(index) ?? null);
      squares[index].classList.toggle("dim", only !== null && shard.group !== only && shard.to !== only);
      // A copy: the next drawing may be of the same shard, grown old.
      drawn[index] = { ...shard };
    });
    const words = shards.length ? "" : "No shards are known.";
    page.id("map").dataset.count = shards.length;
    page.id("map").setAttribute("aria-description", words);
  };

  const describe = (shard) => {
    const parts = [`Shard ${shard.shard}`, page.group(shard.group), page.STATES[shard.state]];
    if (shard.to !== null) parts.push(`to group ${shard.to}`);
    if (shard.keys !== null) parts.push(page.plural(shard.keys, "key"), page.bytes(shard.bytes));
    if (page.opsOf(shard) !== null) parts.push(`${page.short(page.opsOf(shard))} operations a second`);
    return parts.join(", ");
  };

  const row = (name, figure, value, text, age) => {
    const cell = page.el("dd", { data: { figure } });
    page.figure(cell, value, text, age);
    return page.el("div", {}, page.el("dt", { text: name }), cell);
  };

  // The shard that has most of something, in words.
  const most = (name, figure, value, text) => {
    const first = page.map.drawn.reduce((a, b) => ((value(b) ?? 0) > (value(a) ?? 0) ? b : a), {});
    const found = value(first) > 0 ? first.shard : null;
    return row(name, figure, found, found === null ? page.none : `shard ${found}: ${text(value(first))}`, 0);
  };

  const summary = () => [
    page.el("p", { class: "hint", text: "Point at a shard to see its figures." }),
    page.el(
      "dl",
      { class: "pairs" },
      most("Most keys", "most-keys", (it) => it.keys, page.count),
      most("Most bytes", "most-bytes", (it) => it.bytes, page.bytes),
      most("Most op/s", "most-ops", page.opsOf, page.short),
    ),
  ];

  const drawDetail = (view) => {
    const { pointed, current, drawn } = page.map;
    const shard = drawn[pointed ?? current];
    const box = page.id("shard");
    page.data(box, { shard: shard ? shard.shard : null });
    if (!shard) {
      const none = page.el("p", { class: "empty", text: "No shards are known." });
      box.replaceChildren(...(drawn.length ? summary() : [none]));
      return;
    }
    const age = view.age(shard.age);
    const where = page.el(
      "p",
      { class: "detail-title" },
      page.el("strong", { text: `Shard ${shard.shard}` }),
      page.tag(shard.group),
    );
    if (shard.to !== null) where.append("→ ", page.tag(shard.to));
    const state = page.STATES[shard.state];
    box.replaceChildren(
      where,
      page.el(
        "dl",
        { class: "pairs" },
        row("State", "state", shard.state, shard.pin ? `${state}, pinned` : state, age),
        row("Keys", "keys", shard.keys, page.count(shard.keys), age),
        row("Bytes", "bytes", shard.bytes, page.bytes(shard.bytes), age),
        row("Reads a second", "reads", shard.reads, page.short(shard.reads), age),
        row("Writes a second", "writes", shard.writes, page.short(shard.writes), age),
        row(
          "Arrived",
          "done",
          shard.to === null ? null : shard.done,
          shard.to === null ? page.none : page.percent(shard.done),
          age,
        ),
      ),
    );
  };

  const choose = (shard) => {
    const { squares, drawn } = page.map;
    const old = squares[page.map.current];
    if (old) old.setAttribute("aria-selected", "false");
    page.map.current = shard;
    const square = squares[shard];
    if (!square) return;
    square.setAttribute("aria-selected", "true");
    if (drawn[shard]) square.setAttribute("aria-label", describe(drawn[shard]));
    page.id("map").setAttribute("aria-activedescendant", square.id);
    square.scrollIntoView({ block: "nearest" });
    drawDetail(page.view);
  };

  const walk = (event) => {
    const { squares, current } = page.map;
    if (!squares.length) return;
    const top = squares[0].offsetTop;
    const columns = Math.max(
      1,
      squares.findIndex((it) => it.offsetTop > top),
    );
    const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns };
    let next = current ?? 0;
    if (event.key in steps) next = current === null ? 0 : current + steps[event.key];
    else if (event.key === "Home") next = 0;
    else if (event.key === "End") next = squares.length - 1;
    else return;
    event.preventDefault();
    page.map.pointed = null;
    choose(Math.max(0, Math.min(squares.length - 1, next)));
  };

  const listen = () => {
    const box = page.id("map");
    box.addEventListener("pointerover", (event) => {
      const shard = event.target.dataset?.shard;
      page.map.pointed = shard === undefined ? null : Number(shard);
      drawDetail(page.view);
    });
    box.addEventListener("pointerleave", () => {
      page.map.pointed = null;
      drawDetail(page.view);
    });
    box.addEventListener("click", (event) => {
      if (event.target.dataset?.shard !== undefined) choose(Number(event.target.dataset.shard));
    });
    box.addEventListener("keydown", walk);
    box.addEventListener("focus", () => page.map.current === null && page.map.squares.length && choose(0));
    new ResizeObserver(layOut).observe(box);
  };

  const light = (gid) => {
    page.map.only = page.map.only === gid ? null : gid;
    page.redraw();
  };

  const drawOwners = (model, view) => {
    const owned = new Map();
    for (const it of page.map.drawn) owned.set(it.group, (owned.get(it.group) ?? 0) + 1);
    const rows = model.groups.filter((it) => it.joined || owned.get(it.gid) || it.held.length);
    const make = (group) =>
      page.el(
        "tr",
        {},
        page.el(
          "th",
          { scope: "row" },
          page.el(
            "button",
            {
              type: "button",
              class: "plain",
              title: "Show only this group",
              "aria-label": `Show only group ${group.gid}`,
              on: { click: () => light(group.gid) },
            },
            page.tag(group.gid),
          ),
          page.el("small"),
        ),
        ...["shards", "bytes", "ops"].map((figure) =>
          page.el("td", { class: "n", data: { figure, group: group.gid } }),
        ),
      );
    page.each(
      page.id("owners").tBodies[0],
      rows,
      (it) => it.gid,
      make,
      (line, group) => {
        const age = view.age(group.age);
        const [head, count, bytes, ops] = line.cells;
        head.firstElementChild.setAttribute("aria-pressed", String(page.map.only === group.gid));
        const weight = group.weight !== null && group.weight !== 100 ? ` weight ${group.weight}` : "";
        page.text(head.lastElementChild, group.joined ? weight : " not joined");
        page.figure(count, owned.get(group.gid) ?? 0, page.count(owned.get(group.gid) ?? 0), view.age(0));
        // Of an older configuration only the owners are known.
        const [held, asked] = view.chosen ? [null, null] : [group.bytes, group.requests];
        page.figure(bytes, held, page.bytes(held), age);
        page.figure(ops, asked, page.short(asked), age);
      },
    );
  };

  const drawKeys = (shards) => {
    const counts = new Map();
    for (const it of shards) counts.set(it.state, (counts.get(it.state) ?? 0) + 1);
    const shown = Object.entries(page.STATES).filter(([state]) => counts.has(state));
    page.each(
      page.id("states"),
      shown,
      ([state]) => state,
      ([state, text]) =>
        page.el(
          "li",
          { data: { state } },
          page.el("i", { class: "square", "aria-hidden": "true", data: { state, color: "key" } }),
          page.el("span", { text }),
          page.el("b"),
        ),
      (item, [state]) => page.figure(item.lastElementChild, counts.get(state), page.count(counts.get(state))),
    );
  };

  page.parts.push({
    name: "shards",
    start: listen,
    draw(view) {
      const shards = view.chosen ? page.shardsOf(view.chosen, view.before) : view.model.shards;
      drawMap(shards, view);
      drawDetail(view);
      drawOwners(view.model, view);
      drawKeys(shards);
    },
  });
}
