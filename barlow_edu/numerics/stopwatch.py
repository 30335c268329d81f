"""How long a run has trained, and how long its last steps took."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """Minutes since the beginning of a run, those before it was resumed (``minutes``) included; seconds of a lap."""

    def __init__(self, minutes: float = 0.0):
        self._before = minutes
        self._began = self._lap = time.perf_counter()

    def minutes(self) -> float:
        """How long the run has trained, also before it was stopped and resumed."""
        return self._before + (time.perf_counter() - self._began) / 60

    def lap(self) -> float:
        """Seconds since the last lap, without those that were left out."""
        last, self._lap = self._lap, time.perf_counter()
        return self._lap - last

    @contextmanager
    def left_out(self) -> Iterator[None]:
        """What is done inside does not count in the lap."""
        began = time.perf_counter()
        yield
        self._lap += time.perf_counter() - began
