"""The live panel: sliders beside a ``LiveProblem`` that trains in the kernel, drawn in the browser.

It trains in a task of the kernel's own event loop, a few steps a frame. So there is no thread that could outlive
anything: while a cell runs the panel stands still, and between two frames every click is heard. It stops when
paused, when another panel plays or the cell is run again, when the kernel is interrupted, when no browser draws
any more, and after five minutes untouched.
"""

import asyncio
import signal
import threading
import time
from collections import deque
from typing import ClassVar

import anywidget
import ipywidgets as widgets
import traitlets

from barlow_edu.numerics.correlation import to_bytes
from barlow_edu.studies.study import one_thread
from barlow_edu.teaching import playground
from barlow_edu.teaching.embed import asset, attribute
from barlow_edu.teaching.figures.drawing import colour_table
from barlow_edu.teaching.live import LiveProblem

FRAME = 1 / 12  # seconds
STEPS = 4  # of training a frame, so that one can watch
SLOW = 0.06  # seconds of training after which a frame is shown anyway
BEHIND = 2  # frames that the browser may be behind
UNSEEN = 120  # frames without any browser drawing, until training stops
PATIENCE = 300  # seconds without a touch, until training stops
HISTORY = 240  # frames in the loss curve
EXPLORER = asset("playground/heatmap.js").replace("export ", "") + asset("explorer.js")
DIMS = (2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96)
BATCHES = (4, 8, 16, 32, 64, 128, 256, 512, 1024)


def without_kernel(problem: LiveProblem) -> str:
    """The panel as HTML that trains by itself, where no kernel runs."""
    spec = {"lambd": problem.lambd, "dim": problem.dim, "batch": problem.batch_size}
    spec |= {"dims": DIMS, "batches": BATCHES, "colours": colour_table()}
    note = "Run this cell in Jupyter: then you can turn λ while a small encoder trains."
    body = f'<div class="be-lx be-lx-panel" data-live="{attribute(spec)}"><em>{note}</em></div>'
    parts = EXPLORER, playground.bundle("live"), asset("without_kernel.js")
    script = "".join(parts) + "startWithoutKernel(script.previousElementSibling);"
    return (
        f"<style>{asset('explorer.css')}</style>{body}"
        f"<script>(function (script) {{\n{script}\n}})(document.currentScript);</script>"
    )


def bundle(shown: dict | tuple | None, text: str) -> dict:
    """What ``_repr_mimebundle_`` of a widget returned, with a text that is the same every time."""
    data = shown[0] if isinstance(shown, tuple) else shown or {}
    return {**data, "text/plain": text}


class LiveView(anywidget.AnyWidget):
    """C and the loss curve, drawn in the browser, which answers every frame (``seen``)."""

    _esm = EXPLORER + asset("panel.js") + "\nexport default { render: renderNamed };\n"
    _css = asset("explorer.css")
    colours = traitlets.Unicode(colour_table()).tag(sync=True)
    frame = traitlets.Bytes().tag(sync=True)  # uint8 (D, D), see to_bytes
    history = traitlets.List().tag(sync=True)  # [step, loss, floor] a frame
    text = traitlets.Unicode().tag(sync=True)
    playing = traitlets.Bool(False).tag(sync=True)
    sent = traitlets.Int(0).tag(sync=True)
    seen = traitlets.Int(0).tag(sync=True)


class LiveLambda(widgets.VBox):
    """Turn λ, D and N while a small encoder trains: see ``live`` for the world it sees.

    Displayed in a notebook: play, pause, reset and sliders. From Python: ``play``, ``pause``, ``reset``, and
    ``problem`` with its ``lambd`` and ``batch_size``.
    """

    current: ClassVar["LiveLambda | None"] = None  # the panel that plays

    def __init__(self, lambd: float = 0.01, dim: int = 24, batch_size: int = 256):
        if LiveLambda.current:
            LiveLambda.current.pause()  # the cell was run again
        self.problem = LiveProblem(dim, batch_size, lambd)
        self.view = LiveView()
        self.points: deque = deque(maxlen=HISTORY)
        self._task: asyncio.Task | None = None
        self._touched = time.monotonic()
        super().__init__([*self._controls(lambd, dim, batch_size), self.view])
        self._record()
        self._publish()

    def _controls(self, lambd: float, dim: int, batch_size: int) -> list[widgets.Widget]:
        self.button = widgets.ToggleButton(description="Play", icon="play", tooltip="Play or pause")
        again = widgets.Button(description="Reset", icon="undo", tooltip="Start with fresh weights")
        zero = widgets.ToggleButton(description="λ = 0", tooltip="No redundancy term at all")
        self.slider = widgets.FloatLogSlider(
            value=lambd, min=-4, max=1, step=0.05, description="λ", readout_format=".3g"
        )
        dims = widgets.SelectionSlider(options=DIMS, value=dim, description="D (dims)")
        batches = widgets.SelectionSlider(
            options=BATCHES, value=batch_size, description="N (batch)"
        )
        self.button.observe(lambda change: self.play() if change.new else self.pause(), "value")
        again.on_click(lambda _: self._start_again(zero))
        zero.observe(lambda change: self._turn_off(change.new), "value")
        self.slider.observe(lambda change: self._set(lambd=change.new), "value")
        dims.observe(lambda change: self.reset(change.new), "value")
        batches.observe(lambda change: self._set(batch_size=change.new), "value")
        rows = [self.button, again, zero], [self.slider, dims, batches]
        layout = widgets.Layout(flex_flow="row wrap")
        return [widgets.HBox(row, layout=layout) for row in rows]

    def __repr__(self) -> str:
        return "<LiveLambda: run this cell, then press Play>"

    def _repr_mimebundle_(self, **_) -> dict:
        shown = bundle(super()._repr_mimebundle_(), repr(self))
        return {**shown, "text/html": without_kernel(self.problem)}

    @property
    def playing(self) -> bool:
        """Whether it trains."""
        return self._task is not None

    def play(self) -> None:
        """Train until paused. Raises RuntimeError where there is no event loop, outside of a notebook."""
        if self.playing:
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise RuntimeError(
                "LiveLambda plays in a notebook's kernel. Here, call problem.step() in a loop."
            ) from None
        if LiveLambda.current:
            LiveLambda.current.pause()
        LiveLambda.current = self
        self._touched = time.monotonic()
        self.view.seen = self.view.sent
        self._task = loop.create_task(self._train())
        self._show_state()

    def pause(self, why: str = "") -> None:
        """Stop training; safe to call at any time."""
        if self._task is None:
            return
        self._task.cancel()
        self._task = None
        if LiveLambda.current is self:
            LiveLambda.current = None
        self._show_state()
        self._publish(f"Paused: {why}. " if why else "")

    def reset(self, dim: int | None = None) -> None:
        """Fresh weights, and another number of dimensions if given."""
        self._touched = time.monotonic()
        self.problem.reset(dim)
        self.points.clear()
        self._record()
        self._publish()

    def _set(self, **settings: float) -> None:
        self._touched = time.monotonic()
        for name, value in settings.items():
            setattr(self.problem, name, value)
        if not self.playing:
            self.problem.look()
            self._record()
            self._publish()

    def _start_again(self, zero: widgets.ToggleButton) -> None:
        """Fresh weights, and the λ that the slider shows."""
        zero.value = False
        self.reset()

    def _turn_off(self, off: bool) -> None:
        self.slider.disabled, self.slider.readout = off, not off  # its number is not the λ of now
        self._set(lambd=0.0 if off else self.slider.value)

    def _show_state(self) -> None:
        self.button.value = self.view.playing = self.playing
        self.button.description = "Pause" if self.playing else "Play"
        self.button.icon = "pause" if self.playing else "play"

    async def _train(self) -> None:
        """One frame after another, with time for every other message of the kernel in between."""
        unseen = 0
        try:
            while self.playing:
                begin = time.perf_counter()
                self._hear_interrupt()
                self._advance()
                if self.view.sent - self.view.seen <= BEHIND:
                    unseen = 0
                    self._publish()
                else:
                    unseen += 1
                if unseen > UNSEEN:
                    self.pause("no browser shows this panel")
                elif time.monotonic() - self._touched > PATIENCE:
                    self.pause("nothing was touched for five minutes")
                await asyncio.sleep(max(0.02, FRAME - (time.perf_counter() - begin)))
        except Exception:
            self.pause()
            raise

    def _hear_interrupt(self) -> None:
        """An interrupt of a kernel that runs no cell, which would be ignored, pauses the panel."""
        if threading.current_thread() is not threading.main_thread():
            return
        if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
            signal.signal(signal.SIGINT, _pause_current)

    def _advance(self) -> None:
        begin = time.perf_counter()
        with one_thread():  # matrices so small that threads would only wait for each other
            for _ in range(STEPS):
                self.problem.step()
                if time.perf_counter() - begin > SLOW:
                    break
        self._record()

    def _record(self) -> None:
        p = self.problem
        if self.points and self.points[-1][0] == p.steps:
            self.points.pop()
        self.points.append([p.steps, float(f"{p.terms.loss:.4g}"), float(f"{p.floor:.4g}")])

    def _publish(self, note: str = "") -> None:
        """Send one frame."""
        with self.view.hold_sync():
            self.view.frame = to_bytes(self.problem.c).tobytes()
            self.view.history = list(self.points)
            self.view.text = note + self._describe()
            self.view.sent += 1

    def _describe(self) -> str:
        p, t = self.problem, self.problem.terms
        return (
            f"λ = {p.lambd:.3g}, step {p.steps:,}: loss {t.loss:.3g}, floor {p.floor:.3g}, invariance "
            f"{t.invariance:.3g}, λ · redundancy {p.lambd * t.redundancy:.3g}, mean diagonal "
            f"{t.diagonal.mean():.2f}. The {p.dim} dimensions say {p.distinct():.1f} different things."
        ).replace("-", "−")


def _pause_current(*_) -> None:
    if LiveLambda.current:
        LiveLambda.current.pause("the kernel was interrupted")
