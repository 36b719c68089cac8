// The slider over configurations: which shards each of them moved, and who made it when, if that is known.
"use strict";
{
  // The shards as a configuration had them. Only the owner is known of that time.
  page.shardsOf = (config, before) =>
    config.owners.slice(0, page.SHARDS_MAX).map((owner, shard) => ({
      shard,
      owner,
      group: owner,
      to: null,
      state: owner ? "past" : "none",
      keys: null,
      bytes: null,
      progress: null,
      reads: null,
      writes: null,
      traffic: null,
      age: 0,
      pin: null,
      changed: Boolean(before?.owners[shard]) && before.owners[shard] !== owner,
    }));

  // Nothing can be said of the oldest one that is known, unless it is the first of all.
  const isKnown = (before, after) => before !== null || after.num === 0;

  const diff = (before, after) =>
    page.pairs(after.owners.map((to, shard) => ({ shard, from: before?.owners[shard] ?? 0, to })));

  let place = null; // The number of the configuration that is shown; null: the newest, and what is now.

  const title = (config, isNow) => {
    const parts = [`Configuration ${config.num}`];
    if (isNow) parts.push("the newest");
    if (config.seenAt !== null) parts.push(`made at ${page.day(config.seenAt)}`);
    if (config.who) parts.push(`by ${config.who}`);
    return parts.join(", ");
  };

  const changesOf = (config, before) => {
    const lines = [];
    if (!isKnown(before, config)) return lines;
    const joined = config.groups.filter((gid) => !before?.groups.includes(gid));
    const left = before ? before.groups.filter((gid) => !config.groups.includes(gid)) : [];
    if (joined.length) lines.push(["Joined", joined]);
    if (left.length) lines.push(["Left", left]);
    return lines;
  };

  const drawDiff = (config, before, isNow) => {
    const box = page.id("diff");
    if (!config) {
      page.data(box, { config: null, shown: null });
      box.replaceChildren(
        page.el("p", { class: "empty", text: "This document has no older configurations." }),
      );
      return;
    }
    const key = `${config.num} ${isNow} ${config.seenAt} ${before?.num}`;
    if (box.dataset.shown === key) return;
    page.data(box, { shown: key, config: config.num, moved: config.moved });
    const moved = isKnown(before, config) ? diff(before, config) : [];
    const parts = [
      page.el(
        "p",
        {},
        page.el("strong", { text: title(config, isNow) }),
        config.note ? ` “${config.note}”` : "",
      ),
    ];
    for (const [word, gids] of changesOf(config, before))
      parts.push(page.el("p", { class: "chips" }, word, ...gids.map(page.tag)));
    if (config.lost.length)
      parts.push(page.el("p", { class: "bad", text: `Declared lost: shards ${page.ranges(config.lost)}.` }));
    const none = isKnown(before, config)
      ? "No shard changed its owner."
      : "The configuration before it is not known.";
    if (!moved.length) parts.push(page.el("p", { class: "hint", text: none }));
    if (moved.length) parts.push(page.pairList(moved));
    box.replaceChildren(...parts);
  };

  const go = (configs, index) => {
    const at = Math.max(0, Math.min(configs.length - 1, index));
    place = at === configs.length - 1 ? null : configs[at].num;
    page.redraw();
  };

  page.parts.push({
    name: "configs",
    start() {
      const slider = page.id("config");
      slider.addEventListener("input", () => go(page.view.model.configs, Number(slider.value)));
      page
        .id("config-back")
        .addEventListener("click", () => go(page.view.model.configs, Number(slider.value) - 1));
      page
        .id("config-on")
        .addEventListener("click", () => go(page.view.model.configs, Number(slider.value) + 1));
      page.id("config-now").addEventListener("click", () => go(page.view.model.configs, Infinity));
    },
    // Before the others draw: which configuration the map shows.
    choose(view) {
      const { configs } = view.model;
      const index = place === null ? configs.length - 1 : configs.findIndex((it) => it.num === place);
      if (index < 0) place = null;
      view.index = index < 0 ? configs.length - 1 : index;
      view.chosen = place === null ? null : configs[view.index];
      view.before = view.index > 0 ? configs[view.index - 1] : null;
    },
    draw(view) {
      const { configs } = view.model;
      const config = configs[view.index] ?? null;
      const slider = page.id("config");
      slider.max = Math.max(0, configs.length - 1);
      slider.value = Math.max(0, view.index);
      slider.disabled = configs.length < 2;
      slider.setAttribute("aria-valuetext", config ? title(config, place === null) : "none");
      page.id("config-back").disabled = view.index <= 0;
      page.id("config-on").disabled = view.index >= configs.length - 1;
      page.id("config-now").hidden = place === null;
      page.text(page.id("config-label"), `Configuration ${config?.num ?? view.model.config ?? page.none}`);
      drawDiff(config, view.before, place === null);
    },
  });
}
