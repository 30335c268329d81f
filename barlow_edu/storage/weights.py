"""Weights in safetensors files, and put into a module with an error that names the file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from barlow_edu.storage.files import replacing

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def write_weights(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Write a state dict as safetensors. Raises DiskFull."""
    with replacing(path) as temporary:
        # Not by save_file: its error for a full disk is not the system's.
        temporary.write_bytes(save({k: v.detach().cpu().contiguous() for k, v in weights.items()}))


def read_weights(path: Path) -> dict[str, Tensor]:
    """The state dict in a file. Raises ValueError if the file is damaged."""
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:  # the system's error does not name the file
        raise ValueError(
            f"{path} is damaged: {error}. Take a copy that is whole, or resume the run."
        ) from error


def fill(module: nn.Module, weights: Mapping[str, Any], path: str | Path, what: str) -> None:
    """Put the weights in a file, all of them, into a module, ``what`` in words.

    Raises ValueError naming what is missing, unknown, of another shape, or no float numbers: those torch would copy
    without a word.
    """
    own, nothing = module.state_dict(), torch.empty(0)
    theirs = {k: v if isinstance(v, Tensor) else nothing for k, v in weights.items()}
    both = [k for k in own if k in theirs]
    floats = [k for k in both if own[k].is_floating_point()]
    problems = {
        "missing": [k for k in own if k not in theirs],
        "unknown": [k for k in theirs if k not in own],
        "of another shape": [k for k in both if own[k].shape != theirs[k].shape],
        "not as float numbers": [k for k in floats if theirs[k].dtype not in FLOATS],
    }
    listed = [
        f"{len(names)} {problem} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for problem, names in problems.items()
        if names
    ]
    if listed:
        raise ValueError(f"{path} does not hold {what}: {'; '.join(listed)}.")
    module.load_state_dict(theirs)
