// Pointer, wheel and keys; and the beginning.

/** What is under the pointer: its row, and the thing in it. */
function under(px, y) {
  const row = rowAt(y);
  if (!row) return null;
  const time = timeAt(px);
  const inList = (list) => { const one = at(list, time, (part) => part.from); return one && time < Math.max(one.to, one.from + 1) ? one : null; };
  switch (row.kind) {
    case "client": {
      const list = row.lane.list;
      const near = list.slice(Math.max(0, lower(list, time, (one) => one.call) - 3), lower(list, timeAt(px + 6), (one) => one.call) + 1);
      const hits = near.map((operation) => ({ operation, ends: barOf(operation) })).filter(({ ends }) => ends && px >= ends[0] - 3 && px <= ends[1] + 3);
      const hit = hits.find(({ operation }) => operation.wrong) || hits[hits.length - 1];
      return { row, time, operation: hit ? hit.operation : null };
    }
    case "server": return { row, time, server: row.server, message: messageNear(px, y) };
    case "group": return { row, time, message: messageNear(px, y) };
    case "shard": return { row, time, part: inList(row.shard.parts) };
    case "steps": case "weather": case "value": return { row, time, stretch: inList(row.list) };
    default: return { row, time };
  }
}

function messageNear(px, y) {
  if (drawnMessages.length > 700) return null;
  let best = null, least = 5;
  for (const message of drawnMessages) {
    const [x0, y0, x1, y1] = lineOf(message);
    const length = Math.hypot(x1 - x0, y1 - y0) || 1;
    const along = clamp(((px - x0) * (x1 - x0) + (y - y0) * (y1 - y0)) / length / length, 0, 1);
    const distance = Math.hypot(px - x0 - along * (x1 - x0), y - y0 - along * (y1 - y0));
    if (distance < least) { least = distance; best = message; }
  }
  return best;
}

/** The lines of the tip for what is under the pointer; the first is its title. */
function tipOf(hit) {
  if (hit.message) {
    const message = hit.message;
    const fate = message.arrived === null ? (message.fate || "did not arrive") : message.sent === null ? "arrived a second time" : "took " + span(message.arrived - message.sent);
    return [message.kind + ": " + message.from + " to " + message.to, message.text, seconds(message.time, 6) + ", " + fate];
  }
  if (hit.operation) return [hit.operation.client + ": " + asked(hit.operation), told(hit.operation), hit.operation.wrong ? hit.operation.words || "Its answer fits nowhere in the order of operations." : hit.operation.point ? "Number " + hit.operation.point.number + " in the order found for its key." : null];
  if (hit.server) {
    const mark = hit.server.marks.find((one) => Math.abs(x(one.at) - x(hit.time)) < 7 && (one.crash || one.life > 1));
    return ["Server " + hit.server.name + " at " + seconds(hit.time), mark ? (mark.crash ? "crashes" : "starts again") + " at " + seconds(mark.at, 6) : null, ...standing(hit.server, hit.time).map(([name, text]) => name + ": " + text)];
  }
  if (hit.part) return ["Shard " + hit.row.shard.shard, "From " + seconds(hit.part.from) + " to " + seconds(hit.part.to) + ": " + hit.part.text + "."];
  if (hit.stretch && hit.row.kind === "value") return ["Value of " + quote(run.keys[chosen.key]), hit.stretch.value === null ? "none" : quote(hit.stretch.value) + (hit.stretch.version ? ", version " + hit.stretch.version : ""), "since " + seconds(hit.stretch.from) + ", by " + hit.stretch.operation.client];
  if (hit.stretch) return [hit.stretch.text, "from " + seconds(hit.stretch.from) + " to " + seconds(hit.stretch.to)];
  return null;
}

function showTip(event, lines) {
  const tip = $("tip");
  if (!lines) { tip.hidden = true; return; }
  const [title, ...more] = lines;
  tip.replaceChildren(make("b", {}, title), ...more.filter(Boolean).map((text) => make("div", {}, text)));
  tip.hidden = false;
  const size = tip.getBoundingClientRect();
  tip.style.left = clamp(event.clientX + 14, 4, window.innerWidth - size.width - 4) + "px";
  tip.style.top = (event.clientY + 18 + size.height > window.innerHeight ? event.clientY - size.height - 12 : event.clientY + 18) + "px";
}

const place = (event) => { const box = event.currentTarget.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };

function click(px, y) {
  const hit = under(px, y);
  if (!hit) return;
  if (hit.operation) { choose(hit.operation); openTab("around"); return; }
  if (hit.server) { chooseServer(hit.server.name, hit.message ? hit.message.time : hit.time); return; }
  chosen.operation = null;
  chosen.server = null;
  chosen.time = hit.time;
  chosen.shard = hit.part ? { shard: hit.row.shard, part: hit.part } : null;
  if (hit.part) openTab("around");
  fillAround();
  repaint();
}

/** Dragging moves the view; a press that does not move is a click. */
function drags(canvas, onMove, onClick) {
  let start = null;
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    const [px, y] = place(event);
    start = { px, y, from: view.from, to: view.to, moved: false };
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!start) return;
    const [px] = place(event);
    if (Math.abs(px - start.px) > 3) start.moved = true;
    if (start.moved) { onMove(px - start.px, start, px); showTip(event, null); }
  });
  const over = (event) => {
    if (start && !start.moved && event.type === "pointerup" && onClick) onClick(start.px, start.y);
    start = null;
  };
  canvas.addEventListener("pointerup", over);
  canvas.addEventListener("pointercancel", over);
}

function moveBy(shift, start) {
  const wide = start.to - start.from;
  const from = clamp(start.from + shift, run.begin, run.end - wide);
  look(from, from + wide);
}

function listen() {
  const canvas = $("canvas"), axis = $("axis"), overview = $("overview");
  drags(canvas, (px, start) => moveBy(-px / view.width * (start.to - start.from), start), click);
  drags(axis, (px, start) => moveBy(-px / view.width * (start.to - start.from), start), (px) => { chosen.time = timeAt(px); chosen.operation = chosen.server = null; fillAround(); repaint(); });
  drags(overview, (px, start) => moveBy(px / view.width * length, start), (px) => { const wide = view.to - view.from; const middle = run.begin + px / view.width * length; look(middle - wide / 2, middle + wide / 2); });
  canvas.addEventListener("pointermove", (event) => {
    if (event.buttons) return;
    const hit = under(...place(event));
    const message = hit && hit.message ? hit.message : null;
    if (message !== hover) { hover = message; repaint(); }
    showTip(event, hit ? tipOf(hit) : null);
  });
  canvas.addEventListener("pointerleave", (event) => showTip(event, null));
  canvas.addEventListener("dblclick", (event) => zoom(.4, timeAt(place(event)[0])));
  for (const one of [canvas, axis, overview]) {
    one.addEventListener("wheel", (event) => {
      const [px] = place(event);
      const sideways = Math.abs(event.deltaX) > Math.abs(event.deltaY);
      if (one === canvas && !event.ctrlKey && !event.metaKey && !event.shiftKey && !sideways) return;
      event.preventDefault();
      if (event.shiftKey || sideways) { pan((event.deltaX || event.deltaY) / 800); return; }
      zoom(Math.exp(event.deltaY / 400), one === overview ? run.begin + px / view.width * length : timeAt(px));
    }, { passive: false });
  }
  const buttons = { out: () => zoom(1.6), in: () => zoom(1 / 1.6), left: () => pan(-.3), right: () => pan(.3), all: () => look(run.begin, run.end), first: showFocus, show: () => { showFocus(); $("picture").scrollIntoView({ behavior: "smooth" }); }, theme: turnTheme, copy: copyCommand };
  for (const [id, action] of Object.entries(buttons)) $(id).addEventListener("click", action);
  $("key").addEventListener("change", () => chooseKey(Number($("key").value)));
  document.addEventListener("keydown", onKey);
  new ResizeObserver(measure).observe($("lanes"));
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || (event.target instanceof Element && event.target.closest("input, select, textarea"))) return;
  const keys = {
    ArrowLeft: () => pan(-.15), ArrowRight: () => pan(.15), "+": () => zoom(1 / 1.6), "=": () => zoom(1 / 1.6), "-": () => zoom(1.6),
    0: () => look(run.begin, run.end), f: showFocus, n: () => nextMoment(1), p: () => nextMoment(-1), ".": () => stepOperation(1), ",": () => stepOperation(-1),
    Home: () => moveBy(-length, view), End: () => moveBy(length, view), Escape: forget,
  };
  tabs.forEach((tab, number) => { keys[number + 1] = () => openTab(tab.id); });
  const action = keys[event.key];
  if (!action) return;
  event.preventDefault();
  action();
}

function forget() {
  Object.assign(chosen, { operation: null, server: null, shard: null, time: null });
  fillAround();
  repaint();
}

/** The stretch to look at first, with room around it, and what is wrong shortly before. */
function showFocus() {
  const { from, to, key } = run.focus;
  if (key !== null && run.keys.includes(key)) chooseKey(run.keys.indexOf(key));
  chosen.operation = wrong.find((operation) => operation.call === from) || null;
  chosen.server = null;
  chosen.time = from;
  const earlier = run.moments.filter((moment) => moment.at <= from && moment.at > from - 2.5e6 && ["cut", "leader", "crash", "wrong"].includes(moment.kind)).map((moment) => moment.at);
  // A moment without an operation is seldom where the problem began.
  const start = Math.min(from - (chosen.operation ? 4e5 : 2.5e6), ...earlier.map((time) => time - 1e5));
  look(Math.max(start, run.begin), Math.max(to + 4e5, to + (to - start) * .2));
  const number = run.moments.findIndex((moment) => chosen.operation ? moment.operation === chosen.operation.place : moment.at === from && (moment.kind === "wrong" || moment.kind === "failed"));
  if (number >= 0) {
    if (chosen.moment >= 0) run.moments[chosen.moment].line.classList.remove("here");
    chosen.moment = number;
    run.moments[number].line.classList.add("here");
    reveal($("moments"), run.moments[number].line);
  }
  fillAround();
}

function setTheme(name) {
  document.documentElement.dataset.theme = name;
  document.documentElement.style.colorScheme = name;
  colours = {};
  patterns = {};
  makeSigns();
  repaint();
}
function turnTheme() { setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark"); }

function copyCommand() {
  const done = () => { $("copy").textContent = "copied"; setTimeout(() => { $("copy").textContent = "copy"; }, 1500); };
  const byHand = () => {
    const range = document.createRange();
    range.selectNodeContents($("replay"));
    getSelection().removeAllRanges();
    getSelection().addRange(range);
    if (document.execCommand("copy")) done();
  };
  if (navigator.clipboard && window.isSecureContext) navigator.clipboard.writeText(run.header.replay).then(done, byHand);
  else byHand();
}

function measure() {
  const width = Math.max(200, $("lanes").clientWidth - LABELS);
  if (width === view.width) return;
  view.width = width;
  layOut();
  repaint();
}

function fillHeader() {
  $("facts").textContent = run.header.test + " · seed " + run.header.seed + " · " + run.servers.length + " servers, " + operations.length.toLocaleString("en") + " operations, " + seconds(run.failed_at, 1);
  $("failed-at").textContent = "noticed at " + seconds(run.failed_at);
  $("replay").textContent = run.header.replay;
  $("focus").textContent = run.focus.what;
  $("context").replaceChildren(...run.focus.context.map((text) => make("li", {}, text)));
  $("options").replaceChildren(...[["seed", String(run.header.seed)], ...run.header.options].flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
  const words = run.verdicts.flatMap((verdict) => [...verdict.unplaced.map(([, text]) => text), verdict.words].filter((text) => text && !run.header.failure.includes(text)).map((text) => [verdict.key, text]));
  $("judged").replaceChildren(...words.slice(0, 50).map(([key, text]) => make("p", { class: "wrong" }, "Key " + quote(key) + ": " + text)));
  const option = (value, text) => make("option", { value: String(value) }, text);
  const counts = new Map();
  operations.forEach((operation) => counts.set(operation.key, (counts.get(operation.key) || 0) + 1));
  const bad = (key) => verdicts[key] && verdicts[key].isBad;
  const order = run.keys.map((_, key) => key).sort((one, other) => Number(Boolean(bad(other))) - Number(Boolean(bad(one))) || one - other);
  $("key").replaceChildren(option(-1, "all keys"), ...order.slice(0, 2000).map((key) => option(key, (bad(key) ? "! " : "") + run.keys[key].slice(0, 60) + " (" + counts.get(key) + ")")));
  $("key").parentElement.hidden = !run.keys.length;
  const topics = [["vote", "votes"], ["append", "appends"], ["heartbeat", "heartbeats"], ["snapshot", "snapshots"], ["client", "requests"]].filter(([topic]) => messages.some((message) => message.topic === topic));
  $("topics").hidden = !topics.length;
  for (const [topic, title] of topics) {
    const button = make("button", { type: "button", "aria-pressed": String(shown.topics.has(topic)), onclick: () => {
      if (!shown.topics.delete(topic)) shown.topics.add(topic);
      button.setAttribute("aria-pressed", String(shown.topics.has(topic)));
      repaint();
    } }, title);
    $("topics").append(button);
  }
  $("note").textContent = run.messages.note || "";
  $("note").hidden = !run.messages.note;
}

/** A link may say where to look: page.html#t=3.40-3.45&key=x&server=101.1&tab=around&theme=dark */
function follow(link) {
  const wish = new URLSearchParams(link.replace(/^#/, ""));
  if (wish.has("theme")) setTheme(wish.get("theme") === "dark" ? "dark" : "light");
  const key = run.keys.indexOf(wish.get("key"));
  if (wish.has("key")) chooseKey(key);
  const [from, to] = (wish.get("t") || "").split("-").map((time) => Number(time) * 1e6);
  if (from >= 0 && to > from) {
    look(from, to);
    if (rowOfServer.has(wish.get("server"))) chooseServer(wish.get("server"), Math.round((from + to) / 2));
  }
  if (tabs.some((tab) => tab.id === wish.get("tab"))) openTab(wish.get("tab"));
}

makeTabs();
fillHeader();
makeMoments();
openTab("moments");
measure();
layOut();
setTheme(window.matchMedia && window.matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
fillOrder();
fillAround();
listen();
showFocus();
follow(location.hash);
window.addEventListener("hashchange", () => follow(location.hash));
