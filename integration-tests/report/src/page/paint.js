// Colours, patterns and text on a canvas.

const FONT = "11px system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif";
let colours = {};
let patterns = {};

/** A colour of the style sheet by its name. */
function colour(name) {
  if (!(name in colours)) colours[name] = getComputedStyle(document.documentElement).getPropertyValue(name).trim() || "#888";
  return colours[name];
}

/** Slanted lines. */
function hatch(context, name, gap = 6, width = 1.5) {
  const id = name + gap + "/" + width;
  if (!patterns[id]) {
    const tile = document.createElement("canvas");
    tile.width = tile.height = gap * 2;
    const pen = tile.getContext("2d");
    pen.strokeStyle = colour(name);
    pen.lineWidth = width * 2;
    for (const shift of [-gap * 2, 0, gap * 2]) {
      pen.beginPath();
      pen.moveTo(shift - 2, gap * 2 + 2);
      pen.lineTo(shift + gap * 2 + 2, -2);
      pen.stroke();
    }
    patterns[id] = context.createPattern(tile, "repeat");
    patterns[id].setTransform(new DOMMatrix().scale(.5));
  }
  return patterns[id];
}

/** A canvas made sharp, its pen in CSS pixels, wiped. */
function prepare(canvas, width, height) {
  const sharp = Math.min(window.devicePixelRatio || 1, 2);
  const [w, h] = [Math.round(width * sharp), Math.round(height * sharp)];
  if (canvas.width !== w || canvas.height !== h) { canvas.width = w; canvas.height = h; }
  canvas.style.height = height + "px";
  const pen = canvas.getContext("2d");
  pen.setTransform(sharp, 0, 0, sharp, 0, 0);
  pen.clearRect(0, 0, width, height);
  pen.font = FONT;
  pen.textBaseline = "middle";
  return pen;
}

/** Text that fits between two edges, or its beginning, or nothing. */
function write(pen, text, left, right, y, name = "--ink", least = 8) {
  const room = right - left;
  if (room < least) return;
  let shownText = text;
  if (pen.measureText(text).width > room) {
    const letters = Math.floor(room / 6.2);
    if (letters < 2) return;
    shownText = text.slice(0, letters - 1) + "…";
    if (pen.measureText(shownText).width > room) return;
  }
  pen.fillStyle = colour(name);
  pen.fillText(shownText, left, y);
}

/** The part of a stretch that is in the view, in pixels; at least `least` wide. */
function visible(from, to, least = 1) {
  if (to < view.from || from > view.to) return null;
  const left = Math.max(-2, x(from));
  const right = Math.min(view.width + 2, x(to));
  return [left, Math.max(right, left + least)];
}

/** Calls `paint` for what is in the view of a list of stretches that follow each other. */
function eachVisible(list, paint) {
  for (let place = Math.max(0, lower(list, view.from, (one) => one.from) - 1); place < list.length; place++) {
    const one = list[place];
    if (one.from > view.to) break;
    const ends = visible(one.from, one.to);
    if (ends) paint(one, ends[0], ends[1]);
  }
}

function rounded(pen, left, top, width, height, radius) {
  const r = Math.min(radius, width / 2, height / 2);
  pen.beginPath();
  pen.roundRect(left, top, width, height, r);
}

/** Round distances between lines of the time axis. */
function tickStep(least) {
  const raw = (view.to - view.from) / view.width * least;
  const power = Math.pow(10, Math.floor(Math.log10(Math.max(raw, 1))));
  return [1, 2, 5, 10].map((one) => one * power).find((step) => step >= raw) || power * 10;
}

function ticks(paint) {
  const step = tickStep(95);
  const digits = clamp(6 - Math.floor(Math.log10(step)), 0, 6);
  for (let time = Math.ceil(view.from / step) * step; time <= view.to; time += step) paint(time, seconds(time, digits));
}
