"""A few processes on this machine, joined by gloo: for tests, lessons and measurements. Training uses torchrun."""

import multiprocessing
import pickle
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import ProcessException, start_processes

PRELOAD = ["torchvision", "barlow_edu.scale.exactness", "barlow_edu.training"]


def run_processes(function: Callable[..., Any], processes: int, *arguments: Any) -> list[Any]:
    """Call ``function(*arguments)`` in ``processes`` processes that form a process group; what each returns, by rank.

    function must be importable by its name: from a module, not from a notebook's cell. Every process has one
    thread. Raises RuntimeError with the story of the first process that failed.
    """
    # Not forked from here: threads, and what they hold locked, would be copied half.
    method = "spawn" if sys.platform == "win32" else "forkserver"
    if method == "forkserver":
        multiprocessing.set_forkserver_preload(PRELOAD)  # imported once, not by every process
    with tempfile.TemporaryDirectory() as folder:
        options = (folder, processes, function, arguments)
        try:
            start_processes(_work, options, processes, daemon=True, start_method=method)
        except ProcessException as error:
            raise RuntimeError(str(error).strip()) from None
        return [pickle.loads(Path(folder, str(rank)).read_bytes()) for rank in range(processes)]


def _work(rank: int, folder: str, processes: int, function: Callable, arguments: tuple) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(str(Path(folder, "store")), processes)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=processes)
    # A file: what a queue makes of a tensor ends with the process that sends it.
    Path(folder, str(rank)).write_bytes(pickle.dumps(function(*arguments)))
    dist.destroy_process_group()
