// What all parts of the page use: elements, numbers in words, figures with their age.
//
// Each script adds to `page`; nothing else is global. Data reaches the document only as text and as attributes: nothing
// here parses markup.
"use strict";
const page = { parts: [] };
{
  // An element. Attributes: `text`, `class`, `on` (handlers by event), `data` (data- attributes); others as they are named.
  page.el = (name, attributes = {}, ...children) => {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (value === null || value === undefined || value === false) continue;
      if (key === "text") element.textContent = value;
      else if (key === "data") page.data(element, value);
      else if (key === "on")
        for (const [event, run] of Object.entries(value)) element.addEventListener(event, run);
      else element.setAttribute(key, value === true ? "" : value);
    }
    element.append(...children.filter((child) => child !== null && child !== undefined));
    return element;
  };

  page.id = (id) => document.getElementById(id);

  page.text = (element, text) => {
    if (element.textContent !== text) element.textContent = text;
  };

  // Sets data- attributes; null removes one. Writes only what changed.
  page.data = (element, values) => {
    for (const [key, value] of Object.entries(values)) {
      if (value === null || value === undefined) delete element.dataset[key];
      else if (element.dataset[key] !== String(value)) element.dataset[key] = value;
    }
  };

  // Keeps one child of `parent` for each item, in order. A child stays the same element while its key lasts, so focus and
  // hover survive an update. `make(item)` makes an element, `fill(element, item)` writes the item into it.
  page.each = (parent, items, key, make, fill) => {
    const old = new Map();
    for (const child of parent.children) old.set(child.dataset.key, child);
    let place = parent.firstElementChild;
    for (const item of items) {
      const name = String(key(item));
      let child = old.get(name);
      if (child) old.delete(name);
      else {
        child = make(item);
        child.dataset.key = name;
      }
      if (fill) fill(child, item);
      if (child === place) place = place.nextElementSibling;
      else parent.insertBefore(child, place);
    }
    for (const child of old.values()) child.remove();
  };

  // A number, or null for what is none: JSON may lack it, or have null.
  page.number = (value) => (typeof value === "number" && Number.isFinite(value) ? value : null);
  page.array = (value) => (Array.isArray(value) ? value : []);
  page.object = (value) =>
    value !== null && typeof value === "object" && !Array.isArray(value) ? value : {};
  page.sum = (values) => values.reduce((sum, value) => sum + (page.number(value) ?? 0), 0);

  page.none = "–";
  const plain = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
  const digits = (value, most) =>
    new Intl.NumberFormat("en", { maximumSignificantDigits: most }).format(value);

  page.count = (value) => (page.number(value) === null ? page.none : plain.format(value));

  // At most four characters and a unit, for places where numbers are large.
  page.short = (value) => {
    if (page.number(value) === null) return page.none;
    for (const [size, unit] of [
      [1e9, " G"],
      [1e6, " M"],
      [1e4, " k"],
    ]) {
      if (Math.abs(value) >= size) return digits(value / (unit === " k" ? 1e3 : size), 3) + unit;
    }
    return Math.abs(value) >= 10 ? plain.format(value) : digits(value, 2);
  };

  page.bytes = (value) => {
    if (page.number(value) === null) return page.none;
    let [size, unit] = [value, "B"];
    for (const next of ["KiB", "MiB", "GiB", "TiB"]) {
      if (size < 1024) break;
      [size, unit] = [size / 1024, next];
    }
    return `${unit === "B" ? plain.format(size) : digits(size, size >= 1000 ? 4 : 3)} ${unit}`;
  };

  // Of requests: from microseconds on.
  page.time = (value) => {
    if (page.number(value) === null) return page.none;
    if (value === 0) return "0";
    if (value < 0.001) return `${digits(value * 1e6, 3)} µs`;
    if (value < 1) return `${digits(value * 1e3, 3)} ms`;
    return page.span(value);
  };

  // Of people: whole seconds, minutes, hours.
  page.span = (value) => {
    if (page.number(value) === null) return page.none;
    if (value < 10) return `${digits(Math.max(0, value), 2)} s`;
    if (value < 120) return `${plain.format(value)} s`;
    if (value < 7200) return `${plain.format(value / 60)} min`;
    if (value < 172800) return `${plain.format(value / 3600)} h`;
    return `${plain.format(value / 86400)} days`;
  };

  page.clock = (at) => {
    const ms = page.number(at);
    if (ms === null) return page.none;
    return new Date(ms).toLocaleTimeString("en-GB");
  };

  page.day = (at) => {
    const ms = page.number(at);
    return ms === null ? page.none : `${new Date(ms).toLocaleDateString("en-CA")} ${page.clock(ms)}`;
  };

  page.percent = (share) => (page.number(share) === null ? page.none : `${Math.floor(share * 100)} %`);

  page.plural = (number, one, more) => `${page.count(number)} ${number === 1 ? one : (more ?? `${one}s`)}`;

  // Writes a figure: its words, its exact value for tests and tools, and its age if it is old.
  page.figure = (element, value, text, age = 0) => {
    page.text(element, text);
    const isOld = age > page.OLD_SECONDS;
    page.data(element, {
      value: value === null || value === undefined ? "" : value,
      age: isOld ? Math.round(age) : null,
    });
    if (isOld) element.title = `${page.span(age)} old`;
    else element.removeAttribute("title");
  };

  // What has not been heard for so long looks old.
  page.OLD_SECONDS = 2.5;

  // "3, 7–12" for a sorted list of numbers; long lists end with how many more there are.
  page.ranges = (numbers, most = 24) => {
    const parts = [];
    for (const number of numbers) {
      const last = parts.at(-1);
      if (last && last[1] === number - 1) last[1] = number;
      else parts.push([number, number]);
    }
    const words = parts
      .slice(0, most)
      .map(([from, to]) => (from === to ? `${from}` : to === from + 1 ? `${from}, ${to}` : `${from}–${to}`));
    const left = parts.slice(most).reduce((sum, [from, to]) => sum + to - from + 1, 0);
    return words.join(", ") + (left ? ` and ${page.count(left)} more` : "");
  };

  page.group = (gid) => (gid === "ctrl" ? "controllers" : gid ? `group ${gid}` : "no group");

  // Colours of groups: the first eight differ for every kind of sight; later groups use them again. A group keeps its colour.
  const colors = new Map();
  page.color = (gid) => {
    if (!gid || gid === "ctrl") return "none";
    if (!colors.has(gid)) colors.set(gid, colors.size % 8);
    return colors.get(gid);
  };
  page.css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  // A swatch and the group's id.
  page.tag = (gid) =>
    page.el(
      "span",
      { class: "tag", data: { color: page.color(gid), group: gid || 0 } },
      page.el("i", { class: "swatch", "aria-hidden": "true" }),
      gid ? String(gid) : "none",
    );

  // Buttons of which one is pressed.
  page.choice = (parent, options, chosen, choose) => {
    parent.replaceChildren(
      ...options.map(([value, text]) =>
        page.el("button", {
          type: "button",
          text,
          "aria-pressed": String(value === chosen),
          data: { choice: value },
          on: {
            click: (event) => {
              for (const button of parent.children)
                button.setAttribute("aria-pressed", String(button === event.currentTarget));
              choose(value);
            },
          },
        }),
      ),
    );
  };

  // Moves by from and to: [{from, to, shards}], largest first. What stays is left out.
  page.pairs = (moves) => {
    const found = new Map();
    for (const { shard, from, to } of moves) {
      if (from === to) continue;
      const key = `${from} ${to}`;
      if (!found.has(key)) found.set(key, { from, to, shards: [] });
      found.get(key).shards.push(shard);
    }
    for (const it of found.values()) it.shards.sort((a, b) => a - b);
    return [...found.values()].sort(
      (a, b) => b.shards.length - a.shards.length || a.from - b.from || a.to - b.to,
    );
  };

  const PAIRS = 12;

  page.pairList = (pairs) => {
    const line = ({ from, to, shards }) =>
      page.el(
        "li",
        { data: { from, to, count: shards.length } },
        page.el("span", { class: "arrow" }, page.tag(from), "→", page.tag(to)),
        page.el("span", { text: `${page.plural(shards.length, "shard")}: ${page.ranges(shards, 12)}` }),
      );
    const list = page.el("ul", { class: "diffs" }, ...pairs.slice(0, PAIRS).map(line));
    if (pairs.length > PAIRS) {
      list.append(
        page.el("li", { class: "hint", text: `And ${pairs.length - PAIRS} more pairs of groups.` }),
      );
    }
    return list;
  };
}
