"""The run folder while a run trains: begun or taken up again, held, written to, finished.

In a group of processes all call the same functions, and process 0 alone reads and writes.
"""

import contextlib
import functools
import io
import json
import logging
import math
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from barlow_edu.numerics.distributed import from_first, rank, world_size
from barlow_edu.storage import checkpoints, files
from barlow_edu.storage.files import write_text
from barlow_edu.storage.weights import write_weights

log = logging.getLogger("barlow_edu")


def choose_folder(name: str, out: str | Path | None, resume: bool | str) -> tuple[Path, bool]:
    """The folder of a new run, or of the one to resume; and whether it is resumed.

    Raises ValueError for another ``resume`` than True, False or "auto", FileNotFoundError if there is nothing to
    resume, and FileExistsError if the folder of a new run holds one already.
    """
    if resume not in (True, False, "auto"):
        raise ValueError(f"resume must be True, False or 'auto', got {resume!r}.")
    folder, number = Path(out) if out is not None else Path("runs") / name, 1
    while out is None and resume is False and (folder / "config.yaml").exists():
        number += 1
        folder = Path("runs") / f"{name}-{number}"
    if resume == "auto":
        resume = any((folder / c).exists() for c in (checkpoints.NEWEST, checkpoints.PREVIOUS))
    if resume:
        checkpoints.find_checkpoints(folder)
        return folder, True
    _refuse_a_run(folder)
    return folder, False


def _about(state: Any, images: Any, root: str | None) -> Callable[[], dict[str, Any]]:
    """What environment.json says, asked again when the run ends: where it took place, and on which images."""
    about = state.computer.describe() | {"data": images.name, "images": len(images)}
    about["fingerprint"] = state.images
    if root is not None:  # absolute: the run may be read from another folder
        about["root"] = root if root.startswith("hf:") else str(Path(root).expanduser().resolve())
    if world_size() > 1:
        about["processes"] = world_size()

    def now() -> dict[str, Any]:
        if images.unreadable:  # a stream notices them as it goes
            about["unreadable"] = len(images.unreadable)
        return about | {"minutes": round(state.minutes, 2), "threads": state.threads}

    return now


@contextlib.contextmanager
def open_run(
    folder: Path, resume: bool, state: Any, total: int, images: Any, root: str | None
) -> Iterator["RunWriter"]:
    """Hold a run folder while the block trains: begin it, or take it up where the last good checkpoint left it.

    state: a TrainingState. total: the steps of the whole run. images: an ImageSet or an ImageStream, which came from
    the folder ``root``. If the block ends well, the weights are written, and the run is finished.

    Raises FolderInUse if another process trains there, FileExistsError if another has begun a run there since,
    ValueError if the run has done more than ``total`` steps, and DiskFull, saying how to go on.
    """
    writer, about, epochs = RunWriter(folder), _about(state, images, root), state.config["epochs"]
    with contextlib.ExitStack() as stack:
        # Process 0 alone holds the lock, and until the block ends: so the stack, and no ``with`` around its call.
        from_first(lambda: stack.enter_context(files.only_process(folder)))
        try:
            if resume:
                state.load(folder)
            if state.step > total:
                raise ValueError(
                    f"The run in {folder} has done {state.step} steps, and epochs={epochs} are only {total}. Resume "
                    f"with epochs={-(-state.step * epochs // total)} or more, or start in another folder."
                )
            from_first(lambda: writer.begin(state, resume, total, about()))
            yield writer
            from_first(lambda: writer.finish(state.model, about()))
        except files.DiskFull as error:
            raise files.DiskFull(f"{error} Free some space. {resume_hint(folder)}") from error


def resume_hint(folder: Path) -> str:
    """For the user, whose run has stopped."""
    return (
        f"To go on: pretrain(...) as before with out={str(folder)!r} and resume=True, or on the command line "
        f'python -m barlow_edu pretrain "{folder / "config.yaml"}" --out "{folder}" --resume'
    )


def _refuse_a_run(folder: Path) -> None:
    if (folder / "config.yaml").exists():
        raise FileExistsError(
            f"{folder} holds a run already. Give resume=True (--resume on the command line) to go on with it, or "
            "another folder."
        )


def _for_all(write: Callable[..., None]) -> Callable[..., None]:
    """Process 0 writes for all, and only as long as the folder is where it was."""

    @functools.wraps(write)
    def method(self: "RunWriter", *arguments: Any) -> None:
        if rank() == 0:
            files.check_still_there(self.path)
            write(self, *arguments)

    return method


class RunWriter:
    """Writes into a run folder. A file is written whole, or it stays as it was."""

    def __init__(self, path: str | Path):
        self.path = Path(path)

    def begin(self, state: Any, resume: bool, total: int, about: Mapping[str, Any]) -> None:
        """Make the folder that of ``state``; nothing stays of an earlier run, or of steps still to come."""
        if not resume:
            _refuse_a_run(self.path)  # again: one may have been begun since
        self.rewind(state.step if resume else -1)
        if state.step < total:
            # The encoder goes first here, and comes last in ``finish``: it says that the run is finished.
            stale = ["encoder.safetensors", "projector.safetensors", "evaluation.json"]
            for name in stale + ([] if resume else checkpoints.NAMES):
                (self.path / name).unlink(missing_ok=True)
        if not resume:
            state.save(self.path)  # from now on the run can be resumed, whatever happens
        files.write_yaml(self.path / "config.yaml", state.config)
        files.write_json(self.path / "environment.json", about)

    @_for_all
    def finish(self, model: Any, about: Mapping[str, Any]) -> None:
        """Keep the weights, and where and how long the run took place."""
        files.write_json(self.path / "environment.json", about)
        write_weights(self.path / "projector.safetensors", model.projector.state_dict())
        write_weights(self.path / "encoder.safetensors", model.encoder.state_dict())

    def rewind(self, step: int) -> None:
        """Drop what came after ``step`` (a resumed run writes it again), and what a crash left damaged."""
        path = self.path / "metrics.jsonl"
        lines = read_metrics(path) if path.exists() else []
        if step > 0 and (None in (values for _, values in lines[:-1]) or not lines):
            log.warning("%s has lost lines: the run goes on from step %d without them.", path, step)
        text = "".join(line + "\n" for line, values in lines if values and values["step"] <= step)
        if path.exists() and path.read_bytes() != text.encode():
            write_text(path, text)
        for later, file in snapshot_files(self.path).items():
            if later > step:
                file.unlink()
        for file in [*self.path.glob(".*.part"), *self.path.glob("snapshots/.*.part")]:
            file.unlink()

    @_for_all
    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Append one line of numbers, six digits of each."""
        rounded = {k: float(f"{v:.6g}") if math.isfinite(v) else v for k, v in values.items()}
        files.append(self.path / "metrics.jsonl", json.dumps({"step": step, **rounded}) + "\n")

    @_for_all
    def snapshot(self, step: int, c: Tensor) -> None:
        """Keep one C, (d, d), as float16."""
        content = io.BytesIO()
        np.save(content, c.cpu().numpy().astype(np.float16))
        with files.replacing(self.path / "snapshots" / f"c_{step:07d}.npy") as temporary:
            temporary.write_bytes(content.getbuffer())

    @_for_all
    def checkpoint(self, state: Any) -> None:
        """Save all that is needed to go on from here."""
        state.save(self.path)


def read_metrics(path: Path) -> list[tuple[str, dict[str, float] | None]]:
    """The lines of a metrics.jsonl, and what each says: None where a crash has left no whole one."""
    lines = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            values = json.loads(line)
            numbers = all(isinstance(v, (int, float)) for v in values.values())
            whole = numbers and type(values["step"]) is int
            lines.append((line, values if whole else None))
        except (ValueError, AttributeError, KeyError, RecursionError):
            lines.append((line, None))
    return lines


def snapshot_files(folder: Path) -> dict[int, Path]:
    """Step -> file of the snapshots in a run folder, by step. Copies that other programs leave beside are none."""
    files = {file.stem[2:]: file for file in (folder / "snapshots").glob("c_*.npy")}
    return {int(step): files[step] for step in sorted(files) if re.fullmatch(r"\d{1,18}", step)}
