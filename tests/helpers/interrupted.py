"""What a child process trains in the tests of resuming, and how it can be made to die. Imports little."""

import contextlib
import os
import signal
import sys
from pathlib import Path

import torch
from tiny import CONFIG, TinyEncoder, tiny_images
from torch import nn

from barlow_edu.models import ENCODERS
from barlow_edu.storage import checkpoints
from barlow_edu.storage.interrupts import TrainingInterrupted
from barlow_edu.training import pretrain

# 16 epochs of 5 steps; checkpoints fall within epochs; every step is logged
LONG = {**CONFIG, "encoder": "forgetful", "epochs": 16, "log_every": 1, "checkpoint_every": 7}
LONG |= {"snapshots": 8, "precision": "auto", "weight_decay": 0.01}
STEPS = 80
KILL = getattr(signal, "SIGKILL", signal.SIGTERM)  # Windows ends a process at once by either
POINTS = ("half written", "not in place", "between the renames", "in place")


class Forgetful(TinyEncoder):
    """With dropout, which draws from torch's own generator."""

    def __init__(self):
        super().__init__()
        self.body.append(nn.Dropout(0.2))


@contextlib.contextmanager
def forgetful_encoder():
    """The encoder under the name "forgetful", inside."""
    ENCODERS["forgetful"] = lambda stem, size: (Forgetful(), 12)
    yield
    del ENCODERS["forgetful"]


def train(out, resume, stderr, die_at=None, place=None):
    """Train, and perhaps kill itself at a certain point of writing the fourth checkpoint.

    place: what torchrun would set in the environment of one process among several.
    """
    os.environ.update(place or {})
    sys.stderr = open(stderr, "w", buffering=1)  # noqa: SIM115
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored
    if die_at:
        _die_while_writing(die_at)
    try:
        with forgetful_encoder():
            pretrain(LONG, out, tiny_images(), resume=resume, progress=False)
    except TrainingInterrupted as stop:
        print(stop, file=sys.stderr)
        sys.exit(128 + stop.signum)


def _die_while_writing(point):
    write, rename, seen = Path.write_bytes, os.replace, []

    def die():
        os.kill(os.getpid(), KILL)

    def write_bytes(path, data):
        if "checkpoint" not in path.name:
            return write(path, data)
        seen.append(path)
        if len(seen) == 4 and point == "half written":
            write(path, data[: len(data) // 2])
            die()
        return write(path, data)

    def replace(source, target):
        name = Path(target).name
        before = {"not in place": checkpoints.PREVIOUS, "between the renames": checkpoints.NEWEST}
        if len(seen) == 4 and name == before.get(point):
            die()
        rename(source, target)
        if len(seen) == 4 and point == "in place" and name == checkpoints.NEWEST:
            die()

    Path.write_bytes, os.replace = write_bytes, replace
