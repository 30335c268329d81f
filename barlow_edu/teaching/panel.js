// What the live panel has beyond explorer.js: ipywidgets gives the handles of its sliders no name, and speaks a
// place in a list where a value is meant. The words that stand beside them say both.
function nameSliders(el) {
  const panel = el.closest(".widget-vbox");
  for (const slider of panel ? panel.querySelectorAll(".widget-slider") : []) {
    const handle = slider.querySelector("[role=slider]");
    const name = slider.querySelector(".widget-label"), value = slider.querySelector(".widget-readout");
    if (handle && name) handle.setAttribute("aria-label", name.textContent);
    if (handle && value) handle.setAttribute("aria-valuetext", value.textContent);
  }
}

function renderNamed(widget) {
  renderLive(widget);
  const tell = () => requestAnimationFrame(() => nameSliders(widget.el));
  widget.model.on("change:sent", tell);
  new IntersectionObserver(tell).observe(widget.el); // the sliders may come after this view
}
