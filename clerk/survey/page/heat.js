// The heat map: which shards clients asked for, over the last ten minutes. A row is a shard, or a few neighbours if there are
// many; a column is two seconds.
"use strict";
{
  const COLUMNS = 300;
  const STEP_MS = 2000;
  const ROWS_MAX = 128;
  const LEFT = 44;
  const BOTTOM = 20;

  const heat = {
    shards: 0,
    bin: 1,
    rows: 0,
    cells: new Float32Array(0),
    times: new Float64Array(COLUMNS),
    next: 0,
    at: null,
  };

  const clear = (shards) => {
    heat.shards = shards;
    heat.bin = Math.max(1, Math.ceil(shards / ROWS_MAX));
    heat.rows = Math.ceil(shards / heat.bin);
    heat.cells = new Float32Array(heat.rows * COLUMNS);
    heat.times.fill(0);
    heat.next = 0;
  };

  // A new column, or a new value of the last one if that is not over. Of neighbours in one row the hottest counts.
  page.addHeat = (model) => {
    if (model.shards.length !== heat.shards) clear(model.shards.length);
    if (!heat.rows || model.at === null) return;
    const last = heat.next ? heat.times[(heat.next - 1) % COLUMNS] : -Infinity;
    if (model.at < last) clear(model.shards.length);
    if (model.at - last >= STEP_MS || heat.next === 0) {
      heat.times[heat.next % COLUMNS] = model.at;
      heat.next += 1;
    }
    const column = (heat.next - 1) % COLUMNS;
    heat.cells.fill(0, column * heat.rows, (column + 1) * heat.rows);
    for (const shard of model.shards) {
      const place = column * heat.rows + Math.floor(shard.shard / heat.bin);
      heat.cells[place] = Math.max(heat.cells[place], page.opsOf(shard) ?? 0);
    }
  };

  const columnsNow = () => Math.min(heat.next, COLUMNS);
  // The number of columns in the picture: it does not begin empty.
  const columnsShown = () => Math.min(COLUMNS, Math.max(30, columnsNow()));
  const cellAt = (column, row) => {
    const index = heat.next - columnsShown() + column;
    if (index < 0 || index < heat.next - COLUMNS) return null;
    return { at: heat.times[index % COLUMNS], value: heat.cells[(index % COLUMNS) * heat.rows + row] };
  };

  const channels = (color) => [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16));
  const rampOf = () => {
    const stops = [0, 1, 2, 3, 4].map((index) => channels(page.css(`--heat${index}`)));
    return (share) => {
      const place = Math.min(3.999, Math.max(0, share * 4));
      const [from, to] = [stops[Math.floor(place)], stops[Math.floor(place) + 1]];
      return from.map((value, index) => value + (to[index] - value) * (place % 1));
    };
  };

  const picture = (columns, most) => {
    const image = new ImageData(columns, heat.rows);
    const ramp = rampOf();
    for (let column = 0; column < columns; column += 1) {
      for (let row = 0; row < heat.rows; row += 1) {
        const cell = cellAt(column, row);
        if (cell)
          image.data.set(
            [...ramp(most > 0 ? Math.sqrt(cell.value / most) : 0), 255],
            (row * columns + column) * 4,
          );
      }
    }
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [columns, heat.rows];
    canvas.getContext("2d").putImageData(image, 0, 0);
    return canvas;
  };

  const rowName = (row) => {
    const [from, to] = [row * heat.bin, Math.min(heat.shards, (row + 1) * heat.bin) - 1];
    return from === to ? `Shard ${from}` : `Shards ${from}–${to}`;
  };

  const drawAxes = (ctx, width, height) => {
    ctx.fillStyle = page.css("--soft");
    ctx.font = "12px system-ui, sans-serif";
    ctx.textAlign = "right";
    const every = Math.max(1, Math.ceil((heat.rows * 18) / height));
    for (let row = 0; row < heat.rows; row += every) {
      const y = Math.max(8, ((row + 0.5) * height) / heat.rows);
      ctx.textBaseline = "middle";
      ctx.fillText(String(row * heat.bin), LEFT - 6, y);
    }
    const columns = columnsShown();
    ctx.textBaseline = "alphabetic";
    for (const [column, align] of [
      [columns - columnsNow(), "left"],
      [columns - 1, "right"],
    ]) {
      const cell = cellAt(column, 0);
      if (!cell || (align === "left" && columnsNow() < 2)) continue;
      const x = LEFT + ((column + (align === "right" ? 1 : 0)) * (width - LEFT)) / columns;
      if (align === "left" && x > width - 140) continue;
      ctx.textAlign = align;
      ctx.fillText(page.clock(cell.at), x, height + BOTTOM - 5);
    }
  };

  const draw = () => {
    const canvas = page.id("heat");
    canvas.hidden = heat.next === 0;
    page.id("heat-scale").hidden = heat.next === 0;
    const width = canvas.clientWidth;
    const height = Math.max(96, Math.min(256, heat.rows * 10));
    canvas.style.height = `${height + BOTTOM}px`;
    const scale = devicePixelRatio || 1;
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round((height + BOTTOM) * scale);
    const ctx = canvas.getContext("2d");
    ctx.scale(scale, scale);
    const most = heat.cells.reduce((a, b) => Math.max(a, b), 0);
    if (heat.rows && heat.next) {
      const columns = columnsShown();
      ctx.imageSmoothingEnabled = false;
      ctx.fillStyle = page.css("--well");
      ctx.fillRect(LEFT, 0, width - LEFT, height);
      ctx.drawImage(picture(columns, most), LEFT, 0, width - LEFT, height);
      drawAxes(ctx, width, height);
      if (heat.at) {
        ctx.strokeStyle = page.css("--ink");
        ctx.strokeRect(
          LEFT + (heat.at.column * (width - LEFT)) / columns,
          (heat.at.row * height) / heat.rows,
          (width - LEFT) / columns,
          height / heat.rows,
        );
      }
    }
    page.data(canvas, { most, rows: heat.rows, columns: columnsNow() });
    page
      .id("heat-scale")
      .replaceChildren(
        "0",
        page.el("i", { class: "ramp", "aria-hidden": "true" }),
        `${page.short(most)} op/s`,
      );
  };

  const say = () => {
    const cell = heat.at ? cellAt(heat.at.column, heat.at.row) : null;
    if (cell) {
      page.text(
        page.id("heat-text"),
        `${rowName(heat.at.row)} at ${page.clock(cell.at)}: ${page.short(cell.value)} operations a second${heat.bin > 1 ? " on the hottest" : ""}.`,
      );
      return;
    }
    const hot = page.view.model.shards
      .filter((it) => page.opsOf(it) > 0)
      .sort((a, b) => page.opsOf(b) - page.opsOf(a))
      .slice(0, 4);
    const words = hot.map(
      (it) => `shard ${it.shard} of group ${it.group} (${page.short(page.opsOf(it))} op/s)`,
    );
    page.text(
      page.id("heat-text"),
      hot.length ? `Hottest now: ${words.join(", ")}.` : "No shard is asked for now.",
    );
    page.data(page.id("heat-text"), { hottest: hot[0]?.shard ?? null });
  };

  const point = (column, row) => {
    const columns = columnsShown();
    heat.at = {
      column: Math.max(0, Math.min(columns - 1, column)),
      row: Math.max(0, Math.min(heat.rows - 1, row)),
    };
    draw();
    say();
  };

  const leave = () => {
    heat.at = null;
    draw();
    say();
  };

  page.parts.push({
    name: "heat",
    start() {
      const canvas = page.id("heat");
      canvas.addEventListener("pointermove", (event) => {
        const height = canvas.clientHeight - BOTTOM;
        if (!heat.rows || event.offsetX < LEFT || event.offsetY > height) return leave();
        return point(
          Math.floor(((event.offsetX - LEFT) / (canvas.clientWidth - LEFT)) * columnsShown()),
          Math.floor((event.offsetY / height) * heat.rows),
        );
      });
      canvas.addEventListener("pointerleave", leave);
      canvas.addEventListener("blur", leave);
      canvas.addEventListener("keydown", (event) => {
        const step = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] }[
          event.key
        ];
        if (!step || !heat.rows) return;
        event.preventDefault();
        const at = heat.at ?? { column: columnsShown() - 1 - step[0], row: -step[1] };
        point(at.column + step[0], at.row + step[1]);
      });
      new ResizeObserver(() => draw()).observe(page.id("heat-text"));
    },
    draw() {
      draw();
      say();
    },
  });
}
