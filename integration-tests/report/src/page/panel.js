// The panel at the side: what happened, the order of a key, a moment of a server, the signs.

const tabs = [
  { id: "moments", title: "What happened" },
  { id: "order", title: "Order of a key" },
  { id: "around", title: "This moment" },
  { id: "signs", title: "Legend" },
];

function openTab(id) {
  for (const tab of tabs) {
    const isOpen = tab.id === id;
    $(tab.id).hidden = !isOpen;
    tab.button.setAttribute("aria-selected", String(isOpen));
    tab.button.tabIndex = isOpen ? 0 : -1;
  }
}

function makeTabs() {
  tabs.forEach((tab, number) => {
    tab.button = make("button", { type: "button", role: "tab", id: "tab-" + tab.id, "aria-controls": tab.id, onclick: () => openTab(tab.id) }, tab.title);
    tab.button.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      event.stopPropagation();
      const next = tabs[(number + step + tabs.length) % tabs.length];
      openTab(next.id);
      next.button.focus();
    });
    $(tab.id).setAttribute("aria-labelledby", "tab-" + tab.id);
  });
  $("tabs").replaceChildren(...tabs.map((tab) => tab.button));
}

const momentSigns = { step: "§", weather: "☁", crash: "✖", start: "▶", leader: "★", cut: "✂", heal: "∞", shard: "⇄", wrong: "!", failed: "■", gap: "…" };

function makeMoments() {
  const intro = make("p", { class: "soft" }, "Click a line to go to that time. Red lines should never happen.");
  const lines = run.moments.map((moment, number) => make("button",
    { type: "button", class: "moment " + moment.kind, onclick: () => goMoment(number) },
    make("time", {}, seconds(moment.at)), make("span", { class: "sign", "aria-hidden": "true" }, momentSigns[moment.kind] || "·"), make("span", {}, moment.text)));
  $("moments").replaceChildren(intro, ...lines);
  run.moments.forEach((moment, number) => { moment.line = lines[number]; });
}

/** Scrolls a panel, and not the page, until a line of it is seen. */
function reveal(panel, line) {
  const [inner, outer] = [line.getBoundingClientRect(), panel.getBoundingClientRect()];
  if (inner.top < outer.top + 20 || inner.bottom > outer.bottom - 20) panel.scrollTop += inner.top - outer.top - panel.clientHeight / 3;
}

function goMoment(number) {
  const moment = run.moments[number];
  if (!moment) return;
  if (chosen.moment >= 0) run.moments[chosen.moment].line.classList.remove("here");
  chosen.moment = number;
  moment.line.classList.add("here");
  reveal($("moments"), moment.line);
  chosen.time = moment.at;
  chosen.operation = moment.operation === null ? null : operations[moment.operation];
  chosen.server = null;
  if (chosen.operation) chooseKey(chosen.operation.key);
  bring(moment.at, moment.at);
  fillAround();
}

function nextMoment(step) {
  const from = chosen.moment >= 0 ? chosen.moment : lower(run.moments, chosen.time === null ? view.from : chosen.time, (one) => one.at) - (step > 0 ? 1 : 0);
  openTab("moments");
  goMoment(clamp(from + step, 0, run.moments.length - 1));
}

const ORDER_MAX = 400;

function fillOrder() {
  const panel = $("order");
  if (!run.verdicts.length) { panel.replaceChildren(make("p", {}, "No client did anything that was judged in this run.")); return; }
  if (chosen.key < 0 || !verdicts[chosen.key]) { panel.replaceChildren(make("p", {}, "Choose a key above the picture to see the order of its operations.")); return; }
  const verdict = verdicts[chosen.key];
  let list = verdict.points.map(([place, time]) => ({ operation: operations[place], time }));
  list.push(...verdict.unplaced.map(([place]) => operations[place]).filter((one) => !one.point).map((operation) => ({ operation, time: operation.call })));
  list.sort((one, other) => one.time - other.time);
  const total = list.length;
  if (total > ORDER_MAX) {
    const middle = Math.max(0, list.findIndex((one) => one.operation.wrong));
    const from = clamp(middle - ORDER_MAX / 2, 0, total - ORDER_MAX);
    list = list.slice(from, from + ORDER_MAX);
  }
  const intro = verdict.isBad
    ? "For each operation on this key the judge looked for one moment between its question and its answer, so that all answers make sense one after another. This is the order found. Red operations fit nowhere in it; they are listed by the time of their question."
    : "An order that explains every answer on this key: nothing is wrong with it.";
  const rowsOfOrder = list.map(({ operation, time }) => {
    const row = make("tr", { class: "go" + (operation.wrong ? " wrong" : ""), tabindex: "0", onclick: () => choose(operation), onkeydown: (event) => { if (event.key === "Enter") choose(operation); } },
      make("td", { class: "number" }, (operation.wrong ? "!" : "") + (operation.point ? operation.point.number : "")), make("td", { class: "number" }, seconds(time)),
      make("td", { class: "number" }, operation.client.replace("client ", "")), make("td", {}, asked(operation)), make("td", {}, answered(operation)));
    operation.line = row;
    return row;
  });
  const head = make("tr", {}, ...["", "at", "client", "asked", "answer"].map((text) => make("th", {}, text)));
  panel.replaceChildren(make("h3", {}, "Key " + quote(run.keys[chosen.key])),
    ...(verdict.words ? [make("p", { class: "wrong" }, verdict.words)] : []),
    ...verdict.unplaced.map(([, words]) => make("p", { class: "wrong" }, words)),
    make("p", { class: "soft" }, intro),
    ...(total > ORDER_MAX ? [make("p", { class: "soft" }, "Shown: " + ORDER_MAX + " of " + total + ", those nearest to the error.")] : []),
    make("table", {}, make("thead", {}, head), make("tbody", {}, ...rowsOfOrder)));
}

function chooseKey(key) {
  if (chosen.key === key) return;
  chosen.key = key;
  $("key").value = String(key);
  layOut();
  fillOrder();
  repaint();
}

function choose(operation) {
  if (chosen.operation && chosen.operation.line) chosen.operation.line.classList.remove("here");
  chosen.operation = operation;
  chosen.server = null;
  chosen.shard = null;
  chosen.time = operation.point ? operation.point.time : operation.call;
  if (chosen.key >= 0) chooseKey(operation.key);
  if (operation.line) { operation.line.classList.add("here"); reveal($("order"), operation.line); }
  bring(operation.call, operation.end === null ? operation.call : operation.end);
  fillAround();
}

/** The next or the previous operation in the order of the chosen key. */
function stepOperation(step) {
  const verdict = chosen.key >= 0 ? verdicts[chosen.key] : run.verdicts.find((one) => one.points.length);
  if (!verdict || !verdict.points.length) return;
  if (chosen.key < 0) chooseKey(run.keys.indexOf(verdict.key));
  const time = chosen.time === null ? view.from : chosen.time;
  const now = chosen.operation && chosen.operation.point && chosen.operation.point.verdict === verdict ? chosen.operation.point.number - 1 : lower(verdict.points, time, (one) => one[1]) - (step > 0 ? 1 : 0);
  openTab("order");
  choose(operations[verdict.points[clamp(now + step, 0, verdict.points.length - 1)][0]]);
}

/** What a server was at a time, as pairs of a name and a text. */
function standing(server, time) {
  const role = at(server.roles, time, (one) => one.from);
  const replaced = server.old.find((one) => one.from <= time && time < one.to);
  const step = at(server.progress, time, (one) => one[0]);
  const cut = server.cuts.find((one) => one.from <= time && time < one.to);
  const facts = [["role", role ? roleText(replaced || role) : "not started yet"]];
  if (step && role && role.role !== "down") facts.push(["log", "committed up to " + step[1] + ", applied up to " + step[2]]);
  facts.push(["network", cut ? cutText(cut) : "reaches everybody"]);
  return facts;
}

const AROUND = 60;

function fillAround() {
  const panel = $("around");
  const parts = [];
  if (chosen.operation) {
    const operation = chosen.operation;
    parts.push(make("h3", {}, "An operation"), make("p", { class: operation.wrong ? "wrong" : "" }, told(operation)));
    if (operation.point && !operation.wrong) parts.push(make("p", { class: "soft" }, "In the order found for its key it is number " + operation.point.number + " and took effect at about " + seconds(operation.point.time, 6) + " (any moment within the bar that keeps the order would do)."));
    parts.push(...requests(operation));
    if (operation.wrong) {
      parts.push(make("p", {}, operation.point ? "Its effect has a place in the order (number " + operation.point.number + "), but its answer fits nowhere." : "No moment within its bar explains this answer."));
      if (operation.words) parts.push(make("p", { class: "wrong" }, operation.words));
      if (operation.witnesses.length) parts.push(make("h3", {}, "What shows it"), ...operation.witnesses.map((one) => make("button", { type: "button", class: "moment", onclick: () => choose(one) }, make("time", {}, seconds(one.call)), make("span", {}, ""), make("span", {}, one.client + ": " + asked(one) + " → " + answered(one)))));
    }
  }
  if (chosen.shard) {
    const { shard, part } = chosen.shard;
    parts.push(make("h3", {}, "Shard " + shard.shard), make("p", { class: part.owners.length > 1 ? "wrong" : "" }, "From " + seconds(part.from) + " to " + seconds(part.to) + ": " + part.text + "."));
  }
  if (chosen.server) parts.push(...aroundServer(run.servers.find((server) => server.name === chosen.server), chosen.time));
  else if (chosen.time !== null && run.servers.length) parts.push(...everybody(chosen.time));
  if (!parts.length) parts.push(make("p", {}, "Click a server's lane to see its messages around that moment, or an operation or a shard to read what it is."));
  panel.replaceChildren(...parts);
  const now = panel.querySelector("tr.now");
  panel.scrollTop = 0;
  if (now) reveal(panel, now);
}

/** What an operation's client and the servers said to each other. */
function requests(operation) {
  const name = run.names[operation.client];
  const end = operation.end === null ? operation.call + 2e6 : operation.end;
  const list = messages.slice(lower(messages, operation.call, (one) => one.time), lower(messages, end + 1, (one) => one.time)).filter((one) => one.topic === "client" && (one.from === name || one.to === name));
  if (name === undefined || !list.length) return [];
  const lines = list.slice(0, 40).map((one) => make("tr", {}, make("td", { class: "number" }, seconds(one.time, 6)), make("td", {}, one.from + " to " + one.to), make("td", {}, one.kind + " " + one.text + (one.arrived === null ? " (" + (one.fate || "did not arrive") + ")" : ""))));
  return [make("h3", {}, "What it asked, and whom"), make("table", {}, make("tbody", {}, ...lines))];
}

function everybody(time) {
  const lines = run.servers.map((server) => make("tr", { class: "go", tabindex: "0", onclick: () => chooseServer(server.name, time), onkeydown: (event) => { if (event.key === "Enter") chooseServer(server.name, time); } },
    make("td", { class: "number" }, server.name), make("td", {}, ...standing(server, time).filter(([name, text]) => name !== "log" && text !== "reaches everybody").map(([, text]) => make("div", {}, text)))));
  return [make("h3", {}, "All servers at " + seconds(time)), make("table", {}, make("tbody", {}, ...lines))];
}

function chooseServer(name, time) {
  chosen.operation = null;
  chosen.shard = null;
  chosen.server = name;
  chosen.time = time;
  openTab("around");
  fillAround();
  repaint();
}

function aroundServer(server, time) {
  const facts = standing(server, time).flatMap(([name, text]) => [make("dt", {}, name), make("dd", {}, text)]);
  const seen = [];
  for (const message of messages) {
    if (message.from === server.name && message.sent !== null) seen.push({ time: message.sent, out: true, message });
    if (message.to === server.name && message.arrived !== null) seen.push({ time: message.arrived, out: false, message });
  }
  seen.sort((one, other) => one.time - other.time);
  const middle = lower(seen, time, (one) => one.time);
  const list = seen.slice(Math.max(0, middle - AROUND), middle + AROUND);
  const lines = list.map(({ time: when, out, message }) => {
    const lost = out && message.arrived === null;
    const fate = lost ? " — " + (message.fate === null ? "did not arrive" : message.fate) : "";
    return make("tr", { class: "go" + (lost ? " lost" : ""), tabindex: "0", title: seconds(when, 6), onclick: () => { chosen.time = when; bring(when, when); } },
      make("td", { class: "number" }, (when >= time ? "+" : "−") + span(Math.round(Math.abs(when - time)))), make("td", { class: "number" }, (out ? "to " : "from ") + (out ? message.to : message.from)), make("td", { class: "number" }, message.kind), make("td", {}, message.text + fate));
  });
  lines.splice(middle - Math.max(0, middle - AROUND), 0, make("tr", { class: "now" }, make("td", { colspan: "4" }, seconds(time, 6))));
  const head = make("tr", {}, ...["when", "whom", "kind", "content"].map((text) => make("th", {}, text)));
  return [
    make("h3", {}, "Server " + server.name + " at " + seconds(time)), make("dl", {}, ...facts),
    make("h3", {}, "Its messages around this moment"),
    ...(run.messages.note && time < run.failed_at - 3e6 ? [make("p", { class: "soft" }, run.messages.note)] : []),
    seen.length ? make("table", {}, make("thead", {}, head), make("tbody", {}, ...lines)) : make("p", { class: "soft" }, "None was recorded."),
  ];
}

/** Each sign, drawn by the painters themselves, and one sentence. */
function makeSigns() {
  const box = (name) => (pen) => { pen.fillStyle = colour(name); pen.fillRect(0, 3, 74, 16); };
  const hatched = (under, name, gap, width) => (pen) => { box(under)(pen); pen.fillStyle = hatch(pen, name, gap, width); pen.fillRect(0, 3, 74, 16); };
  const sample = (more) => (pen) => bar(pen, { kind: "put", outcome: "ok", wrong: false, key: chosen.key, ...more }, 4, 70, 4, 14);
  const stroke = (name, dash = []) => (pen) => { pen.strokeStyle = pen.fillStyle = colour(name); pen.lineWidth = 1.5; pen.setLineDash(dash); pen.beginPath(); pen.moveTo(8, 4); pen.lineTo(64, 18); pen.stroke(); pen.setLineDash([]); if (!dash.length) arrow(pen, 8, 4, 64, 18); };
  const steps = (name) => (pen) => { pen.strokeStyle = colour(name); pen.lineWidth = 1.5; pen.beginPath(); pen.moveTo(4, 18); for (const [px, y] of [[24, 18], [24, 12], [44, 12], [44, 6], [70, 6]]) pen.lineTo(px, y); pen.stroke(); };
  const signs = [
    ["Clients", null],
    ["a get: the client asks for the value of a key", sample({ kind: "get" })],
    ["a put: it sets the value", sample({ kind: "put" })],
    ["an append: it adds a piece to the end of the value", sample({ kind: "append" })],
    ["a delete: it removes the key", sample({ kind: "delete" })],
    ["a cas: it sets the value if the key has the expected version", sample({ kind: "cas" })],
    ["refused: the operation definitely had no effect", sample({ outcome: "fail" })],
    ["unknown (?): no answer came; it may have happened at any time since, or never", sample({ outcome: "unknown" })],
    ["an operation that shows why another cannot be placed", sample({ witness: true })],
    ["cannot be placed: no order of operations explains this answer", sample({ wrong: true })],
    ["a place in the order found: the operation took effect here, as number 7 of its key", (pen) => { sample({})(pen); point(pen, 37, 11, 7, 3); }],
    ["the value that the key had in that order, with its version (v)", (pen) => { box("--value")(pen); write(pen, "[2.4]  v7", 8, 74, 11); }],
    ["Servers", null],
    ["a follower: it does what the leader of its term says", box("--follower")],
    ["a pre-candidate: it hears no leader and asks whether it would be elected, without a new term", box("--pre")],
    ["a candidate: it asks the others for their vote in a new term", box("--candidate")],
    ["a leader: a majority elected it for this term, and it decides", box("--leader")],
    ["a leader that a newer one has replaced and that does not know it yet; this is allowed, but it must not answer reads or accept writes", hatched("--leader", "--old", 9, 3)],
    ["down: the server does not run, and has lost everything that was not on its disk", hatched("--down", "--down-line", 7, 1)],
    ["the server crashes here", (pen) => crashSign(pen, 37, 11)],
    ["the server starts again here, from its disk", (pen) => startSign(pen, 37, 11)],
    ["the network delivers no messages to the servers that are named", hatched("--card", "--cut", 5, 1)],
    ["a thin line of the same kind: cut off only from clients or other groups", (pen) => { pen.fillStyle = hatch(pen, "--cut", 5, .6); pen.fillRect(0, 9, 74, 3); }],
    ["commit index: how far the log is known to be safe on a majority", steps("--commit")],
    ["applied index: how far the log has been carried out", steps("--applied")],
    ["Messages", null],
    ["a vote, and the answers to it", stroke("--vote")],
    ["entries of the log from the leader, and the answers", stroke("--append-message")],
    ["a heartbeat: the leader says that it is still there", stroke("--heartbeat")],
    ["a piece of a snapshot for a follower that is far behind", stroke("--snapshot")],
    ["a request of a client, or of one group to another, and its answer", stroke("--client")],
    ["a message of the operation that you chose, or of one that cannot be placed", stroke("--bad")],
    ["a message that did not arrive", stroke("--cut", [2, 2])],
    ["Shards", null],
    ...owners.slice(0, 8).map((group) => ["served by group " + group, box(ownerColour(group))]),
    ["nobody serves the shard: clients have to wait", hatched("--bg", "--down-line", 5, 1)],
    ["two groups serve it at the same time: this must never happen", box("--bad")],
    ["Time", null],
    ["where the test noticed the failure; the cause is at this line or before it", (pen) => { pen.fillStyle = colour("--bad"); pen.fillRect(36, 0, 2, 22); }],
    ["the time that you chose", (pen) => { pen.fillStyle = colour("--accent"); pen.fillRect(36, 0, 2, 22); }],
    ["in the strip of the whole run: how much happened (grey), cuts (hatched), crashes (red), new leaders (green), and what is wrong (triangles)", (pen) => { pen.fillStyle = colour("--heartbeat"); [6, 10, 8, 13, 9].forEach((tall, number) => pen.fillRect(20 + number * 7, 21 - tall, 6, tall)); pen.fillStyle = colour("--bad"); pen.beginPath(); pen.moveTo(33, 0); pen.lineTo(41, 0); pen.lineTo(37, 7); pen.fill(); }],
  ];
  $("signs").replaceChildren(...signs.map(([text, paint]) => {
    if (!paint) return make("h3", {}, text);
    const canvas = make("canvas", { "aria-hidden": "true" });
    paint(prepare(canvas, 74, 22));
    return make("div", { class: "sign-row" }, canvas, make("span", {}, text));
  }));
}
