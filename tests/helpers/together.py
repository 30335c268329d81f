"""What the processes that torchrun starts in tests/scale/test_processes.py train, and how one of them comes to harm.

The first time process 1 is killed in the middle of a step; the second time it alone is told to stop.
"""

import os
import signal
import sys

import torch
from tiny import CONFIG, TinyEncoder, tiny_encoder, tiny_images

from barlow_edu.models import ENCODERS
from barlow_edu.storage.interrupts import TrainingInterrupted
from barlow_edu.training import pretrain

# 8 epochs of 5 steps; plain SGD: what rounding does stays small
TOGETHER = {**CONFIG, "epochs": 8, "optimizer": "sgd", "log_every": 1, "checkpoint_every": 3}
TOGETHER |= {"snapshots": 12}
STEPS, KILLED, TOLD = 40, 17, 29


class Unlucky(TinyEncoder):
    """Process 1 is harmed in its forward pass of a certain step."""

    harm = {"0": (KILLED - 12, signal.SIGKILL), "1": (TOLD - 15, signal.SIGTERM)}

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x):
        if self.training and torch.is_grad_enabled():
            self.calls += 1
            step, signum = self.harm[os.environ["TORCHELASTIC_RESTART_COUNT"]]
            if os.environ["RANK"] == "1" and self.calls == 2 * step:  # two views a step
                os.kill(os.getpid(), signum)
        return super().forward(x)


def main(out):
    """Go on with the run in ``out``."""
    torch.set_num_threads(1)
    with tiny_encoder():
        ENCODERS["tiny"] = lambda stem, size: (Unlucky(), 12)
        try:
            pretrain(TOGETHER, out, tiny_images(), resume="auto", progress=False)
        except TrainingInterrupted as stop:
            print(f"process {os.environ['RANK']}: {stop}", file=sys.stderr)
            sys.exit(128 + stop.signum)


if __name__ == "__main__":
    main(sys.argv[1])
