// What the page knows, in objects that can be drawn. Text from the run enters the page as text only.

const run = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);

/** An element with properties and children; strings become text. */
function make(tag, properties, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties || {})) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "class") element.className = value;
    else element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

const clamp = (value, least, most) => Math.max(least, Math.min(most, value));
const seconds = (us, digits = 3) => (us / 1e6).toFixed(digits) + " s";

/** A length of time in the unit that suits it. */
function span(us) {
  const size = Math.abs(us);
  if (size >= 1e6) return (us / 1e6).toFixed(2) + " s";
  if (size >= 1e3) return (us / 1e3).toFixed(size < 1e4 ? 1 : 0) + " ms";
  return us + " µs";
}

/** The first place in `list` whose `value` is not below `bound`. */
function lower(list, bound, value) {
  let from = 0, to = list.length;
  while (from < to) {
    const middle = (from + to) >> 1;
    if (value(list[middle]) < bound) from = middle + 1; else to = middle;
  }
  return from;
}

/** The last of `list` that began at or before `time`. */
function at(list, time, value) {
  return list[lower(list, time + 1, value) - 1];
}

function listed(names) {
  if (names.length === 0) return "nobody";
  if (names.length === 1) return names[0];
  return names.slice(0, -1).join(", ") + " and " + names[names.length - 1];
}

const operations = run.operations.map((row, place) => {
  const [client, kind, key, value, expected, output, version, call, end, outcome] = row;
  return { place, client, kind, key, value, expected, output, version, call, end, outcome, lane: 0, wrong: false, words: "", witnesses: [], witness: false, point: null };
});
run.lanes.forEach((lane, number) => lane.operations.forEach((place) => { operations[place].lane = number; }));
for (const lane of run.lanes) {
  lane.list = lane.operations.map((place) => operations[place]);
  lane.list.forEach((one, place) => { one.next = lane.list[place + 1] || null; });
}

const verdicts = run.keys.map(() => null);
for (const verdict of run.verdicts) {
  const key = run.keys.indexOf(verdict.key);
  if (key >= 0) verdicts[key] = verdict;
  verdict.points.forEach(([place, time], number) => { operations[place].point = { number: number + 1, time, verdict }; });
  for (const [place, words, witnesses] of verdict.unplaced) {
    Object.assign(operations[place], { wrong: true, words, witnesses: witnesses.map((one) => operations[one]) });
    for (const one of witnesses) operations[one].witness = true;
  }
  verdict.isBad = verdict.unplaced.length > 0 || verdict.words !== null;
}
const wrong = operations.filter((operation) => operation.wrong);

const quote = (text) => "“" + text + "”";

/** What was asked, in short. */
function asked(operation) {
  const value = operation.value === null ? "" : " " + quote(operation.value);
  switch (operation.kind) {
    case "cas": return "cas" + value + " if version " + operation.expected;
    default: return operation.kind + value;
  }
}

/** What came back, in short. */
function answered(operation) {
  if (operation.outcome === "unknown") return "no answer";
  const version = !operation.version ? "" : "version " + operation.version;
  if (operation.outcome === "fail") return "refused" + (version ? ", " + version : "");
  if (operation.kind !== "get") return version || "done";
  return (operation.output === null ? "nothing" : quote(operation.output)) + (version ? ", " + version : "");
}

/** The operation as a sentence or two. */
function told(operation) {
  const key = quote(run.keys[operation.key]);
  const value = quote(operation.value || "");
  const version = !operation.version ? "" : " (version " + operation.version + ")";
  const what = {
    get: "asked for the value of " + key,
    put: "asked to set " + key + " to " + value,
    append: "asked to append " + value + " to " + key,
    delete: "asked to delete " + key,
    cas: "asked to set " + key + " to " + value + " if its version is " + operation.expected,
  }[operation.kind];
  let end = " and never learned whether that was done: it may have happened at any time since, or not at all.";
  if (operation.outcome === "fail") end = " and was refused: this definitely had no effect" + version + ".";
  if (operation.outcome === "ok" && operation.kind !== "get") end = " and got the answer that it is done" + version + ".";
  if (operation.outcome === "ok" && operation.kind === "get") {
    end = operation.output === null ? " and got the answer that there is none" + version + "." : " and got " + quote(operation.output) + version + ".";
  }
  return "At " + seconds(operation.call, 6) + ", " + operation.client + " " + what + end +
    (operation.end === null ? "" : " It took " + span(operation.end - operation.call) + ".");
}

// The value of a key over time, in the order found: what each operation in that order leaves.
const valuesOfKey = new Map();
function values(key) {
  if (valuesOfKey.has(key)) return valuesOfKey.get(key);
  const parts = [];
  let value = null, version = null;
  for (const [place, time] of verdicts[key] ? verdicts[key].points : []) {
    const operation = operations[place];
    const before = value;
    if (operation.outcome === "fail") continue;
    if (operation.kind === "put" || operation.kind === "cas") value = operation.value;
    else if (operation.kind === "append") value = (value || "") + operation.value;
    else if (operation.kind === "delete") value = null;
    else if (operation.wrong) continue;
    else value = operation.output;
    if (operation.kind === "get" && before === value && parts.length) continue;
    if (value === null) version = 0;
    else if (operation.version !== null && !operation.wrong) version = operation.version;
    else version = null;
    if (parts.length) parts[parts.length - 1].to = time;
    parts.push({ from: time, to: run.end, value, version, operation });
  }
  valuesOfKey.set(key, parts);
  return parts;
}

// A leader that a newer one has replaced, and that does not know it.
for (const server of run.servers) {
  const newer = (role) => run.servers
    .filter((other) => other.group === server.group && other !== server)
    .flatMap((other) => other.roles)
    .filter((other) => other.role === "leader" && other.term > role.term && other.from < role.to)
    .map((other) => other.from);
  server.old = server.roles.filter((role) => role.role === "leader" && role.term !== null)
    .map((role) => ({ role, times: newer(role) }))
    .filter(({ times }) => times.length > 0)
    .map(({ role, times }) => ({ from: Math.max(role.from, Math.min(...times)), to: role.to, role: "old", term: role.term }));
}

const groups = [];
for (const server of run.servers) {
  let group = groups.find((one) => one.name === server.group);
  if (!group) groups.push(group = { name: server.group, servers: [] });
  group.servers.push(server);
}
// Colours of owners: the groups that have shards, in order.
const owners = [...new Set(run.shards.flatMap((row) => row.parts.flatMap((part) => part.owners)))].sort((one, other) => one.localeCompare(other, "en", { numeric: true }));
const ownerColour = (group) => "--g" + (Math.max(0, owners.indexOf(group)) % 8);

// Clients by their names on the network, so that a message finds its client's lane.
const operationsOf = new Map();
for (const operation of operations) {
  const name = run.names[operation.client];
  if (name === undefined) continue;
  if (!operationsOf.has(name)) operationsOf.set(name, []);
  operationsOf.get(name).push(operation);
}
for (const list of operationsOf.values()) list.sort((one, other) => one.call - other.call);

/** The operation that a client of this name was at. */
function operationAt(name, time) {
  const list = operationsOf.get(name);
  return list ? at(list, time + 1, (one) => one.call) || null : null;
}

const length = run.end - run.begin;
const messages = run.messages.rows.map((row) => {
  const [sent, arrived, from, to, kind, text, fate] = row;
  return {
    time: sent === null ? arrived : sent, sent, arrived,
    from: run.messages.names[from], to: run.messages.names[to],
    kind: run.messages.kinds[kind][0], topic: run.messages.kinds[kind][1],
    text: run.messages.texts[text], fate: fate === null ? null : run.messages.texts[fate],
  };
});
