(function (script) {
  const label = script.previousElementSibling;
  const alt = label.textContent.replace("Figure: ", "");
  const area = label.closest(".jp-OutputArea, .cell_output, .output") || document.body;
  (function name(tries) {
    const before = (img) => label.compareDocumentPosition(img) & Node.DOCUMENT_POSITION_PRECEDING;
    const img = Array.from(area.querySelectorAll("img")).filter(before).pop();
    if (img && !img.dataset.named) {
      img.alt = alt;
      img.dataset.named = "yes";
      (label.closest(".jp-OutputArea-child") || label).style.display = "none";
    } else if (tries > 0) setTimeout(name, 100, tries - 1);
  })(100);
})(document.currentScript);
