// The lambda explorer and the live panel of explorer.py, drawn in the browser.
// The same functions serve a script that stands in a page after a picture, and the two widgets. C is painted by
// playground/heatmap.js, which stands before this file.
"use strict";

const CHUNK = "beLx"; // of the PNG: what the explorer shows
const SMALL = { width: 240, height: 176, left: 42, right: 232, top: 36, bottom: 140 };
const LARGE = { width: 330, height: 310, left: 46, right: 322, top: 36, bottom: 270 };

// ---- elements -------------------------------------------------------------------------------------

function add(parent, tag, attributes = {}, text = "") {
  const svg = tag === "svg" || parent.namespaceURI === "http://www.w3.org/2000/svg";
  const node = svg
    ? document.createElementNS("http://www.w3.org/2000/svg", tag)
    : document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text) node.textContent = text;
  return parent.appendChild(node);
}

// JupyterLab says whether its theme is light; anywhere else the reader's system does.
function followTheme(root) {
  const system = matchMedia("(prefers-color-scheme: dark)");
  const paint = () => {
    const lab = document.body.dataset.jpThemeLight;
    root.dataset.dark = lab ? lab === "false" : system.matches;
  };
  system.addEventListener("change", paint);
  new MutationObserver(paint).observe(document.body, { attributeFilter: ["data-jp-theme-light"] });
  paint();
}

const minus = (text) => text.replace(/-/g, "−");
const fixed = (value, digits) => minus((Math.round(value * 10 ** digits) / 10 ** digits + 0).toFixed(digits));
const short = (value) => minus(value === 0 ? "0" : value < 1e-4 || value >= 1e5
  ? value.toExponential(1).replace("e+", "e") : String(Number(value.toPrecision(3))));

// λ in three digits and no exponent, to be read and spoken: 0.0000133
const plain = (lambda) => {
  const digits = Math.min(Math.max(2 - Math.floor(Math.log10(lambda)), 0), 12);
  return Number(lambda.toPrecision(3)).toFixed(digits).replace(/(\.\d*?)0+$/, "$1").replace(/\.$/, "");
};

// ---- C as a picture ---------------------------------------------------------------------------------

function addMatrix(parent, table) {
  const box = add(parent, "div", { class: "be-lx-matrix" });
  const canvas = add(box, "canvas", { class: "be-lx-c", role: "img", width: 1, height: 1 });
  const legend = add(box, "div", { class: "be-lx-legend", "aria-hidden": "true" });
  add(legend, "span", {}, "1");
  add(legend, "i", { style: `background: ${gradient(table)}` });
  add(legend, "span", {}, "−1");
  return canvas;
}

// ---- charts -------------------------------------------------------------------------------------------

// An axis {low, high, log} to pixels from ... to.
function scale(axis, from, to) {
  const f = axis.log ? (v) => Math.log10(Math.max(v, axis.low)) : (v) => v;
  return (v) => from + ((to - from) * (f(v) - f(axis.low))) / (f(axis.high) - f(axis.low));
}

function powers(low, high) {
  const ticks = [];
  for (let k = Math.ceil(Math.log10(low) - 1e-9); k <= Math.log10(high) + 1e-9; k += 1) ticks.push(k);
  const every = Math.ceil(ticks.length / 6);
  return ticks.filter((k) => k % every === 0).map((k) => 10 ** k);
}

function steps(high) {
  const unit = 10 ** Math.floor(Math.log10(high));
  const step = [0.2, 0.5, 1, 2].map((k) => k * unit).find((s) => high / s <= 5);
  return Array.from({ length: Math.floor(high / step + 1e-9) + 1 }, (_, i) => i * step);
}

const tickText = (value, axis) => (axis.log && (value < 0.001 || value > 1000)
  ? "10" + String(Math.round(Math.log10(value))).replace(/[-\d]/g, (c) => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"[c === "-" ? 0 : +c + 1])
  : String(Number(value.toPrecision(3))));

// spec: {title, x, y: {low, high, log, label}, lines: [{name, x, y}], target: {name, level}}. Names stand with
// a sample of their line under the title; the first line is solid, the second dashed.
function drawChart(svg, spec) {
  svg.textContent = "";
  const { left, right, top, bottom } = svg.beBox;
  const x = scale(spec.x, left, right), y = scale(spec.y, bottom, top);
  add(svg, "text", { x: left, y: 12, class: "be-lx-head" }, spec.title);
  let at = left;
  for (const [i, line] of spec.lines.entries()) {
    if (!line.name) continue;
    add(svg, "line", { x1: at, x2: at + 18, y1: 25, y2: 25, class: `be-lx-line be-lx-line${i}` });
    add(svg, "text", { x: at + 22, y: 28.5 }, line.name);
    at += 32 + 6.2 * line.name.length;
  }
  for (const tick of spec.y.log ? powers(spec.y.low, spec.y.high) : steps(spec.y.high)) {
    add(svg, "line", { x1: left, x2: right, y1: y(tick), y2: y(tick), class: "be-lx-grid" });
    add(svg, "text", { x: left - 4, y: y(tick) + 3.5, class: "be-lx-left" }, tickText(tick, spec.y));
  }
  const ticks = spec.x.log ? powers(spec.x.low, spec.x.high) : [spec.x.low, ...steps(spec.x.high).slice(1)];
  for (const tick of spec.x.ticks || ticks) {
    add(svg, "line", { x1: x(tick), x2: x(tick), y1: bottom, y2: bottom + 4, class: "be-lx-axis" });
    add(svg, "text", { x: x(tick), y: bottom + 15, class: "be-lx-middle" }, tickText(tick, spec.x));
  }
  add(svg, "path", { d: `M${left} ${top}V${bottom}H${right}`, class: "be-lx-axis" });
  add(svg, "text", { x: (left + right) / 2, y: bottom + 30, class: "be-lx-middle" }, spec.x.label);
  if (spec.target && spec.target.level >= spec.y.low) {
    const level = y(spec.target.level);
    add(svg, "line", { x1: left, x2: right, y1: level, y2: level, class: "be-lx-target" });
    add(svg, "text", { x: right, y: level - 4, class: "be-lx-right be-lx-halo" }, spec.target.name);
  }
  const paths = spec.lines.map((line, i) => add(svg, "polyline", {
    class: `be-lx-line be-lx-line${i}`,
    points: points(line.x, line.y, x, y),
  }));
  return { x, y, paths, spec };
}

// What lies below a logarithmic axis is drawn on it.
function points(xs, ys, x, y) {
  return Array.from(ys, (value, i) => x(xs[i]).toFixed(1) + "," + y(value).toFixed(1)).join(" ");
}

function addChart(parent, label, box = SMALL) {
  const size = `0 0 ${box.width} ${box.height}`;
  const svg = add(parent, "svg", { class: "be-lx-chart", viewBox: size, role: "img", "aria-label": label });
  svg.beBox = box;
  return svg;
}

// A vertical line with a dot on every curve and the values beside them. Returns move(index).
function addMarker(svg, chart, texts) {
  const { top, bottom, left, right } = svg.beBox;
  const group = add(svg, "g", { class: "be-lx-marker" });
  const rule = add(group, "line", { y1: top, y2: bottom });
  const dots = chart.spec.lines.map((_, i) => add(group, i ? "rect" : "circle",
    i ? { width: 8, height: 8 } : { r: 4.5 }));
  const labels = dots.map(() => add(group, "text", { class: "be-lx-halo" }));
  return (index) => {
    const lambda = chart.spec.lines[0].x[index], x = chart.x(lambda);
    rule.setAttribute("x1", x);
    rule.setAttribute("x2", x);
    const near = x > (left + right) / 2; // write to the left of the line on the right half
    let heights = chart.spec.lines.map((line) => chart.y(line.y[index]));
    dots.forEach((dot, i) => {
      dot.setAttribute(i ? "x" : "cx", i ? x - 4 : x);
      dot.setAttribute(i ? "y" : "cy", i ? heights[i] - 4 : heights[i]);
    });
    if (heights.length === 2 && Math.abs(heights[0] - heights[1]) < 14) {
      const middle = (heights[0] + heights[1]) / 2, first = heights[0] <= heights[1] ? -7 : 7;
      heights = [middle + first, middle - first];
    }
    labels.forEach((label, i) => {
      label.textContent = texts(chart.spec.lines[i].y[index]);
      label.setAttribute("class", near ? "be-lx-halo be-lx-right" : "be-lx-halo");
      label.setAttribute("x", near ? x - 8 : x + 8);
      label.setAttribute("y", Math.min(Math.max(heights[i] + 4, top + 8), bottom - 3));
    });
  };
}

// ---- the explorer -------------------------------------------------------------------------------------

// Unpack the bytes that explorer.pack() made: {header fields..., frame(index)}.
async function unpack(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  const raw = await new Response(stream).arrayBuffer();
  const length = new DataView(raw).getUint32(0, true);
  const data = JSON.parse(new TextDecoder().decode(new Uint8Array(raw, 4, length)));
  const frames = new Uint8Array(raw, 4 + length);
  const area = data.dims * data.dims;
  data.frame = (index) => frames.subarray(index * area, (index + 1) * area);
  return data;
}

function curves(data) {
  const lambda = { low: data.lambdas[0], high: data.lambdas[data.lambdas.length - 1], log: true, label: "λ" };
  const curve = (name, y) => ({ name, x: data.lambdas, y });
  const terms = [...data.invariance, ...data.weighted].filter((v) => v > 0);
  return [
    {
      title: "kNN accuracy, %", x: lambda, text: (v) => fixed(v, 1) + " %",
      lines: [curve("embeddings z", data.knn_z), curve("features h", data.knn_h)],
      y: { low: 0, high: Math.max(10, 1.15 * Math.max(...data.knn_z, ...data.knn_h, data.pixels)) },
      target: { name: `pixels ${fixed(data.pixels, 1)} %`, level: data.pixels },
    },
    {
      title: "effective rank", x: lambda, text: (v) => fixed(v, 0),
      lines: [curve("embeddings z", data.rank_z), curve("features h", data.rank_h)],
      y: { low: 0, high: 1.1 * Math.max(...data.rank_z, ...data.rank_h) },
    },
    {
      title: "the loss in two parts", x: lambda, text: short,
      lines: [curve("invariance", data.invariance), curve("λ · redundancy", data.weighted)],
      y: { low: Math.min(...terms) / 1.5, high: Math.max(...terms) * 2, log: true },
    },
  ];
}

function describe(data, i) {
  return `λ = ${plain(data.lambdas[i])}: kNN of the embeddings z ${fixed(data.knn_z[i], 1)} %, of the features h `
    + `${fixed(data.knn_h[i], 1)} %; effective rank ${fixed(data.rank_z[i], 0)} of ${data.dim} (z) and `
    + `${fixed(data.rank_h[i], 0)} of ${data.features} (h); mean diagonal ${fixed(data.diagonal[i], 2)}, off-diagonal RMS `
    + `${fixed(data.rms[i], 3)}.`;
}

// A test image and its nearest neighbours among others, by the features of the network that was trained with the λ
// nearest to the slider's: a few were trained again for it. Returns show(lambda).
function addNeighbours(root, near) {
  const row = add(root, "div", { class: "be-lx-near" });
  const label = add(row, "label", {}, "Nearest to ");
  const select = add(label, "select", { "aria-label": "test image" });
  near.queries.forEach((query, k) => add(select, "option", { value: k }, near.names[query]));
  const tiles = Array.from({ length: near.nearest[0][0].length + 1 }, (_, k) =>
    add(row, "span", { class: k ? "be-lx-tile" : "be-lx-tile be-lx-query", role: "img" }));
  const said = add(row, "span", { class: "be-lx-said" });
  for (const tile of tiles) {
    tile.style.backgroundImage = `url(${near.sprite})`;
    tile.style.backgroundSize = `${100 * near.columns}% ${100 * near.rows}%`;
  }
  let now = near.lambdas[0], shown = "";
  const paint = (tile, place, name) => {
    const x = place % near.columns, y = Math.floor(place / near.columns);
    tile.style.backgroundPosition = `${100 * x / Math.max(1, near.columns - 1)}% ${100 * y / Math.max(1, near.rows - 1)}%`;
    tile.dataset.place = place;
    tile.title = near.names[place];
    tile.setAttribute("aria-label", near.names[place]);
    tile.classList.toggle("be-lx-wrong", near.names[place] !== name);
  };
  const show = (lambda) => {
    now = lambda;
    const far = near.lambdas.map((value) => Math.abs(Math.log(value / lambda)));
    const i = far.indexOf(Math.min(...far)), k = Number(select.value), name = near.names[near.queries[k]];
    if (shown === `${i}, ${k}`) return; // most steps of the slider change nothing here
    shown = `${i}, ${k}`;
    paint(tiles[0], near.queries[k], name);
    near.nearest[i][k].forEach((place, j) => paint(tiles[j + 1], place, name));
    const right = near.nearest[i][k].filter((place) => near.names[place] === name).length;
    said.textContent = `${right} of ${near.nearest[i][k].length} of its kind at λ = ${plain(near.lambdas[i])}`;
  };
  select.addEventListener("change", () => show(now));
  return show;
}

// Build the explorer in `root`. Returns {root, index, show(index)}; "change" events of root tell of the reader.
function explore(root, spec, data) {
  root.textContent = "";
  root.setAttribute("role", "group");
  root.setAttribute("aria-label", spec.title);
  root.classList.add("be-lx-all");
  followTheme(root);
  const part = data.dims < data.dim ? `first ${data.dims} of ${data.dim} dimensions` : `all ${data.dim} dimensions`;
  const last = data.lambdas.length - 1, table = colourTable(spec.colours);
  add(root, "div", { class: "be-lx-title" }, spec.title);
  add(root, "div", { class: "be-lx-note" }, spec.note);
  const panels = add(root, "div", { class: "be-lx-panels" });
  const canvas = addMatrix(panels, table);
  const spectrum = addChart(panels, "Singular values of C", LARGE);
  const label = add(root, "label", { class: "be-lx-bar" });
  add(label, "span", {}, "λ");
  const slider = add(label, "input",
    { type: "range", min: 0, max: last, step: 1, value: 0, "aria-label": "lambda", class: "be-lx-slider" });
  const value = add(label, "output", { class: "be-lx-value", "aria-hidden": "true" });
  const readout = add(root, "div", { class: "be-lx-readout", "aria-live": "polite" });
  const near = data.near && addNeighbours(root, data.near);
  const row = add(root, "div", { class: "be-lx-charts" });
  const ranks = data.spectrum[0].map((_, i) => i + 1);
  const top = Math.max(...data.spectrum.map((values) => values[0]));
  const values = drawChart(spectrum, {
    title: "singular values of C",
    x: { low: 1, high: data.dim, label: "rank (0.01 and less lie on the axis)" },
    y: { low: 0.01, high: 1.5 * Math.max(2, top), log: true },
    lines: [{ name: "", x: ranks, y: data.spectrum[0] }],
    target: { name: "target: all 1", level: 1 },
  });
  const markers = curves(data).map((one) => {
    const svg = addChart(row, `${one.title} against lambda`);
    svg.classList.add("be-lx-drag");
    const chart = drawChart(svg, one);
    dragOn(svg, chart);
    return addMarker(svg, chart, one.text);
  });
  const self = { root, index: 0, show };

  function show(index) {
    const i = self.index = Math.min(Math.max(Math.round(index), 0), last);
    const text = describe(data, i);
    paintMatrix(canvas, data.frame(i), data.dims, table);
    values.paths[0].setAttribute("points",
      points(ranks, data.spectrum[i], values.x, values.y));
    for (const move of markers) move(i);
    if (near) near(data.lambdas[i]);
    slider.value = i;
    slider.setAttribute("aria-valuetext", "λ = " + plain(data.lambdas[i]));
    value.textContent = plain(data.lambdas[i]);
    readout.textContent = text;
    canvas.setAttribute("aria-label", `C, ${part}, at ${text}`);
    spectrum.setAttribute("aria-label", `Singular values of C, from ${short(data.spectrum[i][0])} down to `
      + `${short(data.spectrum[i][data.dim - 1])}; the target is 1 for all.`);
  }
  function moved() {
    root.dispatchEvent(new CustomEvent("be-change"));
  }
  function dragOn(svg, chart) {
    const to = (event) => {
      const frame = svg.getBoundingClientRect();
      const x = ((event.clientX - frame.left) / frame.width) * svg.beBox.width;
      const far = data.lambdas.map((lambda) => Math.abs(chart.x(lambda) - x));
      show(far.indexOf(Math.min(...far)));
    };
    svg.addEventListener("pointerdown", (event) => { svg.setPointerCapture(event.pointerId); to(event); });
    svg.addEventListener("pointermove", (event) => { if (event.buttons) to(event); });
    svg.addEventListener("pointerup", moved);
  }
  slider.addEventListener("input", () => show(Number(slider.value)));
  slider.addEventListener("change", moved);
  // JupyterLab takes arrow keys for its own commands otherwise.
  root.addEventListener("keydown", (event) => event.stopPropagation());
  root.dataset.mounted = "yes";
  root.beExplorer = self;
  show(spec.start);
  return self;
}

// ---- beside a picture ------------------------------------------------------------------------------------

async function bytesOf(src) {
  if (src.startsWith("data:")) {
    return Uint8Array.from(atob(src.split(",")[1]), (char) => char.charCodeAt(0));
  }
  return new Uint8Array(await (await fetch(src)).arrayBuffer());
}

function findChunk(bytes, name) {
  const view = new DataView(bytes.buffer);
  for (let at = 8; at + 12 <= bytes.length; at += 12 + view.getUint32(at)) {
    if (String.fromCharCode(...bytes.subarray(at + 4, at + 8)) === name) {
      return bytes.subarray(at + 8, at + 8 + view.getUint32(at));
    }
  }
  return null;
}

const outputArea = (node) => node.closest(".jp-OutputArea, .cell_output, .output, .be-page") || document.body;

// Turn the picture before `root` into the explorer. Outputs are drawn one after another, so wait for it.
async function startBesidePicture(root, tries = 100) {
  const before = (img) => root.compareDocumentPosition(img) & Node.DOCUMENT_POSITION_PRECEDING;
  const picture = [...outputArea(root).querySelectorAll("img")].filter(before).pop();
  if (!picture) {
    if (tries > 0) setTimeout(startBesidePicture, 100, root, tries - 1);
    return;
  }
  const spec = JSON.parse(root.dataset.explorer);
  picture.alt = spec.alt;
  try {
    const data = await unpack(findChunk(await bytesOf(picture.src), CHUNK));
    explore(root, spec, data);
    (picture.closest(".jp-OutputArea-child") || picture).style.display = "none";
  } catch (error) { // an old browser, or a picture from another origin: the picture stays
    root.hidden = true;
  }
}

// ---- widgets --------------------------------------------------------------------------------------------

const wait = (milliseconds) => new Promise((done) => { setTimeout(done, milliseconds); });

// The explorer that a script made in the same output is taken over; else one is made here.
async function renderExplorer({ model, el }) {
  let found = null;
  for (let tries = 0; tries < 30 && !found; tries += 1) {
    await wait(100);
    const area = el.closest(".jp-OutputArea");
    found = area && area.querySelector(".be-lx[data-mounted]");
    if (area && !area.querySelector(".be-lx")) break;
  }
  if (!found) {
    found = add(el, "div", { class: "be-lx" });
    const view = model.get("data");
    explore(found, model.get("spec"), await unpack(new Uint8Array(view.buffer, view.byteOffset, view.byteLength)));
  }
  const explorer = found.beExplorer;
  explorer.show(model.get("index"));
  model.on("change:index", () => explorer.show(model.get("index")));
  found.addEventListener("be-change", () => {
    model.set("index", explorer.index);
    model.save_changes();
  });
}

// A frame of the live panel: C, and the loss with its floor over the last steps. Every frame is acknowledged.
function renderLive({ model, el }) {
  const root = add(el, "div", { class: "be-lx be-lx-live", role: "group", "aria-label": "Live training" });
  followTheme(root);
  const panels = add(root, "div", { class: "be-lx-panels" });
  const table = colourTable(model.get("colours"));
  const canvas = addMatrix(panels, table);
  const chart = addChart(panels, "Loss against its floor", LARGE);
  const readout = add(root, "div", { class: "be-lx-readout" });

  function draw() {
    const frame = model.get("frame"), history = model.get("history"), text = model.get("text");
    const bytes = new Uint8Array(frame.buffer, frame.byteOffset, frame.byteLength);
    if (!bytes.length) return;
    paintMatrix(canvas, bytes, Math.round(Math.sqrt(bytes.length)), table);
    const numbers = history.map((point) => point.slice(1)).flat().filter((v) => v > 0);
    drawChart(chart, {
      title: "loss and its floor",
      x: { low: history[0][0], high: Math.max(history[history.length - 1][0], history[0][0] + 10), label: "step",
        ticks: [history[0][0], history[history.length - 1][0]] },
      y: { low: Math.min(0.1, ...numbers) / 1.3, high: 2 * Math.max(1, ...numbers), log: true },
      lines: ["loss", "floor"].map((name, k) => ({
        name, x: history.map((point) => point[0]), y: history.map((point) => point[k + 1]),
      })),
    });
    readout.textContent = text;
    readout.setAttribute("aria-live", model.get("playing") ? "off" : "polite");
    canvas.setAttribute("aria-label", "C of the current batch. " + text);
    chart.setAttribute("aria-label", "Loss against its floor. " + text);
    root.dataset.frames = Number(root.dataset.frames || 0) + 1;
    model.set("seen", model.get("sent"));
    model.save_changes();
  }
  model.on("change:sent", draw);
  draw();
}
