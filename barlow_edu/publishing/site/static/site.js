// Formulas, set by the KaTeX of this site, which also writes the MathML that screen readers speak. Scrolling regions
// can be reached with the keyboard.
document.addEventListener("DOMContentLoaded", () => {
  for (const node of document.querySelectorAll("div.math, span.math")) {
    const displayMode = node.tagName === "DIV";
    if (displayMode) {
      node.tabIndex = 0;
      node.setAttribute("role", "group");
      node.setAttribute("aria-label", "formula");
    }
    katex.render(node.textContent, node, { displayMode, throwOnError: true, strict: "ignore", output: "htmlAndMathml" });
  }
  // What the theme leaves without a name: the arrows of its menu, and the place of the site's name.
  for (const summary of document.querySelectorAll(".bd-links summary")) {
    const page = summary.closest("li").querySelector("a");
    summary.setAttribute("aria-label", `Pages of ${page ? page.textContent.trim() : "this part"}`);
  }
  const logo = document.querySelector(".navbar-brand.logo");
  if (logo && !logo.closest("header, nav")) {
    logo.parentElement.setAttribute("role", "region");
    logo.parentElement.setAttribute("aria-label", "Name of the site");
  }
  for (const head of document.querySelectorAll("thead")) if (!head.textContent.trim()) head.remove();
  for (const cell of document.querySelectorAll("th")) if (!cell.textContent.trim()) cell.outerHTML = "<td></td>";
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
