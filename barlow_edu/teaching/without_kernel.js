// The live panel in a page without a kernel: the world of playground/live.js behind controls of the page itself, drawn
// by explorer.js as the widget is. A page that is not looked at does not train.
function startWithoutKernel(root) {
  const { lambd, dim, batch, dims, batches, colours } = JSON.parse(root.dataset.live);
  const problem = new live.LiveProblem(dim, batch, lambd);
  const state = { colours, history: [], sent: 0 }, MOST = 240, STEPS = 4, FRAME = 1000 / 12;
  let playing = false, draw = null, last = 0;
  root.textContent = "";
  followTheme(root);
  const model = { get: (key) => state[key], set() {}, save_changes() {}, on(_, redraw) { draw = redraw; } };

  function record() {
    const point = [problem.steps, problem.terms.loss, problem.floor];
    if (state.history.length && state.history.at(-1)[0] === point[0]) state.history.pop();
    state.history.push(point);
    if (state.history.length > MOST) state.history.shift();
    publish();
  }
  function publish() {
    const { terms, c } = problem, d = problem.dim;
    let diagonal = 0;
    for (let i = 0; i < d; i += 1) diagonal += c[i * (d + 1)] / d;
    state.frame = toBytes(c);
    state.playing = playing;
    state.text = `λ = ${short(problem.lambd)}, step ${problem.steps.toLocaleString("en")}: loss ${short(terms.loss)}, floor `
      + `${short(problem.floor)}, invariance ${short(terms.invariance)}, λ · redundancy ${short(problem.lambd * terms.redundancy)}, `
      + `mean diagonal ${fixed(diagonal, 2)}. The ${d} dimensions say ${fixed(problem.distinct(), 1)} different things.`;
    if (draw) draw();
  }

  const buttons = add(root, "div", { class: "be-lx-buttons" });
  const play = add(buttons, "button", { type: "button" }, "▶ Play");
  const reset = add(buttons, "button", { type: "button", title: "Start with fresh weights" }, "Reset");
  const zero = add(buttons, "button", { type: "button", "aria-pressed": "false", title: "No redundancy term at all" }, "λ = 0");
  function addSlider(name, range, value, text, heard) {
    const label = add(root, "label", { class: "be-lx-bar" });
    add(label, "span", { class: "be-lx-name" }, name);
    const input = add(label, "input", { type: "range", ...range, "aria-label": name, class: "be-lx-slider" });
    const output = add(label, "output", { class: "be-lx-value", "aria-hidden": "true" });
    const say = () => {
      output.textContent = text(Number(input.value));
      input.setAttribute("aria-valuetext", output.textContent);
    };
    input.value = value;
    input.addEventListener("input", () => { heard(Number(input.value)); say(); record(); });
    say();
    return { input, say };
  }
  const among = (values) => ({ min: 0, max: values.length - 1, step: 1 });
  const dial = addSlider("λ", { min: -4, max: 1, step: 0.05 }, Math.log10(lambd),
    (k) => (problem.lambd ? plain(10 ** k) : "0"), setLambda), slider = dial.input;
  addSlider("D (dims)", among(dims), dims.indexOf(dim), (i) => String(dims[i]), (i) => begin(dims[i]));
  addSlider("N (batch)", among(batches), batches.indexOf(batch), (i) => String(batches[i]), (i) => problem.resize(batches[i]));

  function setLambda() {
    problem.lambd = slider.disabled ? 0 : 10 ** Number(slider.value);
    if (!playing) problem.look();
  }
  function turnOff(off) {
    slider.disabled = off;
    zero.setAttribute("aria-pressed", String(off));
    setLambda();
    dial.say();
  }
  function begin(d) {
    problem.reset(d);
    state.history.length = 0;
  }
  zero.addEventListener("click", () => { turnOff(!slider.disabled); record(); });
  reset.addEventListener("click", () => { turnOff(false); begin(problem.dim); record(); });
  play.addEventListener("click", () => {
    playing = !playing;
    play.textContent = playing ? "❚❚ Pause" : "▶ Play";
    if (playing) requestAnimationFrame(turn);
    else publish();
  });
  function turn(now) {
    if (!playing || !root.isConnected) return;
    if (now - last >= FRAME) {
      last = now;
      for (let i = 0; i < STEPS; i += 1) problem.step();
      record();
    }
    requestAnimationFrame(turn);
  }
  record();
  renderLive({ model, el: root });
  root.addEventListener("keydown", (event) => event.stopPropagation()); // as in the explorer
}
