// The view, and the rows of the picture from top to bottom.

const LABELS = 148;
const view = { from: run.begin, to: run.end, width: 800, height: 100 };
const chosen = { key: -1, operation: null, server: null, shard: null, time: null, moment: -1 };
const shown = { topics: new Set(["vote", "append", "snapshot"]) };
let hover = null;

const x = (time) => (time - view.from) / (view.to - view.from) * view.width;
const timeAt = (px) => view.from + px / view.width * (view.to - view.from);

let rows = [];
const rowOfServer = new Map();
let clientRows = [];
// Many lanes are drawn smaller.
const LANE = run.lanes.length > 12 ? 18 : 26;
const SERVER = run.servers.length > 12 ? 38 : 46;
// And those that matter come first.
const lanesInOrder = run.lanes.map((lane, number) => ({ lane, number }));
if (run.lanes.length > 8) {
  const matters = ({ lane }) => Number(lane.list.some((one) => one.wrong)) * 2 + Number(lane.list.some((one) => one.witness));
  lanesInOrder.sort((one, other) => matters(other) - matters(one) || one.number - other.number);
}

/** Lays the rows out anew; a chosen key has a row for its value. */
function layOut() {
  rows = [];
  rowOfServer.clear();
  let y = 0;
  const add = (kind, height, more) => {
    const row = { kind, y, height, ...more };
    rows.push(row);
    y += height;
    return row;
  };
  if (run.steps.length || run.weather.length) {
    add("section", 28, { title: "Test and network" });
    if (run.steps.length) add("steps", 22, { label: "step", list: run.steps });
    if (run.weather.length) add("weather", 20, { label: "network", list: run.weather });
  }
  if (run.lanes.length) {
    add("section", 32, { title: "Clients", keys: ["get", "put", "append", "delete", "cas"], note: "a bar is one operation, from question to answer" });
    if (chosen.key >= 0 && values(chosen.key).length) add("value", 24, { label: "value of " + run.keys[chosen.key], list: values(chosen.key) });
    clientRows = [];
    for (const { lane, number } of lanesInOrder) clientRows[number] = add("client", LANE, { label: lane.label, lane });
  }
  if (groups.length) {
    add("section", 32, { title: "Servers", keys: ["follower", "candidate", "leader", "old", "down"], note: "click for messages" });
    for (const group of groups) {
      if (groups.length > 1 || group.servers.length > 1) add("group", 20, { label: "group " + group.name, group });
      for (const server of group.servers) {
        const row = add("server", SERVER, { label: server.name, server, group });
        rowOfServer.set(server.name, row);
      }
    }
  }
  if (run.shards.length) {
    add("section", 32, { title: "Shards", note: "colour: the group that serves it" });
    run.shards.forEach((shard) => add("shard", 19, { label: "shard " + shard.shard, shard }));
  }
  add("end", 8, {});
  view.height = y;
  labelRows();
}

const KEY_WORDS = { old: "leader that is replaced but does not know", down: "down" };

function labelRows() {
  const labels = rows.filter((row) => row.label || row.title).map((row) => {
    const place = "top:" + row.y + "px;height:" + row.height + "px;";
    if (row.kind === "section") {
      const keys = (row.keys || []).flatMap((name) => [swatch(name), make("small", {}, KEY_WORDS[name] || name)]);
      const note = row.note ? [make("small", {}, "· " + row.note)] : [];
      return make("div", { class: "section", style: place + "width:" + (LABELS + view.width) + "px" }, row.title, ...keys, ...note);
    }
    const parts = [row.label];
    if (row.kind === "group" && owners.includes(row.group.name)) parts.unshift(make("span", { class: "chip", style: "background:var(" + ownerColour(row.group.name) + ")" }));
    return make("div", { class: row.kind, style: place, title: row.label }, ...parts);
  });
  $("labels").replaceChildren(...labels);
  $("labels").style.height = view.height + "px";
}

function swatch(name) {
  const colour = "background:var(--" + name + ")";
  return make("span", { class: "chip", style: colour });
}

function rowAt(y) {
  return rows.find((row) => y >= row.y && y < row.y + row.height) || null;
}

/** Shows a stretch of time, within the run. */
function look(from, to) {
  const least = 20;
  const wide = clamp(to - from, least, length);
  view.from = clamp(from + (to - from - wide) / 2, run.begin, run.end - wide);
  view.to = view.from + wide;
  repaint();
}

function zoom(factor, around) {
  const middle = around === undefined ? (view.from + view.to) / 2 : around;
  look(middle - (middle - view.from) * factor, middle + (view.to - middle) * factor);
}

function pan(part) {
  const wide = view.to - view.from;
  const from = clamp(view.from + part * wide, run.begin, run.end - wide);
  look(from, from + wide);
}

/** Brings a time into the view, and not at its edge. */
function bring(from, to) {
  const wide = view.to - view.from;
  if (to - from > wide * .7) { look(from - (to - from) * .3, to + (to - from) * .3); return; }
  if (from < view.from + wide * .1 || to > view.to - wide * .1) {
    const middle = (from + to) / 2;
    look(middle - wide / 2, middle + wide / 2);
  } else repaint();
}
