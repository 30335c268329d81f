// Curves on a canvas, sharp on any screen, in the colours of the page.

// A canvas as large as its place on the page: {g, width, height}, in CSS pixels. Null where it is not seen.
export function prepare(canvas) {
  const { clientWidth: width, clientHeight: height } = canvas, ratio = window.devicePixelRatio || 1;
  if (!width || !height) return null;
  const [w, h] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== w || canvas.height !== h) Object.assign(canvas, { width: w, height: h });
  const g = canvas.getContext("2d");
  g.setTransform(ratio, 0, 0, ratio, 0, 0);
  g.clearRect(0, 0, width, height);
  g.font = `11px ${getComputedStyle(canvas).fontFamily}`;
  return { g, width, height };
}

export function colours(element) {
  const style = getComputedStyle(element);
  return Object.fromEntries(["ink", "soft", "grid", "one", "two", "three", "accent"].map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
}

const tick = (value) => (value >= 1000 || (value && value < 0.01)
  ? value.toExponential(0).replace("e+", "e").replace("-", "−") : String(Number(value.toPrecision(2))));

// spec: lines [{name, x, y, colour, dash, width}], low, high, log, xHigh, xLabel, levels [{at, name, colour, dash}], percent
export function drawChart(canvas, spec) {
  const place = prepare(canvas);
  if (!place) return;
  const { g, width, height } = place, c = colours(canvas), box = { left: 34, right: width - 8, top: 8, bottom: height - 18 };
  const f = spec.log ? (v) => Math.log10(Math.max(v, spec.low)) : (v) => v;
  const y = (v) => box.bottom - (box.bottom - box.top) * (f(v) - f(spec.low)) / (f(spec.high) - f(spec.low));
  const x = (v) => box.left + (box.right - box.left) * (v - spec.xLow) / Math.max(spec.xHigh - spec.xLow, 1e-9);
  g.lineWidth = 1;
  g.fillStyle = c.soft;
  g.textAlign = "right";
  g.textBaseline = "middle";
  for (const value of spec.log ? powers(spec.low, spec.high) : rounds(spec.low, spec.high, height < 90 ? 2 : 4)) {
    g.strokeStyle = c.grid;
    g.beginPath();
    g.moveTo(box.left, y(value));
    g.lineTo(box.right, y(value));
    g.stroke();
    g.fillText(spec.percent ? `${Math.round(value)} %` : tick(value), box.left - 5, y(value));
  }
  g.textBaseline = "alphabetic";
  g.textAlign = "left";
  g.fillText(String(spec.xLow), box.left, height - 5);
  g.textAlign = "right";
  g.fillText(`${spec.xLabel} ${spec.xHigh.toLocaleString("en")}`, box.right, height - 5);
  const names = [];
  const label = (text, at, colour, from = box.right) => names.push({ text, at, colour, from });
  for (const level of spec.levels || []) {
    if (!(level.at >= spec.low && level.at <= spec.high)) continue;
    stroke(g, [[box.left, y(level.at)], [box.right, y(level.at)]], { ...level, colour: c[level.colour] });
    label(level.name, y(level.at) - 5, c[level.colour]);
  }
  for (const line of spec.lines) {
    if (!line.y.length) continue;
    stroke(g, Array.from(line.y, (v, i) => [x(line.x[i]), y(Math.max(v, spec.low))]), { ...line, colour: c[line.colour] });
    if (line.name) label(line.name, y(Math.max(line.y[line.y.length - 1], spec.low)) - 5, c[line.colour]);
  }
  names.sort((a, b) => a.at - b.at); // names stand above the end of their line, and never on one another
  names.forEach((name, i) => { name.at = Math.max(name.at, box.top + 8, i ? names[i - 1].at + 12 : 0); });
  for (let i = names.length - 1, most = box.bottom - 3; i >= 0; i -= 1, most = names[i + 1].at - 12) names[i].at = Math.min(names[i].at, most);
  g.lineWidth = 3;
  g.lineJoin = "round";
  g.strokeStyle = getComputedStyle(canvas).getPropertyValue("--panel").trim();
  for (const { text, at, colour, from } of names) {
    g.fillStyle = colour;
    g.strokeText(text, from, at);
    g.fillText(text, from, at);
  }
}

function stroke(g, points, { colour, dash = [], width = 2 }) {
  g.strokeStyle = colour;
  g.lineWidth = width;
  g.setLineDash(dash);
  g.beginPath();
  for (const [x, y] of points) g.lineTo(x, y);
  g.stroke();
  g.setLineDash([]);
}

function powers(low, high) {
  const out = [];
  for (let k = Math.ceil(Math.log10(low) - 1e-9); k <= Math.log10(high) + 1e-9; k += 1) out.push(10 ** k);
  const each = Math.ceil(out.length / 5);
  return out.filter((_, i) => i % each === 0);
}

function rounds(low, high, count) {
  const rough = (high - low) / count, unit = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((k) => k * unit).find((s) => s >= rough * 0.99), out = [];
  for (let v = Math.ceil(low / step) * step; v <= high + 1e-9; v += step) out.push(v);
  return out;
}
