// The player of film.py and flipbook.py. It stands in a notebook output after the picture that holds all frames
// ("the sheet"), cuts its frames out of that picture, and reads the numbers from a text chunk of the PNG.
(function (script) {
  "use strict";
  const root = script.previousElementSibling;
  const spec = JSON.parse(root.dataset.film);
  const [WIDE, HIGH] = [spec.tile].flat().length > 1 ? spec.tile : [spec.tile, spec.tile];
  const FPS = matchMedia("(prefers-reduced-motion: reduce)").matches ? 2 : 8;

  // The nearest picture of the right size before this element, in the same output area.
  function findSheet() {
    const area = root.closest(".jp-OutputArea, .cell_output, .output, .be-page") || document.body;
    const before = (img) => root.compareDocumentPosition(img) & Node.DOCUMENT_POSITION_PRECEDING;
    return Array.from(area.querySelectorAll("img")).reverse().find((img) =>
      before(img) && img.naturalWidth === spec.size[0] && img.naturalHeight === spec.size[1]);
  }

  async function bytesOf(src) {
    if (src.startsWith("data:")) {
      return Uint8Array.from(atob(src.split(",")[1]), (char) => char.charCodeAt(0));
    }
    return new Uint8Array(await (await fetch(src)).arrayBuffer());
  }

  // The PNG text chunk "film" as an object; null where the page may not read it.
  async function readNumbers(src) {
    try {
      const bytes = await bytesOf(src);
      const view = new DataView(bytes.buffer);
      const text = (from, to) => String.fromCharCode(...bytes.subarray(from, to));
      for (let at = 8; at < bytes.length; at += 12 + view.getUint32(at)) {
        const end = at + 8 + view.getUint32(at);
        if (text(at + 4, at + 8) === "tEXt" && text(at + 8, at + 13) === "film\0") {
          let json = "";
          for (let i = at + 13; i < end; i += 4096) json += text(i, Math.min(end, i + 4096));
          return JSON.parse(json);
        }
      }
    } catch (error) { /* a picture from another origin: the film plays without numbers */ }
    return null;
  }

  function add(parent, tag, attributes, text) {
    const node = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    if (text) node.textContent = text;
    return parent.appendChild(node);
  }

  function drawSpectrum(canvas, numbers, frame) {
    const ratio = window.devicePixelRatio || 1, width = 300, height = 320;
    canvas.width = width * ratio;
    canvas.height = height * ratio;
    const g = canvas.getContext("2d");
    g.scale(ratio, ratio);
    g.fillStyle = "#fff";
    g.fillRect(0, 0, width, height);
    const top = Math.max(...numbers.spectrum.map((values) => values[0]));
    const log = top > 4, low = log ? 1e-2 : 0, high = log ? 2 * top : Math.max(1.3, 1.1 * top);
    const scale = log ? Math.log10 : (value) => value;
    const box = { left: 44, right: 290, top: 30, bottom: 284 };
    const y = (value) => box.bottom - (box.bottom - box.top)
      * (scale(Math.max(value, low)) - scale(low)) / (scale(high) - scale(low));
    const values = numbers.spectrum[frame];
    const x = (i) => box.left + 4 + (box.right - box.left - 8) * i / Math.max(1, values.length - 1);
    g.font = "12px sans-serif";
    g.strokeStyle = "#666";
    g.fillStyle = "#222";
    g.strokeRect(box.left, box.top, box.right - box.left, box.bottom - box.top);
    g.textAlign = "center";
    g.fillText("singular values of C", (box.left + box.right) / 2, 18);
    g.fillText("rank, 1 to " + spec.dims[1], (box.left + box.right) / 2, 306);
    g.textAlign = "right";
    const ticks = log ? [0.01, 0.1, 1, 10, 100, 1000] : high > 2 ? [0, 1, 2, 3, 4] : [0, 0.5, 1];
    for (const tick of ticks.filter((t) => t <= high)) g.fillText(String(tick), box.left - 5, y(tick) + 4);
    g.setLineDash([5, 4]);
    g.strokeStyle = g.fillStyle = "#a8500a";
    g.beginPath();
    g.moveTo(box.left, y(1));
    g.lineTo(box.right, y(1));
    g.stroke();
    g.fillText("target: all 1", box.right - 4, y(1) - 6);
    g.setLineDash([]);
    g.strokeStyle = "#0072b2";
    g.lineWidth = 2.5;
    g.beginPath();
    values.forEach((value, i) => { if (value >= low) g.lineTo(x(i), y(value)); });
    g.stroke();
  }

  function build(sheet, numbers) {
    root.textContent = "";
    root.setAttribute("role", "group");
    root.setAttribute("aria-label", spec.title);
    add(root, "div", { class: "be-film-title" }, spec.title);
    if (spec.part) add(root, "div", { class: "be-film-part" }, spec.part);
    const panels = add(root, "div", { class: "be-film-panels" });
    const canvas = add(panels, "canvas",
      spec.captions ? { class: "be-film-page", role: "img", width: WIDE, height: HIGH, style: `width: ${spec.width}px` }
        : { class: "be-film-c", role: "img", width: spec.dims[0], height: spec.dims[0] });
    if (spec.colours) {
      const legend = add(panels, "div", { class: "be-film-legend", "aria-hidden": "true" });
      add(legend, "span", {}, "1");
      add(legend, "i", { style: `background: linear-gradient(to top, ${spec.colours.join(", ")})` });
      add(legend, "span", {}, "−1");
    }
    const chart = numbers && add(panels, "canvas", { class: "be-film-spectrum", role: "img" });
    const bar = add(root, "div", { class: "be-film-bar" });
    const play = add(bar, "button", { type: "button" }, "▶ Play");
    const last = spec.steps.length - 1;
    const slider = add(bar, "input",
      { type: "range", min: 0, max: last, step: 1, value: 0, "aria-label": "Frame of the film" });
    const all = add(bar, "button", { type: "button", "aria-pressed": "false" }, "All frames");
    const readout = add(root, "div", { class: "be-film-readout" });
    const row = sheet.closest(".jp-OutputArea-child") || sheet;
    let frame = 0, timer = null;

    function draw() {
      const column = frame % spec.columns, line = Math.floor(frame / spec.columns);
      const g = canvas.getContext("2d");
      g.imageSmoothingEnabled = false;
      g.drawImage(sheet, spec.origin[0] + column * spec.pitch[0], spec.origin[1] + line * spec.pitch[1],
        WIDE, HIGH, 0, 0, canvas.width, canvas.height);
      let text = spec.captions ? spec.captions[frame] : "step " + spec.steps[frame].toLocaleString("en");
      if (numbers) {
        text += `, mean diagonal ${numbers.diagonal[frame].toFixed(2)}`
          + `, off-diagonal RMS ${numbers.rms[frame].toFixed(2)}`;
        drawSpectrum(chart, numbers, frame);
        const values = numbers.spectrum[frame];
        chart.setAttribute("aria-label", `Singular values of C, from ${values[0].toFixed(2)} down to `
          + `${values[values.length - 1].toFixed(2)}; the target is 1 for all.`);
      }
      readout.textContent = spec.captions ? text : text.replace("-", "−").replace("off−", "off-");
      slider.value = frame;
      slider.setAttribute("aria-valuetext", text);
      canvas.setAttribute("aria-label", (spec.captions ? "" : "Cross-correlation matrix at ") + text);
    }
    function stop() {
      clearInterval(timer);
      timer = null;
      play.textContent = "▶ Play";
    }
    function start() {
      if (frame === last) frame = 0;
      draw();
      play.textContent = "❚❚ Pause";
      timer = setInterval(() => {
        if (!root.isConnected || frame === last) return stop();
        frame += 1;
        draw();
      }, 1000 / FPS);
    }
    play.addEventListener("click", () => (timer === null ? start() : stop()));
    slider.addEventListener("input", () => { stop(); frame = Number(slider.value); draw(); });
    all.addEventListener("click", () => {
      const shown = row.style.display === "none";
      row.style.display = shown ? "" : "none";
      all.setAttribute("aria-pressed", String(shown));
    });
    // JupyterLab takes arrow keys, Enter and letters for its own commands otherwise.
    bar.addEventListener("keydown", (event) => event.stopPropagation());
    row.style.display = "none";
    draw();
  }

  // Outputs are drawn one after another: wait for the sheet, 10 seconds at most.
  async function begin(tries) {
    const sheet = findSheet();
    if (sheet) {
      sheet.alt = spec.alt;
      build(sheet, await readNumbers(sheet.src));
    } else if (tries > 0) {
      setTimeout(begin, 100, tries - 1);
    }
  }
  begin(100);
})(document.currentScript);
