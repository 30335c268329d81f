"""A few processes on this machine, joined by gloo: for tests, lessons and measurements. Training uses torchrun."""

from __future__ import annotations

import multiprocessing
import pickle
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

PRELOAD = [
    "torch",
    "torch.distributed",
    "torchvision",
    "barlow_edu.scale.exactness",
    "barlow_edu.training",
]


def run_processes(function: Callable[..., Any], processes: int, *arguments: Any) -> list[Any]:
    """Call ``function(*arguments)`` in ``processes`` processes that form a process group; what each returns, by rank.

    function must be importable by its name: from a module, not from a notebook's cell. Every process has one
    thread. Raises RuntimeError with the story of the first process that failed.
    """
    # Not forked from here: threads, and what they hold locked, would be copied half.
    context = multiprocessing.get_context("spawn" if sys.platform == "win32" else "forkserver")
    if context.get_start_method() == "forkserver":
        context.set_forkserver_preload(PRELOAD)  # imported once, not by every process
    with tempfile.TemporaryDirectory() as folder:
        store, pipes, children = str(Path(folder) / "store"), [], []
        for rank in range(processes):
            ours, theirs = context.Pipe(duplex=False)
            target = (theirs, store, rank, processes, function, arguments)
            child = context.Process(target=_work, args=target, daemon=True)
            child.start()
            theirs.close()
            pipes.append(ours)
            children.append(child)
        try:
            return [_answer(pipe, rank) for rank, pipe in enumerate(pipes)]
        finally:
            for child in children:
                if sys.exc_info()[0] is not None:
                    child.kill()
                child.join()


def _answer(pipe, rank: int) -> Any:
    try:
        good, answer = pickle.loads(pipe.recv_bytes())
    except EOFError:
        raise RuntimeError(f"Process {rank} ended without an answer.") from None
    if not good:
        raise RuntimeError(f"Process {rank} failed:\n{answer}")
    return answer


def _work(pipe, store: str, rank: int, processes: int, function, arguments) -> None:
    try:
        torch.set_num_threads(1)
        dist.init_process_group(
            "gloo", store=dist.FileStore(store, processes), rank=rank, world_size=processes
        )
        # Bytes: what multiprocessing makes of a tensor ends with the process that sends it.
        pipe.send_bytes(pickle.dumps((True, function(*arguments))))
        dist.destroy_process_group()
    except Exception:
        pipe.send_bytes(pickle.dumps((False, traceback.format_exc())))
