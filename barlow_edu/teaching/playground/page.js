// The page: dials, pictures and curves. It computes nothing itself; a worker trains and tells.

import { colours, drawChart, prepare } from "./charts.js";
import { colourTable, gradient, paintMatrix, toBytes } from "./heatmap.js";
import { DEFAULTS, DIALS, nearestValue, readAddress, writeAddress } from "./settings.js";
import { STORIES } from "./stories.js";

const SPEEDS = [1, 3, 10, Infinity];
const GROUPS = {
  Loss: ["method", "pull", "push", "dim"],
  Views: ["crop", "flip", "colour", "grey"],
  Network: ["encoder", "depth", "width", "norm"],
  Training: ["batch", "rate", "seed"],
};
const NEAR = 6; // neighbours that are shown
const HISTORY = 600; // points of a curve; beyond, every second one is forgotten

export function start(root, { words, colours: hex, images, script }) {
  const address = readAddress(location.hash), lang = words[address.other.lang] ? address.other.lang : "en";
  const w = { ...words.en, ...words[lang] };
  const say = (key, values = {}) => (w[key] ?? key).replace(/\{(\w+)\}/g, (_, name) => values[name]);
  const find = (id) => root.querySelector(`#${id}`);
  const table = colourTable(hex), still = matchMedia("(prefers-reduced-motion: reduce)");
  const state = { settings: address.settings, other: address.other, playing: false, frame: null, judged: null, untrained: null,
    ready: null, query: 0, curves: null, story: null, shown: 0, dirty: true };
  document.documentElement.lang = lang;
  document.title = w.title;

  // ---- words and dials ----------------------------------------------------------------------------------------

  for (const node of root.querySelectorAll("[data-word]")) node.textContent = w[node.dataset.word];
  for (const node of root.querySelectorAll("[data-label]")) node.setAttribute("aria-label", w[node.dataset.label] ?? "");
  for (const node of root.querySelectorAll("[data-tip]")) {
    node.title = w[node.dataset.tip];
    if (!node.textContent) node.setAttribute("aria-label", node.title);
  }

  function add(parent, tag, attributes = {}, text = "") {
    const node = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    if (text) node.textContent = text;
    return parent.appendChild(node);
  }

  const number = (value, digits) => (Number.isFinite(value) ? value.toFixed(digits) : "—").replace("-", "−");
  const short = (value) => (value === undefined || !Number.isFinite(value) ? "—" : value >= 1000 || (value && Math.abs(value) < 0.001)
    ? value.toExponential(1).replace("e+", "e") : String(Number(value.toPrecision(3)))).replace("-", "−");
  const percent = (value) => number(100 * value, 1);
  const texts = {
    crop: (v) => (v === 1 ? w.crop_off : `${Math.round(100 * v)} %`),
    colour: (v) => (v ? `${Math.round(100 * v)} %` : w.off),
    grey: (v) => (v ? `${Math.round(100 * v)} %` : w.off),
    lambda: (v) => (v ? Number(v.toPrecision(2)).toString() : "0"),
  };
  const dials = {};

  function addDial(parent, key) {
    const values = DIALS[key], id = `dial-${key}`, kind = typeof values[0];
    const row = add(parent, "div", { class: `dial ${kind}` });
    add(row, "label", { for: id }, w[`dial_${key}`]);
    let control = null, show = null;
    if (kind === "number") {
      const output = add(row, "output", { for: id, "aria-hidden": "true" });
      control = add(row, "input", { type: "range", id, min: 0, max: values.length - 1, step: 1 });
      const text = texts[key] || String;
      show = (value) => {
        control.value = values.indexOf(nearestValue(values, value));
        control.setAttribute("aria-valuetext", text(value));
        control.style.setProperty("--filled", `${100 * control.value / (values.length - 1)}%`);
        output.textContent = text(value);
      };
      control.addEventListener("input", () => change({ [key]: values[control.value] }));
    } else if (kind === "boolean") {
      control = add(row, "input", { type: "checkbox", id, role: "switch" });
      show = (value) => { control.checked = value; };
      control.addEventListener("change", () => change({ [key]: control.checked }));
    } else {
      control = add(row, "select", { id });
      for (const value of values) add(control, "option", { value }, w[`${key}_${value}`]);
      show = (value) => { control.value = value; };
      control.addEventListener("change", () => change({ [key]: control.value }));
    }
    dials[key] = { show, row, control };
  }

  addDial(find("lambda"), "lambda");
  for (const [group, keys] of Object.entries(GROUPS)) {
    const box = add(find("dials"), "fieldset");
    add(box, "legend", {}, w[`group${group}`]);
    for (const key of keys) addDial(box, key);
  }
  for (const speed of SPEEDS) {
    add(find("speed"), "option", { value: speed }, speed === Infinity ? w.speedFull : say("speedEach", { n: speed }));
  }
  find("speed").value = "Infinity";
  root.querySelector(".scale i").style.background = gradient(table);
  const readout = Object.fromEntries(["distance", "diagonal", "rank", "loss", "floor", "invariance", "redundancy"].map((key) => {
    const pair = add(find("readout"), "div", { class: `r-${key}` });
    return [key, { name: add(pair, "dt", {}, w[key]), value: add(pair, "dd", {}, "—") }];
  }));
  readout.distance.name.parentNode.title = w.distanceTip;
  const scores = Object.fromEntries(["knnTrained", "knnPixels", "knnUntrained"].map((key) => {
    const box = add(find("scores"), "div", { class: `score ${key}` });
    return [key, { value: add(box, "strong", {}, "—"), name: add(box, "span", {}, w[key]) }];
  }));

  // ---- state ---------------------------------------------------------------------------------------------------

  let waiting = 0;

  function change(settings, quiet = false) {
    state.settings = { ...state.settings, ...settings };
    showDials();
    if (!quiet) history.replaceState(null, "", writeAddress(state.settings, state.other));
    clearTimeout(waiting); // a slider that is being drawn sends many values
    waiting = setTimeout(() => send({ kind: "set", settings: state.settings }), 40);
  }

  function showDials() {
    const { settings } = state;
    for (const [key, { show }] of Object.entries(dials)) show(settings[key]);
    const barlow = settings.method === "barlow";
    dials.lambda.row.classList.toggle("unused", dials.lambda.control.disabled = !barlow || !settings.push);
    readout.floor.name.parentNode.classList.toggle("unused", !barlow);
    const of = { barlow: ["invariance", "redundancy"], vicreg: ["invariance_vicreg", "redundancy_vicreg"], simclr: ["near_simclr", "apart_simclr"] }[settings.method];
    readout.invariance.name.textContent = w[of[0]];
    readout.redundancy.name.textContent = w[of[1]];
  }

  function forget() {
    state.curves = { step: [], loss: [], floor: [], invariance: [], redundancy: [], judgedAt: [], knn: [] };
  }

  function setPlaying(on) {
    state.playing = on;
    const button = find("play");
    button.textContent = on ? w.pause : w.play;
    button.setAttribute("aria-pressed", String(on));
    root.dataset.playing = on;
    send({ kind: "play", on });
  }

  function toast(text) {
    find("toast").textContent = text;
    clearTimeout(toast.timer);
    toast.timer = setTimeout(() => { find("toast").textContent = ""; }, 3500);
  }

  // ---- the worker ----------------------------------------------------------------------------------------------

  let worker = null;
  const send = (message) => { if (worker && state.ready) worker.postMessage(message); };

  function startWorker() {
    const url = URL.createObjectURL(new Blob([script], { type: "text/javascript" }));
    worker = new Worker(url);
    worker.onmessage = ({ data }) => hear[data.kind](data);
    worker.onerror = (event) => toast(say("failed", { why: event.message || "worker" }));
    worker.postMessage({ kind: "start", images, settings: state.settings });
  }

  const hear = {
    ready(message) {
      state.ready = message;
      state.sprites = [sprite(message.pixels, message.size), sprite(message.queries, message.size)];
      root.dataset.ready = "yes";
      root.dataset.backend = message.backend;
      find("toast").textContent = "";
      if (state.other.story) openStory(STORIES.findIndex((story) => story.key === state.other.story));
      else if (state.other.play === "1") setPlaying(true);
    },
    frame(frame) {
      worker.postMessage({ kind: "seen" });
      const { curves } = state;
      if (curves.step.length && frame.step < curves.step[curves.step.length - 1]) forget();
      state.frame = frame;
      record(frame);
      state.dirty = true;
      root.dataset.step = frame.step;
      root.dataset.distance = frame.distance;
      tellStory();
    },
    judged(message) {
      if (message.untrained) {
        forget();
        state.untrained = message;
      }
      state.judged = message;
      state.curves.judgedAt.push(message.step);
      state.curves.knn.push(100 * message.accuracy);
      root.dataset.knn = message.accuracy;
      root.dataset.untrained = state.untrained.accuracy;
      root.dataset.pixels = state.ready.accuracy;
      root.dataset.rank = message.rankZ;
      state.fresh = true;
      state.dirty = true;
      explain();
    },
  };

  function record(frame) {
    const { curves } = state, at = curves.step.length - 1;
    const push = state.settings.method === "barlow" ? frame.lambda * frame.redundancy : frame.redundancy;
    const point = { step: frame.step, loss: frame.loss, floor: frame.floor, invariance: frame.invariance, redundancy: push };
    for (const [key, value] of Object.entries(point)) {
      if (at >= 0 && curves.step[at] === frame.step && key !== "step") curves[key][at] = value;
      else if (at < 0 || curves.step[at] !== frame.step) curves[key][at + 1] = value;
    }
    curves.step[curves.loss.length - 1] = frame.step;
    if (curves.step.length > HISTORY) for (const key of Object.keys(point)) curves[key] = curves[key].filter((_, i) => i % 2 === 0);
  }

  // All pictures side by side on one canvas, to be drawn from.
  function sprite(pixels, size) {
    const n = pixels.length / (3 * size * size), columns = 40, canvas = document.createElement("canvas");
    Object.assign(canvas, { width: columns * size, height: Math.ceil(n / columns) * size });
    const g = canvas.getContext("2d"), image = g.createImageData(canvas.width, canvas.height);
    for (let i = 0, from = 0; i < n; i += 1) {
      for (let y = 0; y < size; y += 1) {
        let to = 4 * ((Math.floor(i / columns) * size + y) * canvas.width + (i % columns) * size);
        for (let x = 0; x < size; x += 1, to += 4, from += 3) {
          image.data.set([pixels[from], pixels[from + 1], pixels[from + 2], 255], to);
        }
      }
    }
    g.putImageData(image, 0, 0);
    return (context, k, x, y, side) => context.drawImage(canvas, (k % columns) * size, Math.floor(k / columns) * size, size, size, x, y, side, side);
  }

  // ---- drawing -------------------------------------------------------------------------------------------------

  function draw() {
    requestAnimationFrame(draw);
    state.shown += 1;
    root.dataset.frames = state.shown;
    if (!state.dirty || !state.frame || !state.judged) return;
    if (still.matches && state.playing && performance.now() - (state.drawn || 0) < 500) return; // calmer
    state.drawn = performance.now();
    state.dirty = false;
    drawMatrix(state.frame);
    drawNumbers(state.frame);
    drawCurves();
    drawTwins(state.frame);
    if (state.fresh) {
      state.fresh = false;
      drawScores();
      drawNear();
      drawMap();
    }
  }

  function drawMatrix({ c, step, diagonal, distance }) {
    const d = Math.round(Math.sqrt(c.length));
    paintMatrix(find("c"), toBytes(c), d, table);
    find("c").setAttribute("aria-label", say("matrixAlt", { d, step, diagonal: number(diagonal, 2), distance: number(distance, 2) }));
  }

  function drawNumbers(frame) {
    const { judged, settings } = state, push = settings.method === "barlow" ? frame.lambda * frame.redundancy : frame.redundancy;
    readout.distance.value.textContent = number(frame.distance, 2);
    readout.diagonal.value.textContent = number(frame.diagonal, 2);
    readout.rank.value.textContent = `${number(judged.rankZ, 1)} ${say("of", { n: Math.round(Math.sqrt(frame.c.length)) })}`;
    readout.loss.value.textContent = short(frame.loss);
    readout.floor.value.textContent = short(frame.floor);
    readout.invariance.value.textContent = short(frame.invariance);
    readout.redundancy.value.textContent = short(push);
    find("count").textContent = say("count", { step: frame.step.toLocaleString("en") })
      + (frame.milliseconds ? ` · ${say("milliseconds", { n: number(frame.milliseconds, 0) })}` : "");
  }

  function drawCurves() {
    const { curves, frame } = state, all = [...curves.loss, ...curves.invariance, ...curves.redundancy].filter((v) => v > 0);
    const last = curves.step[curves.step.length - 1], from = curves.step[0], log = state.settings.method !== "simclr";
    const floor = frame.floor > 0 ? [{ at: frame.floor, name: w.floor, colour: "accent", dash: [3, 3], width: 1.5 }] : [];
    const low = log ? Math.max(1e-4, Math.min(0.5, ...all) / 1.3) : Math.min(0, ...curves.invariance);
    drawChart(find("loss"), {
      lines: [
        { name: w.loss, x: curves.step, y: curves.loss, colour: "ink", width: 2.4 },
        { name: readout.invariance.name.textContent.split(":")[0], x: curves.step, y: curves.invariance, colour: "one", dash: [7, 3], width: 1.6 },
        { name: readout.redundancy.name.textContent.split(":")[0], x: curves.step, y: curves.redundancy, colour: "two", dash: [2, 3], width: 1.6 },
      ],
      levels: floor, low, high: Math.max(low * 10, 1.3 * Math.max(1, ...all)), log, xLow: from, xHigh: Math.max(last, from + 10), xLabel: w.step.toLowerCase(),
    });
    find("loss").setAttribute("aria-label", say("lossAlt", { n: last, loss: short(frame.loss), floor: short(frame.floor) }));
    const values = Array.from(frame.singular), d = values.length;
    drawChart(find("spectrum"), {
      lines: [{ x: values.map((_, i) => i + 1), y: values, colour: "one", width: 2.4 }],
      levels: [{ at: 1, name: w.target, colour: "accent", dash: [5, 4], width: 1.5 }],
      low: 0, high: Math.max(1.5, 1.05 * values[0]), xLow: 1, xHigh: d, xLabel: "",
    });
    find("spectrum").setAttribute("aria-label", say("spectrumAlt", { first: number(values[0], 2), last: number(values[d - 1], 2) }));
  }

  function drawTwins({ twins, size }) {
    const place = prepare(find("twins"));
    if (!place) return;
    const { g, width, height } = place, n = Math.min(8, state.settings.batch);
    const small = drawTwins.canvas || (drawTwins.canvas = document.createElement("canvas"));
    Object.assign(small, { width: 8 * size, height: 2 * size });
    const s = small.getContext("2d"), image = s.createImageData(8 * size, 2 * size);
    for (let view = 0, from = 0; view < 2; view += 1) {
      for (let i = 0; i < 8; i += 1) {
        for (let y = 0; y < size; y += 1) {
          let to = 4 * ((view * size + y) * 8 * size + i * size);
          for (let x = 0; x < size; x += 1, to += 4, from += 3) {
            image.data[to] = twins[from];
            image.data[to + 1] = twins[from + 1];
            image.data[to + 2] = twins[from + 2];
            image.data[to + 3] = 255;
          }
        }
      }
    }
    s.putImageData(image, 0, 0);
    const gap = 5, side = Math.min((width - 7 * gap) / 8, (height - 2) / 2);
    for (let view = 0; view < 2; view += 1) {
      for (let i = 0; i < n; i += 1) g.drawImage(small, i * size, view * size, size, size, i * (side + gap), view * (side + 2), side, side);
    }
    find("twins").setAttribute("aria-label", say("twinsAlt", { n }));
  }

  function drawScores() {
    const { judged, untrained, ready, curves } = state, values = { now: percent(judged.accuracy), pixels: percent(ready.accuracy), untrained: percent(untrained.accuracy) };
    scores.knnTrained.value.textContent = `${values.now} %`;
    scores.knnPixels.value.textContent = `${values.pixels} %`;
    scores.knnUntrained.value.textContent = `${values.untrained} %`;
    find("scores").title = say("knnTip", { k: 20, bank: ready.bank.toLocaleString("en"), queries: ready.queryLabels.length });
    const last = Math.max(10, curves.judgedAt[curves.judgedAt.length - 1]), first = curves.judgedAt[0];
    drawChart(find("knn"), {
      lines: [{ name: w.knnTrained, x: curves.judgedAt, y: curves.knn, colour: "one", width: 2.6 }],
      levels: [{ at: 100 * ready.accuracy, name: w.knnPixels, colour: "two", dash: [7, 3], width: 1.6 }, { at: 100 * untrained.accuracy, name: w.knnUntrained, colour: "soft", dash: [2, 3], width: 1.6 }],
      low: 0, high: Math.max(70, ...curves.knn), xLow: first, xHigh: Math.max(last, first + 10), xLabel: w.step.toLowerCase(), percent: true,
    });
    find("knn").setAttribute("aria-label", say("knnAlt", values));
  }

  // The query with a frame, then two rows of neighbours; a dot marks those of the same kind.
  function drawNear() {
    const place = prepare(find("near"));
    if (!place) return;
    const { g, width, height } = place, { ready, judged, sprites, query } = state, c = colours(find("near"));
    const each = judged.neighbours.length / ready.queryLabels.length, own = ready.queryLabels[query], kinds = w.kinds;
    const label = 66, row = (height - 6) / 2, large = Math.min(row * 1.35, 76);
    const side = Math.min(row - 4, (width - label - large) / NEAR - 5);
    g.imageSmoothingEnabled = false;
    sprites[1](g, query, 0, (height - large - 14) / 2, large);
    g.fillStyle = c.ink;
    g.textAlign = "center";
    g.fillText(kinds[own], large / 2, (height - large - 14) / 2 + large + 13);
    const told = {};
    for (const [k, [name, all]] of [["nearPixels", ready.neighbours], ["nearFeatures", judged.neighbours]].entries()) {
      const y = k * (row + 6) + (row - side) / 2, from = all.subarray(query * each, query * each + NEAR);
      g.textAlign = "left";
      g.fillStyle = c.soft;
      const [by, what] = w[name].split(" ");
      g.fillText(by, large + 12, y + side / 2 - 2);
      g.fillText(what ?? "", large + 12, y + side / 2 + 11);
      told[name] = Array.from(from, (j) => kinds[ready.labels[j]]).join(", ");
      from.forEach((j, i) => {
        const x = large + label + i * (side + 5), same = ready.labels[j] === own;
        sprites[0](g, j, x, y, side);
        g.lineWidth = same ? 2.5 : 1;
        g.strokeStyle = same ? c.three : c.grid;
        g.strokeRect(x, y, side, side);
        if (same) {
          g.fillStyle = c.three;
          g.fillRect(x + side - 11, y + side - 11, 11, 11);
          g.fillStyle = "#fff";
          g.textAlign = "center";
          g.fillText("✓", x + side - 5.5, y + side - 1.5);
        }
      });
    }
    find("near").setAttribute("aria-label", say("nearAlt", { kind: kinds[own], pixels: told.nearPixels, features: told.nearFeatures }));
  }

  function drawMap() {
    const place = prepare(find("map"));
    if (!place) return;
    const { g, width, height } = place, { judged, sprites, query } = state, n = judged.map.length / 2, c = colours(find("map"));
    const side = Math.max(10, Math.min(18, width / 22)), bounds = [0, 1].map((k) => {
      const sorted = Float32Array.from({ length: n }, (_, i) => judged.map[2 * i + k]).sort();
      return [sorted[Math.floor(0.02 * n)], sorted[Math.ceil(0.98 * n) - 1]];
    });
    const to = (value, [low, high], room) => Math.min(Math.max((value - low) / (high - low || 1), 0), 1) * (room - side);
    state.places = [];
    for (let k = 0; k <= n; k += 1) { // the query last, on top
      const i = k === n ? query : k, x = to(judged.map[2 * i], bounds[0], width), y = to(judged.map[2 * i + 1], bounds[1], height);
      if (k < n) state.places.push([x + side / 2, y + side / 2]);
      if (k === n) {
        g.fillStyle = c.accent;
        g.fillRect(x - 4, y - 4, side + 8, side + 8);
      }
      sprites[1](g, i, x, y, side);
    }
    find("map").setAttribute("aria-label", w.mapAlt);
  }

  function choose(query) {
    const n = state.ready.queryLabels.length;
    state.query = (query + n) % n;
    drawNear();
    drawMap();
  }

  // ---- stories -------------------------------------------------------------------------------------------------

  const chips = STORIES.map((story, i) => {
    const chip = add(root.querySelector(".stories"), "button", { type: "button", class: "chip", "aria-pressed": "false" }, w[story.key].name);
    chip.addEventListener("click", () => openStory(i));
    return chip;
  });

  function openStory(i) {
    const story = STORIES[i];
    if (!story) return;
    setPlaying(false);
    state.story = { i, said: null, done: false };
    chips.forEach((chip, k) => chip.setAttribute("aria-pressed", String(k === i)));
    change({ ...DEFAULTS, seed: state.settings.seed, ...story.settings });
    clearTimeout(waiting);
    send({ kind: "set", settings: state.settings, afresh: true });
    const box = find("story"), own = w[story.key];
    box.hidden = false;
    box.textContent = "";
    add(box, "h2", {}, own.name);
    add(box, "p", {}, own.text);
    const ask = add(box, "div", { class: "choices", role: "group", "aria-label": w.predict });
    add(ask, "strong", {}, w.predict);
    own.choices.forEach((text, k) => {
      add(ask, "button", { type: "button" }, text).addEventListener("click", () => {
        state.story.said = k;
        ask.remove();
        add(box, "p", { class: "running" });
        setPlaying(true);
        tellStory();
      });
    });
    addClose(box);
    window.dispatchEvent(new Event("resize"));
  }

  function addClose(box) {
    const close = add(box, "button", { type: "button", class: "close", "aria-label": w.close, title: w.close }, "✕");
    close.addEventListener("click", () => {
      state.story = null;
      box.hidden = true;
      chips.forEach((chip) => chip.setAttribute("aria-pressed", "false"));
      window.dispatchEvent(new Event("resize"));
    });
  }

  function tellStory() {
    const { story, frame } = state;
    if (!story || story.said === null || story.done) return;
    const { steps, key } = STORIES[story.i], n = Math.min(frame.step, steps);
    find("story").querySelector(".running").textContent = say("running", { n, steps, watch: w[key].watch });
    if (n < steps) return;
    story.done = true;
    setPlaying(false); // upon which the worker judges what was learned, and `explain` is called
  }

  function explain() {
    const { story, frame, judged, ready, untrained } = state;
    if (!story || !story.done || story.told || judged.step < STORIES[story.i].steps) return;
    const { answer, key } = STORIES[story.i], own = w[key], box = find("story"), running = box.querySelector(".running");
    story.told = true;
    running.className = "verdict";
    running.textContent = story.said === answer ? w.right : say("wrong", { said: own.choices[story.said] });
    add(box, "p", { class: "result" }, say("result", { steps: frame.step, distance: number(frame.distance, 2), diagonal: number(frame.diagonal, 2),
      rank: number(judged.rankZ, 1), d: state.settings.dim, knn: percent(judged.accuracy), pixels: percent(ready.accuracy), untrained: percent(untrained.accuracy) }));
    add(box, "p", { class: "why" }, own.why);
    add(box, "button", { type: "button", class: "next" }, w.next).addEventListener("click", () => openStory((story.i + 1) % STORIES.length));
    window.dispatchEvent(new Event("resize"));
  }

  // ---- events --------------------------------------------------------------------------------------------------

  find("play").addEventListener("click", () => setPlaying(!state.playing));
  find("step").addEventListener("click", () => { setPlaying(false); send({ kind: "step" }); });
  find("reset").addEventListener("click", () => send({ kind: "reset" }));
  find("speed").addEventListener("change", (event) => send({ kind: "speed", value: Number(event.target.value) }));
  find("another").addEventListener("click", () => choose(state.query + 1));
  find("share").addEventListener("click", () => {
    history.replaceState(null, "", writeAddress(state.settings, state.other));
    const copied = navigator.clipboard ? navigator.clipboard.writeText(location.href) : Promise.reject(new Error("no clipboard"));
    copied.then(() => toast(w.shared), () => toast(w.notShared));
  });
  find("map").addEventListener("click", (event) => {
    const far = state.places.map(([x, y]) => Math.hypot(x - event.offsetX, y - event.offsetY));
    choose(far.indexOf(Math.min(...far)));
  });
  find("map").addEventListener("keydown", (event) => {
    const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (by) {
      event.preventDefault();
      choose(state.query + by);
    }
  });
  document.addEventListener("keydown", (event) => { // the space bar plays, wherever it means nothing else
    if (event.key === " " && !event.target.closest("button, input, select, canvas")) {
      event.preventDefault();
      setPlaying(!state.playing);
    }
  });
  window.addEventListener("hashchange", () => {
    const { settings, other } = readAddress(location.hash);
    state.other = other;
    change(settings, true);
  });
  window.addEventListener("resize", () => { state.dirty = state.fresh = true; });

  // ---- theme ---------------------------------------------------------------------------------------------------

  const dark = matchMedia("(prefers-color-scheme: dark)");
  function theme(value) {
    document.documentElement.dataset.theme = value;
    find("theme").textContent = value === "dark" ? w.light : w.dark;
    state.dirty = state.fresh = true;
  }
  find("theme").addEventListener("click", () => theme(document.documentElement.dataset.theme === "dark" ? "light" : "dark"));
  dark.addEventListener("change", () => theme(dark.matches ? "dark" : "light"));

  theme(dark.matches ? "dark" : "light");
  forget();
  showDials();
  find("play").textContent = w.play;
  toast(say("starting", { n: "3,500" }));
  clearTimeout(toast.timer);
  startWorker();
  requestAnimationFrame(draw);
}
