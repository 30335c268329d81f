"""Ctrl-C, SIGTERM and SIGUSR1 while training: finish the step, save, and only then stop."""

import logging
import os
import signal
import subprocess
import threading
import time
from typing import Self

# What SLURM sends before a job's time is over. Windows has none.
USR1 = getattr(signal, "SIGUSR1", None)
SIGNALS = tuple(s for s in (signal.SIGINT, signal.SIGTERM, USR1) if s is not None)
# Seconds after which a second signal counts as one: some senders repeat themselves.
IMPATIENCE = 1.0
log = logging.getLogger("barlow_edu")


class TrainingInterrupted(KeyboardInterrupt):
    """Training was asked to stop; it finished its step and saved. ``signum`` says by which signal.

    >>> TrainingInterrupted("Stopped and saved at step 7 of 10.", signal.SIGTERM).signum
    <Signals.SIGTERM: 15>
    """

    def __init__(self, message: str, signum: int):
        super().__init__(message)
        self.signum = signum


class StopRequest:
    """While entered, SIGINT (Ctrl-C), SIGTERM and SIGUSR1 are noted in ``signum`` instead of ending the process.

    A second one does what it always did. In a thread other than the main one, which no signal reaches,
    nothing changes; a signal that is ignored stays ignored.
    """

    signum: int | None = None

    def __enter__(self) -> Self:
        self._before = {}
        if threading.current_thread() is threading.main_thread():
            for signum in SIGNALS:
                # None: set by a library in C, and Python could not put it back.
                if signal.getsignal(signum) not in (signal.SIG_IGN, None):
                    self._before[signum] = signal.signal(signum, self._note)
        return self

    def __exit__(self, *exception) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    def _note(self, signum: int, frame) -> None:
        if self.signum is None:
            self.signum, self._since = signum, time.monotonic()
        elif time.monotonic() - self._since > IMPATIENCE:
            signal.signal(signum, self._before[signum])
            signal.raise_signal(signum)


def leave_to_main_process(worker: int) -> None:
    """In a worker process: these signals are for the process that trains.

    A terminal and SLURM send them to all processes at once. A worker that ends takes the training with it before
    that can save; who wants it gone tells it so by other means, or ends the main process.
    """
    for signum in SIGNALS:
        signal.signal(signum, signal.SIG_IGN)


def requeue() -> str | None:
    """Put this SLURM job back into the queue, to be started again. Returns its number, or None if it is not queued.

    A failure is a warning: the checkpoint is there all the same.
    """
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        return None
    command, options = ["scontrol", "requeue", job], {"capture_output": True, "text": True}
    try:
        subprocess.run(command, check=True, timeout=60, **options)
    except (OSError, subprocess.SubprocessError) as error:
        reason = getattr(error, "stderr", None) or error  # what SLURM itself says, where it does
        log.warning("Job %s could not be requeued: %s", job, str(reason).strip())
        return None
    return job
