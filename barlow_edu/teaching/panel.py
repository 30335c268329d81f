"""The live panel: turn λ, D and N while a small encoder trains in the page.

The world that it sees is that of ``live``, written again in ``playground/live.js``; tests hold one step of the two
against each other. The page trains and not the kernel: so the panel moves while a cell runs, works where no kernel
is, leaves nothing running behind, and does not train while nobody looks at the page.
"""

from barlow_edu.teaching import embed, playground
from barlow_edu.teaching.figures.drawing import colour_table

EXPLORER = embed.asset("playground/heatmap.js").replace("export ", "") + embed.asset("explorer.js")
DIMS = (2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96)
BATCHES = (4, 8, 16, 32, 64, 128, 256, 512, 1024)


class LiveLambda:
    """Displayed in a notebook: play, pause, reset, and sliders that start at the values given.

    ``lambd``: from 0.0001 to 10. ``dim``: one of DIMS. ``batch_size``: one of BATCHES. Raises ValueError for others.

    >>> LiveLambda(lambd=0.1, dim=8)
    <LiveLambda: run this cell, then press Play>
    """

    def __init__(self, lambd: float = 0.01, dim: int = 24, batch_size: int = 256):
        if not 1e-4 <= lambd <= 10 or dim not in DIMS or batch_size not in BATCHES:
            raise ValueError(
                f"The sliders have no lambd={lambd}, dim={dim}, batch_size={batch_size}. Choose lambd from 0.0001 to "
                f"10, dim from {DIMS} and batch_size from {BATCHES}."
            )
        self.start = {"lambd": lambd, "dim": dim, "batch": batch_size}

    def __repr__(self) -> str:
        return "<LiveLambda: run this cell, then press Play>"

    def _repr_html_(self) -> str:
        spec = {**self.start, "dims": DIMS, "batches": BATCHES, "colours": colour_table()}
        note = "Run this cell in Jupyter: then you can turn λ while a small encoder trains."
        code = playground.bundle("live") + embed.asset("without_kernel.js")
        code += "startWithoutKernel(script.previousElementSibling);"
        return drawn_by_explorer("be-lx-panel", "live", spec, f"<em>{note}</em>", code)


def drawn_by_explorer(kind: str, name: str, spec: dict, note: str, code: str) -> str:
    """The HTML of an element that ``code`` fills by explorer.js; ``script`` in it is the script behind it."""
    script = f"(function (script) {{\n{EXPLORER}{code}\n}})(document.currentScript);"
    style = embed.asset("explorer.css")
    return embed.element(f"be-lx {kind}", name, spec, note, style, script)
