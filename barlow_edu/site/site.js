// Formulas, set by the KaTeX of this site. Scrolling regions can be reached with the keyboard.
document.addEventListener("DOMContentLoaded", () => {
  for (const node of document.querySelectorAll(".be-math")) {
    const displayMode = node.tagName === "DIV";
    katex.render(node.textContent, node, { displayMode, throwOnError: true, strict: "ignore", output: "htmlAndMathml" });
  }
  for (const head of document.querySelectorAll("thead")) if (!head.textContent.trim()) head.remove();
  for (const node of document.querySelectorAll("pre, .pst-scrollable-table-container, .be-scroll")) {
    if (!node.hasAttribute("tabindex")) node.tabIndex = 0;
  }
});
// The lambda explorer asks the page whether its theme is light, in JupyterLab's words.
(function () {
  const root = document.documentElement;
  const tell = () => {
    if (document.body) document.body.dataset.jpThemeLight = String(root.dataset.theme !== "dark");
  };
  new MutationObserver(tell).observe(root, { attributeFilter: ["data-theme"] });
  document.addEventListener("DOMContentLoaded", tell);
  tell();
})();
