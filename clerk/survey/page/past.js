// What the page remembers: an hour of samples, and what happened meanwhile. All of it is bounded.
//
// Samples are in rings of numbers of four bytes, made once for each group. So a page that stays open for days needs no more
// memory than one that was open for an hour.
"use strict";
{
  page.SERIES = ["requests", "p50", "p99", "p999"];

  // The last `size` values, oldest first. Values before the first one are NaN.
  page.Ring = class {
    constructor(size, kind = Float32Array) {
      this.values = new kind(size).fill(NaN);
      this.next = 0;
    }
    push(value) {
      this.values[this.next % this.values.length] = value;
      this.next += 1;
    }
    get length() {
      return Math.min(this.next, this.values.length);
    }
    at(index) {
      return this.values[(this.next - this.length + index) % this.values.length];
    }
    // The last `many` values as an array for a chart: null where there is none.
    tail(many) {
      const from = Math.max(0, this.length - many);
      const found = new Array(this.length - from);
      for (let index = from; index < this.length; index += 1) {
        const value = this.at(index);
        found[index - from] = Number.isNaN(value) ? null : value;
      }
      return found;
    }
  };

  page.Past = class {
    static SAMPLES = 3600;
    static GROUPS_MAX = 64;
    static MARKS_MAX = 200;
    static GAP_SECONDS = 8;

    constructor() {
      this.marks = [];
      this.clear();
    }

    clear() {
      this.times = new page.Ring(page.Past.SAMPLES, Float64Array);
      this.groups = new Map();
      this.before = null;
    }

    // Takes a new state. A clock that goes back a little adds nothing; one that was set back begins anew.
    add(model) {
      if (model.at === null) return;
      const last = this.times.length ? this.times.at(this.times.length - 1) * 1000 : -Infinity;
      if (model.at < last - 5000) this.clear();
      else if (model.at <= last) return;
      this.sample(
        model.at,
        (gid, name) => {
          const group = model.groups.find((it) => it.gid === gid);
          return group && !group.silent && model.hasRates ? group[name] : null;
        },
        model.groups.map((it) => it.gid),
      );
      this.compare(model);
    }

    sample(at, value, gids) {
      for (const gid of gids) if (!this.groups.has(gid)) this.open(gid);
      const last = this.times.length ? this.times.at(this.times.length - 1) : Infinity;
      // No line across a time of which nothing is known.
      if (at / 1000 - last > page.Past.GAP_SECONDS) this.push(last + 1, () => null);
      this.push(at / 1000, value);
      this.close(gids);
    }

    push(at, value) {
      this.times.push(at);
      for (const [gid, series] of this.groups) {
        for (const name of page.SERIES) series[name].push(value(gid, name) ?? NaN);
      }
    }

    // A group that came later has no values before.
    open(gid) {
      if (this.groups.size >= page.Past.GROUPS_MAX) return;
      const series = Object.fromEntries(page.SERIES.map((name) => [name, new page.Ring(page.Past.SAMPLES)]));
      for (const ring of Object.values(series)) ring.next = this.times.next;
      this.groups.set(gid, series);
    }

    // A group that is gone is forgotten when its last sample is.
    close(gids) {
      for (const [gid, series] of this.groups) {
        if (gids.includes(gid)) series.seen = this.times.next;
        else if (this.times.next - (series.seen ?? 0) > page.Past.SAMPLES) this.groups.delete(gid);
      }
    }

    // What a controller measured before this page was opened.
    addPast(past) {
      const groups = page.object(page.object(past).groups);
      const gids = Object.keys(groups)
        .map(Number)
        .sort((a, b) => a - b);
      page.array(page.object(past).at).forEach((at, index) => {
        const last = this.times.length ? this.times.at(this.times.length - 1) * 1000 : -Infinity;
        if (page.number(at) === null || at <= last) return;
        this.sample(at, (gid, name) => page.number(page.array(page.object(groups[gid])[name])[index]), gids);
      });
    }

    mark(mark) {
      const known = mark.key && this.marks.find((it) => it.key === mark.key);
      if (known) known.text = mark.text.length > known.text.length ? mark.text : known.text;
      else this.marks.push(mark);
      this.marks.sort((a, b) => a.at - b.at);
      this.marks.splice(0, Math.max(0, this.marks.length - page.Past.MARKS_MAX));
    }

    // Configurations that a controller saw being made.
    addConfigs(configs) {
      for (const it of configs.slice(-page.Past.MARKS_MAX)) {
        if (it.seenAt === null) continue;
        this.mark({
          key: `config ${it.num}`,
          at: it.seenAt,
          kind: "configuration",
          group: null,
          text: `Configuration ${it.num}${it.moved ? `: ${page.plural(it.moved, "shard")} moved` : ""}`,
        });
      }
    }

    // Marks what changed from the state before.
    compare(model) {
      const now = { config: model.config, groups: new Map(), servers: new Map() };
      const leads = (gid, leader) =>
        now.groups.set(gid, { leader: leader?.name ?? null, term: leader?.term ?? null });
      if (model.controllers.length) leads("ctrl", page.leaderOf(model.controllers));
      for (const group of model.groups) leads(group.gid, group.leader);
      for (const it of [...model.controllers, ...model.groups.flatMap((group) => group.replicas)])
        now.servers.set(it.name, it.up);
      if (this.before) this.changes(this.before, now, model.at);
      for (const [gid, it] of now.groups)
        it.last = it.leader ? it : (this.before?.groups.get(gid)?.last ?? null);
      this.before = now;
    }

    changes(before, now, at) {
      if (now.config !== null && before.config !== null && now.config > before.config) {
        this.mark({
          key: `config ${now.config}`,
          at,
          kind: "configuration",
          group: null,
          text: `Configuration ${now.config}`,
        });
      }
      for (const [gid, it] of now.groups) {
        const old = before.groups.get(gid);
        if (!old) continue;
        const who = gid === "ctrl" ? "The controllers have" : `Group ${gid} has`;
        if (it.leader === null && old.leader !== null) {
          this.mark({ at, kind: "election", group: gid, text: `${who} no leader` });
        } else if (
          it.leader !== null &&
          old.last &&
          (it.leader !== old.last.leader || it.term !== old.last.term)
        ) {
          this.mark({
            at,
            kind: "election",
            group: gid,
            text: `${it.leader} leads, term ${it.term ?? page.none}`,
          });
        }
      }
      for (const [name, up] of now.servers) {
        const old = before.servers.get(name);
        if (old === undefined || old === up) continue;
        this.mark({
          at,
          kind: "server",
          group: Number(name.split(".")[0]) || "ctrl",
          text: `${name} ${up ? "answers again" : "does not answer"}`,
        });
      }
    }
  };
}
