// How each kind of row is drawn, and what is under the pointer.

const MESSAGES_MAX = 1500;
const painters = {};

function stretches(pen, row, background) {
  eachVisible(row.list, (one, left, right) => {
    pen.fillStyle = colour(background);
    pen.fillRect(left, row.y + 2, Math.max(1, right - left - 1), row.height - 4);
    write(pen, one.text, Math.max(left, 0) + 5, right - 4, row.y + row.height / 2);
  });
}
painters.steps = (pen, row) => stretches(pen, row, "--step");
painters.weather = (pen, row) => stretches(pen, row, "--weather");

painters.value = (pen, row) => {
  eachVisible(row.list, (one, left, right) => {
    pen.fillStyle = colour("--value");
    pen.fillRect(left, row.y + 3, Math.max(1, right - left - 1), row.height - 6);
    pen.fillStyle = colour("--soft");
    pen.fillRect(left, row.y + 3, 1, row.height - 6);
    const text = one.value === null ? "(none)" : tail(one.value) + (one.version ? "  v" + one.version : "");
    write(pen, text, Math.max(left, 0) + 4, right - 3, row.y + row.height / 2);
  });
};

const tail = (text) => (text.length > 26 ? "…" + text.slice(-25) : text);

const roleColours = { follower: "--follower", "pre-candidate": "--pre", candidate: "--candidate", leader: "--leader", down: "--down" };

function roleText(role) {
  if (role.role === "down") return "down";
  const term = role.term === null ? "" : " · term " + role.term;
  return (role.role === "old" ? "leader, replaced" : role.role) + term;
}

function paintRoles(pen, row, list) {
  const middle = row.y + row.height / 2 - 1;
  eachVisible(list, (role, left, right) => {
    const width = Math.max(role.role === "follower" ? .5 : 1.5, right - left);
    pen.fillStyle = colour(roleColours[role.role] || (role.role === "old" ? "--leader" : "--follower"));
    pen.fillRect(left, row.y + 2, width, row.height - 4);
    if (role.role === "down" || role.role === "old") {
      pen.fillStyle = hatch(pen, role.role === "down" ? "--down-line" : "--old", role.role === "down" ? 7 : 9, role.role === "down" ? 1 : 3);
      pen.fillRect(left, row.y + 2, width, row.height - 4);
    }
    if (right - left > 3) { pen.fillStyle = colour("--card"); pen.fillRect(left, row.y + 2, .7, row.height - 4); }
    if (role.role === "old" && right - left > 90) {
      pen.fillStyle = colour("--leader");
      pen.fillRect(Math.max(left, 0) + 2, middle - 7, Math.min(right - left - 4, pen.measureText(roleText(role)).width + 8), 14);
    }
    const text = right - left > 74 ? roleText(role) : role.term === null ? "" : String(role.term);
    write(pen, text, Math.max(left, 0) + 6, right - 2, middle, role.role === "follower" ? "--soft" : "--ink");
  });
}

function isCutInside(cut) {
  return cut.both.length + cut.not_heard_by.length + cut.deaf_to.length > 0;
}

function cutText(cut) {
  const parts = [];
  if (cut.both.length) parts.push("cut off from " + listed(cut.both));
  if (cut.not_heard_by.length) parts.push("not heard by " + listed(cut.not_heard_by));
  if (cut.deaf_to.length) parts.push("does not hear " + listed(cut.deaf_to));
  const majority = cut.reaches * 2 > cut.size ? "" : ", no majority";
  if (parts.length) parts.push("reaches " + cut.reaches + " of " + cut.size + majority);
  if (cut.others.length) parts.push("outside of its group cut off from " + listed(cut.others.slice(0, 6)) + (cut.others.length > 6 ? " and others" : ""));
  return parts.join(" · ");
}

function paintCuts(pen, row) {
  eachVisible(row.server.cuts, (cut, left, right) => {
    const inside = isCutInside(cut);
    const height = inside ? 13 : 3;
    if (inside) { pen.fillStyle = colour("--card"); pen.globalAlpha = .72; pen.fillRect(left, row.y + 2, right - left, height); pen.globalAlpha = 1; }
    pen.fillStyle = hatch(pen, "--cut", 5, inside ? 1 : .6);
    pen.fillRect(left, row.y + 2, right - left, height);
    if (inside && right - left > 60) {
      const text = cutText(cut);
      const room = right - Math.max(left, 0) - 10;
      const width = Math.min(room, pen.measureText(text).width + 6);
      pen.fillStyle = colour("--card");
      pen.fillRect(Math.max(left, 0) + 3, row.y + 2, width, height);
      write(pen, text, Math.max(left, 0) + 6, Math.max(left, 0) + 3 + width, row.y + 9, "--cut");
    }
  });
}

/** The lowest and the highest index that a group's lanes show in the view. */
function progressRange(group) {
  let least = Infinity, most = -Infinity;
  for (const server of group.servers) {
    const list = server.progress;
    const first = Math.max(0, lower(list, view.from, (step) => step[0]) - 1);
    const last = lower(list, view.to, (step) => step[0]) - 1;
    for (const place of [first, last]) {
      if (!list[place] || list[place][0] > view.to) continue;
      least = Math.min(least, list[place][2]);
      most = Math.max(most, list[place][1]);
    }
  }
  return [least, Math.max(most, least + 4)];
}

function paintProgress(pen, row) {
  const list = row.server.progress;
  if (!list.length) return;
  const [least, most] = progressRange(row.group);
  if (!isFinite(least)) return;
  const bottom = row.y + row.height - 4, height = 12;
  const y = (index) => bottom - clamp((index - least) / (most - least), 0, 1) * height;
  const first = Math.max(0, lower(list, view.from, (step) => step[0]) - 1);
  for (const [part, name] of [[2, "--applied"], [1, "--commit"]]) {
    pen.strokeStyle = colour(name);
    pen.lineWidth = part === 1 ? 1.2 : 1;
    pen.beginPath();
    let before = null, lastX = -9;
    for (let place = first; place < list.length; place++) {
      const px = x(list[place][0]);
      // Steps too close together to be seen.
      if (px - lastX < .7 && place + 1 < list.length && px <= view.width) { continue; }
      lastX = px;
      const py = y(list[place][part]);
      if (before === null) pen.moveTo(px, py); else { pen.lineTo(px, before); pen.lineTo(px, py); }
      before = py;
      if (px > view.width) break;
    }
    const down = row.server.roles.at(-1);
    if (before !== null) pen.lineTo(Math.min(view.width, x(down && down.role === "down" ? down.from : run.end)), before);
    pen.stroke();
  }
}

function crashSign(pen, px, y) {
  pen.fillStyle = colour("--bad");
  pen.beginPath(); pen.arc(px, y, 7, 0, 7); pen.fill();
  pen.strokeStyle = colour("--on-bad"); pen.lineWidth = 2;
  pen.beginPath(); pen.moveTo(px - 3, y - 3); pen.lineTo(px + 3, y + 3); pen.moveTo(px + 3, y - 3); pen.lineTo(px - 3, y + 3); pen.stroke();
}

function startSign(pen, px, y) {
  pen.fillStyle = colour("--commit");
  pen.beginPath(); pen.moveTo(px - 4, y - 6); pen.lineTo(px + 6, y); pen.lineTo(px - 4, y + 6); pen.closePath(); pen.fill();
}

function paintMarks(pen, row) {
  let last = -99;
  for (const mark of row.server.marks) {
    const px = x(mark.at);
    if (px < -9 || px > view.width + 9 || (mark.life === 1 && !mark.crash)) continue;
    if (px - last < 3) continue;
    last = px;
    (mark.crash ? crashSign : startSign)(pen, px, row.y + row.height / 2);
  }
}

painters.group = () => {};
painters.server = (pen, row) => {
  paintRoles(pen, row, row.server.roles);
  paintRoles(pen, row, row.server.old);
  paintProgress(pen, row);
  paintCuts(pen, row);
  paintMarks(pen, row);
};

painters.shard = (pen, row) => {
  const top = row.y + 2, height = row.height - 4;
  eachVisible(row.shard.parts, (part, left, right) => {
    const width = Math.max(part.owners.length > 1 ? 3 : .7, right - left - .6);
    if (part.owners.length === 0) {
      pen.fillStyle = colour("--bg");
      pen.fillRect(left, top, width, height);
      pen.fillStyle = hatch(pen, "--down-line", 5, 1);
      pen.fillRect(left, top, width, height);
    } else if (part.owners.length === 1) {
      pen.fillStyle = colour(ownerColour(part.owners[0]));
      pen.fillRect(left, top, width, height);
      write(pen, "group " + part.owners[0], Math.max(left, 0) + 6, right - 3, row.y + row.height / 2);
    } else {
      pen.fillStyle = colour("--bad");
      pen.fillRect(left, top, width, height);
      write(pen, "groups " + listed(part.owners) + " at once", Math.max(left, 0) + 4, right - 3, row.y + row.height / 2, "--on-bad");
    }
  });
};

function dims(operation) {
  return chosen.key >= 0 && operation.key !== chosen.key && !operation.wrong;
}

/** Where the bar of an operation is; one without an answer goes on to the next of its lane. */
function barOf(operation) {
  const open = operation.next ? operation.next.call : run.end;
  return visible(operation.call, operation.end === null ? Math.max(open, operation.call) : operation.end, operation.wrong ? 7 : 1.5);
}

function bar(pen, operation, left, right, top, height) {
  const width = Math.max(1.5, right - left - .5);
  const name = "--" + operation.kind;
  pen.globalAlpha = dims(operation) ? .3 : 1;
  rounded(pen, left, top, width, height, 3);
  if (operation.wrong) {
    pen.fillStyle = colour("--bad");
    pen.fill();
  } else if (operation.outcome === "unknown") {
    const fade = pen.createLinearGradient(left, 0, right, 0);
    fade.addColorStop(0, colour(name));
    fade.addColorStop(Math.min(1, 24 / width), colour(name));
    fade.addColorStop(1, "transparent");
    pen.fillStyle = fade;
    pen.fill();
    if (width > 14 && !dims(operation)) write(pen, "?", Math.min(right - 9, left + width / 2), right, top + height / 2, "--ink", 4);
  } else if (operation.outcome === "fail") {
    pen.strokeStyle = colour(name);
    pen.lineWidth = 1.6;
    pen.setLineDash([3, 2]);
    pen.stroke();
    pen.setLineDash([]);
  } else {
    pen.fillStyle = colour(name);
    pen.fill();
  }
  if (operation === chosen.operation || operation.witness) {
    pen.strokeStyle = colour(operation === chosen.operation ? "--ink" : "--bad");
    pen.lineWidth = 2;
    rounded(pen, left - 1.5, top - 1.5, width + 3, height + 3, 4);
    pen.stroke();
  }
  pen.globalAlpha = 1;
}

painters.client = (pen, row) => {
  const list = row.lane.list;
  const top = row.y + (LANE > 20 ? 4 : 2), height = row.height - 2 * (top - row.y);
  let last = -9;
  const late = [];
  for (let place = Math.max(0, lower(list, view.from, (one) => one.call) - 1); place < list.length; place++) {
    const operation = list[place];
    if (operation.call > view.to) break;
    const ends = barOf(operation);
    if (!ends) continue;
    const [left, right] = ends;
    if (operation.wrong || operation === chosen.operation) { late.push([operation, left, right]); continue; }
    // Of several on one pixel, one is enough.
    if (right - last < .8) continue;
    last = right;
    bar(pen, operation, left, right, top, height);
    if (right - left > 46 && !dims(operation)) say(pen, operation, left, right, row, "--ink");
  }
  for (const [operation, left, right] of late) {
    bar(pen, operation, left, right, top, height);
    const name = operation.wrong ? "--on-bad" : "--ink";
    if (right - left > 46) say(pen, operation, left, right, row, name);
  }
};

/** The text of a bar, beside its point. */
function say(pen, operation, left, right, row, name) {
  const text = asked(operation) + " → " + answered(operation);
  const middle = row.y + row.height / 2;
  const from = Math.max(left, 0) + 5, to = Math.min(right, view.width) - 3;
  const px = operation.point && chosen.key === operation.key ? x(operation.point.time) : -99;
  if (px < from - 9 || px > to + 9) write(pen, text, from, to, middle, name);
  else if (px - from > to - px) write(pen, text, from, px - 10, middle, name);
  else write(pen, text, px + 11, to, middle, name);
}

/** Labels of what could not be placed: seen however small the bar is. */
function paintWrong(pen) {
  let drawn = 0;
  for (const operation of wrong) {
    const ends = barOf(operation);
    if (!ends || ends[1] < 0 || ends[0] > view.width || drawn++ > 60) continue;
    const row = clientRows[operation.lane];
    const middle = row.y + row.height / 2;
    claim(pen, operation, row, ends);
    if (ends[1] - ends[0] > 130) continue;
    const text = asked(operation) + " → " + answered(operation);
    const width = pen.measureText(text).width + 10;
    const left = ends[1] + 6 + width < view.width ? ends[1] + 5 : ends[0] - 5 - width;
    pen.fillStyle = colour("--bad-soft");
    rounded(pen, left, middle - 9, width, 18, 4);
    pen.fill();
    pen.strokeStyle = colour("--bad");
    pen.lineWidth = 1;
    pen.stroke();
    write(pen, text, left + 5, left + width, middle, "--bad");
  }
}

/** From a read that fits nowhere to when its answer was true. */
function claim(pen, operation, row, ends) {
  const values_ = rows.find((one) => one.kind === "value");
  if (!values_ || operation.key !== chosen.key || operation.kind !== "get" || operation.outcome !== "ok") return;
  const same = (one) => one.value === operation.output && (!one.version || !operation.version || one.version === operation.version);
  const part = values_.list.filter((one) => one.from < operation.end && same(one)).pop();
  if (!part) return;
  const to = x(Math.min(part.to, run.end)), from = Math.max(-2, x(part.from));
  const y = values_.y + values_.height - 3;
  pen.strokeStyle = colour("--bad");
  pen.lineWidth = 1.5;
  pen.strokeRect(from, values_.y + 2.5, Math.max(2, to - from), values_.height - 5);
  pen.setLineDash([4, 3]);
  pen.beginPath();
  pen.moveTo((ends[0] + ends[1]) / 2, row.y + 4);
  pen.lineTo(Math.max(from, to) - 1, y);
  pen.stroke();
  pen.setLineDash([]);
  const text = "the answer was true until here";
  const width = pen.measureText(text).width + 8;
  const left = clamp(Math.max(from, to) - width - 4, 0, view.width - width);
  pen.fillStyle = colour("--bad");
  rounded(pen, left, values_.y + 4, width, values_.height - 8, 3);
  if (to > 0 && to < view.width) { pen.fill(); write(pen, text, left + 4, left + width, values_.y + values_.height / 2, "--on-bad"); }
}

/** The order found: a numbered point on each operation, joined if a key is chosen. */
function paintPoints(pen) {
  for (const verdict of run.verdicts) {
    const isChosen = chosen.key >= 0 && run.keys[chosen.key] === verdict.key;
    if (chosen.key >= 0 && !isChosen) continue;
    const from = Math.max(0, lower(verdict.points, view.from, (one) => one[1]) - 1);
    const to = Math.min(verdict.points.length, lower(verdict.points, view.to, (one) => one[1]) + 1);
    const points = verdict.points.slice(from, to);
    if (points.length > 4000) continue;
    const many = points.length > 160;
    if (!isChosen) {
      // Only on bars that are wide enough to be seen under them.
      for (const one of points) {
        const { call, end } = operations[one[0]];
        if (x(end === null ? call : end) - x(call) > 9) point(pen, x(one[1]), clientRows[operations[one[0]].lane].y + LANE / 2, null, 2);
      }
      continue;
    }
    const place = (one) => { const row = clientRows[operations[one[0]].lane]; return [x(one[1]), row.y + row.height / 2]; };
    pen.strokeStyle = colour("--point");
    pen.globalAlpha = many ? .12 : .35;
    pen.lineWidth = 1.2;
    pen.beginPath();
    points.forEach((one, number) => pen[number ? "lineTo" : "moveTo"](...place(one)));
    pen.stroke();
    pen.globalAlpha = 1;
    // Numbers only where they can be read.
    const placed = points.map(place);
    const needed = 2 * radius(String(to)) + 1;
    const crowded = new Array(placed.length).fill(many);
    const lastOf = new Map();
    placed.forEach(([px, y], number) => {
      const before = lastOf.get(y);
      if (before !== undefined && px - placed[before][0] < needed) crowded[before] = crowded[number] = true;
      lastOf.set(y, number);
    });
    placed.forEach((one, number) => point(pen, ...one, crowded[number] ? null : from + number + 1, many ? 2.2 : 3));
  }
}

const radius = (text) => 7 + Math.max(0, text.length - 2) * 3;

function point(pen, px, y, number, size) {
  pen.fillStyle = colour("--point");
  const text = number === null ? "" : String(number);
  pen.beginPath(); pen.arc(px, y, number === null ? size : Math.min(radius(text), 14), 0, 7); pen.fill();
  if (number === null) return;
  pen.fillStyle = colour("--on-point");
  pen.textAlign = "center";
  pen.font = "9.5px system-ui, sans-serif";
  pen.fillText(text, px, y + .5);
  pen.textAlign = "start";
  pen.font = FONT;
}

const messageColours = { vote: "--vote", append: "--append-message", heartbeat: "--heartbeat", snapshot: "--snapshot", client: "--client" };

/** The row of a server, or of the client that had this name then. */
function rowOf(name, time) {
  const row = rowOfServer.get(name);
  if (row) return row;
  const operation = operationAt(name, time);
  return operation ? clientRows[operation.lane] : null;
}

/** Whether a message belongs to the chosen operation, or to one that cannot be placed. */
function isOfInterest(message) {
  if (message.topic !== "client") return false;
  const operation = operationAt(message.from, message.time) || operationAt(message.to, message.time);
  if (!operation || !(operation.wrong || operation === chosen.operation)) return false;
  return operation.end === null || message.time <= operation.end;
}

/** The messages in the view that are drawn, and how many there would be. */
function messagesInView() {
  const found = [];
  // A message may be in flight for a second.
  for (let place = lower(messages, view.from - 1.2e6, (one) => one.time); place < messages.length; place++) {
    const message = messages[place];
    if (message.time > view.to) break;
    if (!shown.topics.has(message.topic) && !isOfInterest(message)) continue;
    if ((message.arrived === null ? message.time + 2000 : message.arrived) < view.from) continue;
    if (!rowOf(message.from, message.time) || !rowOf(message.to, message.time)) continue;
    found.push(message);
  }
  return found;
}

/** The line of a message: from, to, and whether it ends on the way. */
function lineOf(message) {
  const from = rowOf(message.from, message.time), to = rowOf(message.to, message.time);
  const [y0, y1] = [from.y + from.height / 2, to.y + to.height / 2];
  if (message.sent === null) return [x(message.arrived) - 10, y0 + (y1 - y0) * .7, x(message.arrived), y1, false];
  if (message.arrived === null) {
    const part = .45;
    return [x(message.sent), y0, x(message.sent + 150), y0 + (y1 - y0) * part, true];
  }
  return [x(message.sent), y0, x(message.arrived), y1, false];
}

let drawnMessages = [];
function paintMessages(pen) {
  const found = messagesInView();
  drawnMessages = found.length <= MESSAGES_MAX ? found : [];
  $("hint").textContent = found.length > MESSAGES_MAX ? found.length.toLocaleString("en") + " here: zoom in" : "";
  const many = drawnMessages.length;
  for (const message of drawnMessages) {
    const [x0, y0, x1, y1, lost] = lineOf(message);
    const interesting = isOfInterest(message);
    pen.globalAlpha = message === hover || interesting ? 1 : many < 200 ? .85 : many < 600 ? .5 : .28;
    pen.strokeStyle = colour(lost ? "--cut" : interesting ? "--bad" : messageColours[message.topic] || "--soft");
    pen.lineWidth = interesting ? 1.8 : many < 200 ? 1.3 : .8;
    pen.setLineDash(lost ? [2, 2] : []);
    pen.beginPath(); pen.moveTo(x0, y0); pen.lineTo(x1, y1); pen.stroke();
    pen.setLineDash([]);
    if (lost) {
      const size = many < 200 ? 3.5 : 2;
      pen.beginPath(); pen.moveTo(x1 - size, y1 - size); pen.lineTo(x1 + size, y1 + size); pen.moveTo(x1 + size, y1 - size); pen.lineTo(x1 - size, y1 + size); pen.stroke();
    } else if (many < 250 || interesting) arrow(pen, x0, y0, x1, y1);
  }
  pen.globalAlpha = 1;
}

function arrow(pen, x0, y0, x1, y1) {
  const angle = Math.atan2(y1 - y0, x1 - x0);
  pen.fillStyle = pen.strokeStyle;
  pen.beginPath();
  pen.moveTo(x1, y1);
  pen.lineTo(x1 - 7 * Math.cos(angle - .35), y1 - 7 * Math.sin(angle - .35));
  pen.lineTo(x1 - 7 * Math.cos(angle + .35), y1 - 7 * Math.sin(angle + .35));
  pen.fill();
}

function paintLanes() {
  const pen = prepare($("canvas"), view.width, view.height);
  pen.fillStyle = colour("--grid");
  ticks((time) => pen.fillRect(Math.round(x(time)), 0, 1, view.height));
  for (const row of rows) {
    if (row.kind === "client" || row.kind === "server") { pen.fillStyle = colour("--grid"); pen.fillRect(0, row.y + row.height - 1, view.width, 1); }
    if (painters[row.kind]) painters[row.kind](pen, row);
  }
  line(pen, run.failed_at, "--bad", 1.5, view.height);
  if (chosen.time !== null) line(pen, chosen.time, "--accent", 1.5, view.height);
  paintMessages(pen);
  paintPoints(pen);
  paintWrong(pen);
  if (chosen.server) {
    const row = rowOfServer.get(chosen.server);
    if (row) { pen.strokeStyle = colour("--accent"); pen.lineWidth = 2; pen.strokeRect(1, row.y + 1, view.width - 2, row.height - 2); }
  }
}

function line(pen, time, name, width, height) {
  if (time < view.from || time > view.to) return;
  pen.fillStyle = colour(name);
  pen.fillRect(x(time) - width / 2, 0, width, height);
}

function paintAxis() {
  const pen = prepare($("axis"), view.width, 24);
  const labels = [run.failed_at, chosen.time].filter((time) => time !== null).map(x);
  ticks((time, text) => {
    pen.fillStyle = colour("--line");
    pen.fillRect(Math.round(x(time)), 15, 1, 9);
    pen.fillStyle = colour("--soft");
    if (labels.some((px) => Math.abs(px - x(time)) < 62)) return;
    pen.textAlign = x(time) < 20 ? "start" : x(time) > view.width - 22 ? "end" : "center";
    pen.fillText(text, x(time), 9);
  });
  pen.textAlign = "start";
  const label = (time, text, name, on) => {
    if (time < view.from || time > view.to) return;
    const width = pen.measureText(text).width + 10;
    const left = clamp(x(time) - width / 2, 0, view.width - width);
    pen.fillStyle = colour(name);
    rounded(pen, left, 2, width, 16, 4);
    pen.fill();
    write(pen, text, left + 5, left + width, 10, on);
    line(pen, time, name, 1.5, 24);
  };
  // Two labels in one place cannot be read.
  const isFree = chosen.time === null || Math.abs(x(chosen.time) - x(run.failed_at)) > 110;
  if (isFree) label(run.failed_at, "the test noticed", "--bad", "--on-bad");
  if (chosen.time !== null) label(chosen.time, seconds(chosen.time), "--accent", "--card");
}

// How much happened in each small part of the run.
const BINS = 400;
const density = new Float64Array(BINS);
const count = (time) => { density[clamp(Math.floor((time - run.begin) / length * BINS), 0, BINS - 1)] += 1; };
if (operations.length) operations.forEach((operation) => count(operation.call));
else messages.forEach((message) => count(message.time));
const densest = Math.max(1, ...density);

function paintOverview() {
  const height = 40;
  const pen = prepare($("overview"), view.width, height);
  const px = (time) => (time - run.begin) / length * view.width;
  for (const server of run.servers) {
    for (const cut of server.cuts.filter(isCutInside)) { pen.fillStyle = hatch(pen, "--cut", 5, .6); pen.globalAlpha = .5; pen.fillRect(px(cut.from), 2, Math.max(1, px(cut.to) - px(cut.from)), 9); pen.globalAlpha = 1; }
  }
  pen.fillStyle = colour("--heartbeat");
  const bin = view.width / BINS;
  density.forEach((many, number) => { const tall = Math.sqrt(many / densest) * 24; pen.fillRect(number * bin, height - 1 - tall, Math.max(.5, bin - .4), tall); });
  for (const moment of run.moments) {
    if (moment.kind === "crash") { pen.fillStyle = colour("--bad"); pen.fillRect(px(moment.at) - .5, 2, 1.5, 9); }
    if (moment.kind === "leader") { pen.fillStyle = colour("--commit"); pen.fillRect(px(moment.at) - .5, 2, 1.5, 9); }
    if (moment.kind === "wrong") { pen.fillStyle = colour("--bad"); pen.beginPath(); pen.moveTo(px(moment.at) - 4, 0); pen.lineTo(px(moment.at) + 4, 0); pen.lineTo(px(moment.at), 8); pen.fill(); }
  }
  pen.fillStyle = colour("--bad");
  pen.fillRect(px(run.failed_at) - 1, 0, 2, height);
  const [left, right] = [px(view.from), px(view.to)];
  pen.fillStyle = colour("--bg");
  pen.globalAlpha = .62;
  pen.fillRect(0, 0, left, height);
  pen.fillRect(right, 0, view.width - right, height);
  pen.globalAlpha = 1;
  pen.strokeStyle = colour("--accent");
  pen.lineWidth = 2;
  rounded(pen, left + 1, 1, Math.max(4, right - left - 2), height - 2, 4);
  pen.stroke();
}

let isDue = false;
/** Draws everything, once a frame at most. */
function repaint() {
  if (isDue) return;
  isDue = true;
  requestAnimationFrame(() => { isDue = false; paintLanes(); paintAxis(); paintOverview(); });
}
