// The cluster as the page sees it: one document of `/v1/state`, made safe.
//
// Every field may be missing or null: a plain `clerk status -o json` is a document, too. What does not answer is shown as it
// was last, with its age. This is the only file that knows the shape of the document; nothing here touches the screen.
"use strict";
{
  page.STATES = {
    serving: "served",
    leaving: "served, moves away",
    handing: "frozen, moves",
    awaiting: "on its way here",
    parked: "kept, owned by none",
    unknown: "group does not answer",
    none: "owned by none",
    past: "owned at that time",
  };

  // The configurations of a document or of a `history` event.
  page.configsOf = (raw) => {
    const configs = page
      .array(page.object(raw).history)
      .map(config)
      .filter((it) => it.num !== null);
    for (const it of configs) it.groups.forEach(page.color);
    return configs;
  };

  page.model = (raw, configs) => {
    const doc = page.object(raw);
    const last = page.object(doc.last);
    const oldConfig = page.object(page.object(last.config).document);
    const configAge = page.number(doc.config) === null ? (page.number(page.object(last.config).age) ?? 0) : 0;
    const pick = (name) => doc[name] ?? oldConfig[name] ?? null;
    const model = {
      at: page.number(doc.at),
      cluster: typeof doc.cluster === "string" ? doc.cluster : null,
      seenBy: doc.seen_by ?? null,
      writable: doc.writable === true,
      config: page.number(pick("config")),
      configAge,
      settled: typeof doc.settled === "boolean" ? doc.settled : null,
      params: page.object(pick("params")),
      placement: page.object(pick("placement")),
      pending: page.array(doc.pending).map(String),
      rates: page.object(doc.rates),
      hasRates: doc.rates !== null && doc.rates !== undefined,
    };
    const ages = page.object(doc.ages);
    model.controllers = page.array(doc.controllers).map((it) => server(it, ages, last));
    withLags(model.controllers);
    model.groups = page
      .array(doc.groups)
      .map((it) => group(it, ages, last, model))
      .sort((a, b) => a.gid - b.gid);
    // Groups get their colours in this order, wherever they are drawn first.
    for (const it of model.groups) page.color(it.gid);
    model.configs = configs;
    model.shards = shards(model, configs.at(-1)?.owners ?? []);
    model.moves = page
      .array(doc.moves)
      .map(page.object)
      .filter((it) => page.number(it.shard) !== null);
    if (doc.moves === undefined) model.moves = movesOf(model);
    for (const it of model.moves) {
      const shard = model.shards[it.shard];
      if (!shard) continue;
      shard.to = page.number(it.to) ?? shard.to;
      shard.arrived = page.number(it.rows) ?? shard.arrived;
      shard.total = page.number(it.rows_total) ?? shard.keys;
    }
    model.health = health(model, page.object(doc.health));
    return model;
  };

  const server = (raw, ages, last) => {
    let it = page.object(raw);
    const name = String(it.name ?? "?");
    const up = it.up === true;
    let age = page.number(ages[name]) ?? (up ? 0 : null);
    if (!up)
      it = {
        ...page.object(page.object(last.servers)[name]),
        ...Object.fromEntries(Object.entries(it).filter(([, value]) => value !== null)),
      };
    if (!up && age === 0) age = null;
    return {
      name,
      up,
      // Null: it has never answered, or it is not known when it last did.
      age,
      address: it.address ?? null,
      http: it.http ?? null,
      role: up ? (it.role ?? "unknown") : "down",
      lastRole: it.role ?? null,
      leader: it.leader ?? null,
      term: page.number(it.term),
      commit: page.number(it.commit),
      applied: page.number(it.applied),
      lacks: null,
      silent: null,
      standing: null,
      followers: page.object(it.followers),
      disk: page.object(it.disk),
      config: page.number(it.config),
      notes: notes(it),
    };
  };

  // What a person should know about a server, in words.
  const notes = (it) => {
    const found = [];
    if (page.object(it.disk).low) found.push("The disk is nearly full.");
    if (it.table_bad) found.push("Its table differs; it waits for a snapshot.");
    if (it.owes) found.push(`It lost a part of its log, and waits for ${it.owes}.`);
    if (it.last_alarm) found.push(String(it.last_alarm));
    for (const [address, why] of Object.entries(page.object(it.refused_by))) found.push(`${address}: ${why}`);
    return found;
  };

  // The leader knows what the others lack.
  page.leaderOf = (servers) =>
    servers.filter((it) => it.up && it.role === "leader").sort((a, b) => (b.term ?? 0) - (a.term ?? 0))[0] ??
    null;

  const withLags = (servers) => {
    const leader = page.leaderOf(servers);
    for (const it of servers) {
      const seen = page.object(leader?.followers[it.name]);
      it.lacks = it === leader ? 0 : page.number(seen.lacks);
      it.silent = it === leader ? 0 : page.number(seen.silent_seconds);
      it.standing = it === leader ? "leads" : (seen.standing ?? null);
    }
    return leader;
  };

  // What requests ended with, but for those that went well.
  const failures = (rates) =>
    Object.entries(page.object(rates.outcomes)).filter(([outcome]) => outcome !== "ok");

  const group = (raw, ages, last, model) => {
    let it = page.object(raw);
    const gid = page.number(it.gid) ?? 0;
    const replicas = page.array(it.replicas).map((replica) => server(replica, ages, last));
    const leader = withLags(replicas);
    const kept = page.object(page.object(last.groups)[gid]);
    const isSilent = replicas.every((replica) => !replica.up);
    if (isSilent && kept.group) it = page.object(kept.group);
    const rates = page.object(page.object(model.rates.groups)[gid]);
    const held = page.array(it.shards).map(page.object);
    const load = held.some((shard) => shard.load)
      ? page.sum(held.map((shard) => page.sum([shard.load?.reads, shard.load?.writes])))
      : null;
    return {
      gid,
      replicas,
      leader,
      silent: isSilent,
      age: isSilent ? (page.number(kept.age) ?? Infinity) : 0,
      joined: it.joined !== false,
      history: it.history ?? null,
      historyText: it.history_text ?? null,
      lostData: it.lost_data === true,
      config: page.number(it.config),
      weight: page.number(it.weight),
      held,
      keys: page.sum(held.filter((shard) => shard.state !== "awaiting").map((shard) => shard.rows)),
      bytes: page.sum(held.filter((shard) => shard.state !== "awaiting").map((shard) => shard.bytes)),
      requests: page.number(rates.requests) ?? (model.hasRates ? 0 : load),
      failed: rates.outcomes ? page.sum(failures(rates).map(([, rate]) => rate)) : null,
      failures: failures(rates)
        .map(([outcome, rate]) => `${page.short(rate)} ${outcome}`)
        .join(", "),
      p50: page.number(rates.p50),
      p99: page.number(rates.p99),
      p999: page.number(rates.p999),
    };
  };

  const config = (raw) => {
    const it = page.object(raw);
    return {
      num: page.number(it.num),
      owners: page.array(it.owners ?? it.shards).map((gid) => page.number(gid) ?? 0),
      groups: page.array(it.groups).filter((gid) => page.number(gid) !== null),
      moved: page.number(it.moved),
      lost: page.array(it.lost),
      seenAt: page.number(it.seen_at),
      who: it.who ?? null,
      note: it.note ?? null,
    };
  };

  // Most shards that the page draws: the key space has 16,384 slots.
  page.SHARDS_MAX = 16384;

  const shards = (model, owners) => {
    let count = model.params.shard_count ?? owners.length;
    for (const group of model.groups)
      for (const it of group.held) count = Math.max(count, (page.number(it.shard) ?? -1) + 1);
    count = Math.min(Math.max(0, page.number(count) ?? 0), page.SHARDS_MAX);
    const pins = page.object(model.placement.pins);
    const loads = page.object(model.rates.shards);
    const found = Array.from({ length: count }, (_, shard) => {
      const owner = owners[shard] ?? 0;
      return {
        shard,
        owner,
        group: owner,
        to: null,
        state: owner ? "unknown" : "none",
        keys: null,
        bytes: null,
        progress: null,
        reads: null,
        writes: null,
        traffic: null,
        age: 0,
        pin: pins[shard] ?? null,
      };
    });
    for (const group of model.groups)
      for (const it of group.held)
        if (page.number(it.shard) !== null && found[it.shard]) hold(found[it.shard], it, group);
    for (const [shard, load] of Object.entries(loads)) {
      const it = found[Number(shard)];
      if (it)
        [it.reads, it.writes, it.traffic] = [
          page.number(load?.reads),
          page.number(load?.writes),
          page.number(load?.bytes),
        ];
    }
    return found;
  };

  // Writes what a group says of a shard. The group that has its rows counts; the one that awaits them says how far it is.
  const hold = (shard, it, group) => {
    const state = Object.hasOwn(page.STATES, it.state ?? "") ? it.state : "unknown";
    if (state === "awaiting") {
      shard.to = group.gid;
      shard.arrived = page.number(it.progress) ?? page.number(it.rows) ?? 0;
      if (shard.keys !== null) return;
      shard.state = "awaiting";
      shard.group = page.number(it.peer) ?? shard.group;
      return;
    }
    // Of two that say they have it, the one that still answers is right.
    if (shard.keys !== null && group.age > shard.age) return;
    shard.state = group.silent ? "unknown" : state;
    shard.lastState = state;
    shard.group = group.gid;
    shard.age = group.age;
    shard.keys = page.number(it.rows);
    shard.bytes = page.number(it.bytes);
    shard.progress = page.number(it.progress);
    if (state === "leaving" || state === "handing") shard.to = page.number(it.peer) ?? shard.to;
    if (it.load) {
      [shard.reads, shard.writes, shard.traffic] = [
        page.number(it.load.reads),
        page.number(it.load.writes),
        page.number(it.load.bytes),
      ];
    }
  };

  page.opsOf = (shard) =>
    (shard.reads ?? shard.writes ?? null) === null ? null : (shard.reads ?? 0) + (shard.writes ?? 0);

  // A plain status has no list of moves, but its shards say what they do.
  const movesOf = (model) =>
    model.shards
      .filter((it) => it.to !== null)
      .map((it) => ({
        shard: it.shard,
        from: it.group,
        to: it.to,
        rows: it.progress ?? it.arrived ?? null,
        rows_total: it.keys,
        bytes_total: it.bytes,
        phase: { leaving: "offered", handing: "sealed" }[it.state] ?? "awaited",
        served: it.state === "leaving",
        waits_for: null,
      }));

  // The server's own sentence, or one made here for a document that has none.
  const health = (model, given) => {
    if (typeof given.text === "string") {
      return { ok: given.ok === true, text: given.text, problems: page.array(given.problems).map(String) };
    }
    const all = [...model.controllers, ...model.groups.flatMap((group) => group.replicas)];
    const problems = model.groups
      .filter((group) => !group.leader)
      .map((group) => `Group ${group.gid} has no leader.`);
    for (const it of all) if (!it.up) problems.push(`${it.name} does not answer.`);
    for (const group of model.groups) {
      if (group.lostData) problems.push(`Group ${group.gid} lost its data.`);
      if (group.history && group.history !== "ok")
        problems.push(`Group ${group.gid}: ${group.historyText ?? group.history}.`);
    }
    for (const it of all) for (const note of it.notes) problems.push(`${it.name}: ${note}`);
    if (problems.length) return { ok: false, text: problems[0], problems };
    if (!all.length) return { ok: false, text: "No server is known.", problems };
    const settled =
      model.settled === false ? "shards are moving" : `configuration ${model.config ?? page.none} is settled`;
    return {
      ok: true,
      text: `All ${all.length} servers answer, every group has a leader, ${settled}.`,
      problems,
    };
  };
}
