"""The live panel plays, pauses, and leaves nothing running: no thread, no task."""

import asyncio
import threading

import ipywidgets
import numpy as np
import pytest
import torch
from javascript import run
from jupyter_client.manager import start_new_kernel

from barlow_edu.numerics.correlation import from_bytes
from barlow_edu.teaching import panel
from barlow_edu.teaching.explorer import LiveLambda
from barlow_edu.teaching.live import LiveProblem


def find(live, kind, description):
    """A control of the panel by its description."""
    rows = [child for row in live.children[:-1] for child in row.children]
    return next(w for w in rows if isinstance(w, kind) and w.description == description)


def in_a_loop(play, seconds=0.5):
    """Run ``play()`` in an event loop, then let the loop turn."""

    async def main():
        result = play()
        await asyncio.sleep(seconds)
        left = [t for t in asyncio.all_tasks() if t is not asyncio.current_task()]
        return result, left

    return asyncio.run(main())


def test_a_frame_is_c_of_the_current_batch():
    live = LiveLambda(dim=6)
    shown = from_bytes(np.frombuffer(live.view.frame, dtype=np.uint8).reshape(6, 6))
    np.testing.assert_allclose(shown, live.problem.c.numpy(), atol=1 / 254 + 1e-6)
    step, loss, floor = live.view.history[-1]
    assert step == 0 and loss == pytest.approx(float(live.problem.terms.loss), rel=1e-3)
    assert floor == pytest.approx(live.problem.floor, rel=1e-3)
    assert "λ = 0.01, step 0" in live.view.text


def test_it_plays_and_pauses_with_the_button():
    live = LiveLambda(dim=4, batch_size=16)
    button = find(live, ipywidgets.ToggleButton, "Play")
    threads = threading.active_count()

    def play():
        button.value = True
        assert live.playing and live.view.playing and button.description == "Pause"

    async def main():
        play()
        await asyncio.sleep(0.7)
        moved = live.problem.steps
        button.value = False
        await asyncio.sleep(0.3)
        return moved, live.problem.steps, len(asyncio.all_tasks())

    moved, after, tasks = asyncio.run(main())
    assert moved >= 4 and after == moved
    assert not live.playing and not live.view.playing and button.description == "Play"
    assert tasks == 1 and threading.active_count() == threads


def test_a_panel_made_again_stops_the_one_before():
    first = LiveLambda(dim=4)
    _, left = in_a_loop(lambda: (first.play(), LiveLambda(dim=4)))
    assert not first.playing and left == [] and LiveLambda.current is None


def test_only_one_panel_plays():
    first, second = LiveLambda(dim=4), LiveLambda(dim=4)

    async def main():
        first.play()
        second.play()
        await asyncio.sleep(0.2)
        states = first.playing, second.playing
        second.pause()
        return states

    assert asyncio.run(main()) == (False, True)


def test_it_waits_for_the_browser_and_gives_up_without_one(monkeypatch):
    monkeypatch.setattr(panel, "UNSEEN", 3)
    live = LiveLambda(dim=4)
    _, left = in_a_loop(live.play, 1.5)
    assert not live.playing and left == []
    assert "no browser" in live.view.text
    assert live.view.sent <= panel.BEHIND + 3  # frames nobody saw were not sent


def test_it_stops_when_nobody_touches_it(monkeypatch):
    monkeypatch.setattr(panel, "PATIENCE", 0.1)
    live = LiveLambda(dim=4)
    _, left = in_a_loop(live.play, 0.6)
    assert not live.playing and left == [] and "nothing was touched" in live.view.text


def test_a_failing_step_does_not_leave_it_playing(monkeypatch):
    live = LiveLambda(dim=4)
    monkeypatch.setattr(live.problem, "step", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        asyncio.run(play_to_the_end(live))
    assert not live.playing and LiveLambda.current is None


async def play_to_the_end(live):
    live.play()
    await live._task


def test_sliders_reach_the_problem():
    live = LiveLambda()
    find(live, ipywidgets.FloatLogSlider, "λ").value = 0.5
    assert live.problem.lambd == pytest.approx(0.5) and "λ = 0.5" in live.view.text
    off = find(live, ipywidgets.ToggleButton, "λ = 0")
    off.value = True
    assert live.problem.lambd == 0 and live.slider.disabled
    off.value = False
    assert live.problem.lambd == pytest.approx(0.5) and not live.slider.disabled
    find(live, ipywidgets.SelectionSlider, "D (dims)").value = 8
    assert live.problem.c.shape == (8, 8) and len(live.view.frame) == 64
    find(live, ipywidgets.SelectionSlider, "N (batch)").value = 32
    assert live.problem.batch_size == 32
    live.problem.step()
    off.value = True
    assert not live.slider.readout  # its number would not be the λ of now
    find(live, ipywidgets.Button, "Reset").click()
    assert live.problem.steps == 0 and len(live.view.history) == 1
    assert live.problem.lambd == pytest.approx(live.slider.value) and live.slider.readout
    assert f"λ = {live.slider.value:.3g}, step 0" in live.view.text


def test_without_a_loop_it_says_what_to_do():
    with pytest.raises(RuntimeError, match="problem.step"):
        LiveLambda().play()


def test_what_is_stored_is_the_same_every_time():
    one, two = (LiveLambda()._repr_mimebundle_() for _ in range(2))
    assert one["text/plain"] == two["text/plain"] and "0x" not in one["text/plain"]
    assert one["text/html"] == two["text/html"]
    assert "application/vnd.jupyter.widget-view+json" in one


@pytest.fixture
def ask():
    """A fresh kernel: run code in it, get what it printed; ``ask.manager`` is its manager."""
    manager, client = start_new_kernel()

    def run(code):
        printed = []

        def hear(message):
            content = message["content"]
            printed.append(content.get("text", "") or "\n".join(content.get("traceback", [])))

        client.execute_interactive(code, timeout=120, output_hook=hear)
        return "".join(printed).strip()

    run.manager = manager
    yield run
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def test_in_a_kernel_reruns_and_interrupts_leave_nothing_running(ask):
    ask("import asyncio, threading\nfrom barlow_edu.teaching.explorer import LiveLambda")
    ask("live = LiveLambda(dim=4); display(live)")
    before = ask("print(threading.active_count())")
    ask("live.play(); await asyncio.sleep(1)")
    assert int(ask("print(live.problem.steps)")) > 4
    ask("old, live = live, LiveLambda(dim=4)")  # the cell again
    assert ask("await asyncio.sleep(0.2); print(old.playing, live.playing)") == "False False"
    ask("live.play(); await asyncio.sleep(0.5)")
    ask("await asyncio.sleep(0.3)")  # the kernel is idle after this, and the panel plays
    assert ask("print(live.playing)") == "True"
    interrupt(ask)
    assert ask("print(live.playing, live.view.text.split(':')[1].split('.')[0])") == (
        "False  the kernel was interrupted"
    )
    assert ask("print(threading.active_count())") == before
    assert ask("print(len(asyncio.all_tasks()) - len([t for t in asyncio.all_tasks() if "
               "'_train' not in repr(t)]))") == "0"  # fmt: skip


def interrupt(ask):
    """Press the stop button of an idle kernel, when it has played for a moment."""
    import time

    time.sleep(0.6)
    ask.manager.interrupt_kernel()
    time.sleep(0.6)


# ---- without a kernel ----------------------------------------------------------------------------


def test_a_step_without_a_kernel_is_that_of_torch():
    """One step of playground/live.js from the same weights and twins: loss, C, and the weights after Adam."""
    code = """
      const p = new live.LiveProblem(12, 64, 0.3), copy = (t) => Array.from(t.data);
      const before = copy(p.encoder.w.value);
      p.step();
      return [before, copy(p.x), p.terms.loss, Array.from(p.c), copy(p.encoder.w.value), p.distinct(), p.floor];"""
    before, x, loss, c, after, distinct, floor = run(code, module="live")
    problem = LiveProblem(12, 64, 0.3)
    twins = torch.tensor(x).reshape(2, 64, 32)
    problem.weights.data = torch.tensor(before).reshape(32, 12)
    problem.twins = lambda: twins
    terms = problem.step()
    np.testing.assert_allclose(loss, float(terms.loss), rtol=1e-4)
    np.testing.assert_allclose(c, problem.c.flatten(), atol=1e-5)
    np.testing.assert_allclose(after, problem.weights.detach().flatten(), atol=1e-4)
    assert (distinct, floor) == pytest.approx((problem.distinct(), problem.floor), rel=1e-4)


def test_the_twins_without_a_kernel_are_of_the_same_world():
    """Variance 1, and the correlations between the views that live.py has."""
    x = run("return Array.from(new live.LiveProblem(2, 2000, 1).x.data);", module="live")
    a, b = np.reshape(x, (2, 2000, 32))
    np.testing.assert_allclose([a.var(0), b.var(0)], 1, atol=0.1)
    both = np.corrcoef(a.T, b.T)
    np.testing.assert_allclose(both[:32, 32:].diagonal(), LiveProblem().reliability, atol=0.06)
    off = both[:32, 32:][~np.eye(32, dtype=bool)]
    assert np.abs(off).max() < 0.12


@pytest.mark.parametrize(("dim", "lambd", "least", "most"), [(24, 0, 1, 1.5), (8, 1, 7, 8)])
def test_what_lambda_does_without_a_kernel(dim, lambd, least, most):
    code = """
      const p = new live.LiveProblem(given.dim, 256, given.lambd);
      for (let i = 0; i < 600; i += 1) p.step();
      return p.distinct();"""
    assert least <= run(code, {"dim": dim, "lambd": lambd}, "live") <= most
