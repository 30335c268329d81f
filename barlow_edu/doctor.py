"""Will the course run here? One line a check, and for every problem the command that fixes it.

Whatever may be missing or broken is imported inside its check, where the failure becomes a line of the report.
"""

import contextlib
import importlib
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

OK, NOTE, FIX = "ok", "note", "FIX"
GB = 1e9
MINIMUM_PYTHON = (3, 11)
THIS_PACKAGE = "-e ."  # for pip, in the folder of the repository
NOTEBOOK_PACKAGES = ("jupyterlab", "ipykernel", "ipywidgets", "anywidget", "matplotlib", "seaborn")
CONDA_NAMES = {"torch": "pytorch", "matplotlib": "matplotlib-base"}
DOWNLOAD_CIFAR = "python -c \"import barlow_edu; barlow_edu.load_images('cifar10')\""
EXPORT = "set" if os.name == "nt" else "export"  # how this system's shell sets a variable
Finding = tuple[str, str] | tuple[str, str, str]  # status, text and, where there is one, a command


@dataclass(frozen=True)
class Check:
    """One line of the report: a name, what it is like, and "ok", "note" or "FIX" (the course will not run).

    fix: the command that helps, or "". training: whether training needs it too, not the notebooks alone.
    """

    name: str
    status: str
    text: str
    fix: str = ""
    training: bool = True


def diagnose() -> list[Check]:
    """Look at everything the course needs. A check that breaks is a finding, not an error."""
    return [_checked(*entry) for entry in CHECKS]


def run() -> int:
    """Print the report. Returns 0 if the course will run, else 1."""
    checks = diagnose()
    print(report(checks))
    return int(any(check.status == FIX for check in checks))


def report(checks: list[Check]) -> str:
    """The findings as plain text in 80 columns. Commands stand on lines of their own, unbroken."""
    lines = ["", "barlow_edu doctor", ""]
    for check in checks:
        head = f"  {check.status:<6}{check.name:<12}"
        lines += textwrap.wrap(check.text, 80, initial_indent=head, subsequent_indent=" " * 20)
        if check.fix:
            lines.append(f"{'':8}{'fix' if check.status == FIX else 'try'}: {check.fix}")
    broken = [check for check in checks if check.status == FIX]
    verdict = "The course will run here."
    if broken:
        verdict = f"The course will not run yet: {len(broken)} to fix, each with its command above."
        if not any(check.training for check in broken):
            verdict += " Training from the command line works: only the notebooks are affected."
    return "\n".join([*lines, "", *textwrap.wrap(verdict, 80), ""])


def install_command(*names: str, again: bool = False) -> str:
    """The command that installs packages in this environment: conda's, pip's or uv's.

    again: install anew what is there already. THIS_PACKAGE is nothing for conda.
    """
    tool = "python -m pip install" if importlib.util.find_spec("pip") else "uv pip install"
    if (Path(sys.prefix) / "conda-meta").is_dir() and THIS_PACKAGE not in names:
        tool, names = "conda install -c conda-forge", [CONDA_NAMES.get(n, n) for n in names]
    return " ".join([tool, *["--force-reinstall"] * again, *names])


def _checked(name: str, training: bool, look: Callable[[], Finding]) -> Check:
    try:
        return Check(name, *look(), training=training)
    except Exception as error:
        text = f"the check itself failed, {_sentence(error)}"
        return Check(name, FIX, text, install_command(THIS_PACKAGE), training)


def _sentence(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _python() -> Finding:
    text = f"{platform.python_version()}, {platform.system()} {platform.machine()}"
    if tuple(map(int, platform.python_version_tuple()[:2])) < MINIMUM_PYTHON:
        return FIX, f"{text}; 3.11 or newer is needed", "uv run --python 3.12 jupyter lab"
    return OK, text


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "missing"


def _torch() -> Finding:
    """torch and torchvision from two places import well and fail at the first compiled operator."""
    text = f"torch {_version('torch')}, torchvision {_version('torchvision')}"
    try:
        import torch
        from torchvision.ops import nms

        boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 2.0]])  # the same box twice
        rows = nms(boxes, torch.tensor([0.9, 0.8]), 0.5).tolist()
        if rows != [0]:
            raise RuntimeError(f"torchvision.ops.nms keeps boxes {rows} and not [0]")
    except Exception as error:
        fix = install_command("torch", "torchvision", again=True)
        return FIX, f"{text} do not work together. {_sentence(error)}", fix
    return OK, f"{text}, compiled operators work"


def _device() -> Finding:
    import torch

    if torch.cuda.is_available():
        gpu = torch.cuda.get_device_properties(0)
        text = f"CUDA, {torch.cuda.device_count()} x {gpu.name}, {gpu.total_memory / GB:.0f} GB"
        try:
            torch.ones(2, device="cuda").sum().item()
        except Exception as error:
            hide = f"{EXPORT} CUDA_VISIBLE_DEVICES=-1"
            return FIX, f"{text}, but it fails. {_sentence(error)}", hide
        return OK, text
    if torch.backends.mps.is_available():
        return OK, f"MPS, {platform.processor() or platform.machine()}"
    if shutil.which("nvidia-smi"):
        return NOTE, "CPU; there is an NVIDIA driver, but this torch cannot use it", "nvidia-smi"
    return OK, "CPU (enough for the quick tier)"


def _threads() -> Finding:
    import joblib
    import torch

    cores, threads = joblib.cpu_count(), torch.get_num_threads()
    text = f"{cores} cores, torch uses {threads} threads"
    if threads > cores:
        return NOTE, f"{text}; more than cores is slow", f"{EXPORT} OMP_NUM_THREADS={cores}"
    return OK, text


def _memory() -> Finding:
    import psutil  # which comes with Jupyter: training does without it

    free = psutil.virtual_memory().available
    with contextlib.suppress(OSError, ValueError):  # no container, or one without a limit ("max")
        files = (Path("/sys/fs/cgroup", name) for name in ("memory.max", "memory.current"))
        limit, used = (int(file.read_text(encoding="utf-8")) for file in files)
        free = min(free, limit - used)
    if free < 2 * GB:
        return NOTE, f"{free / GB:.1f} GB free: close other programs, or use smaller batches"
    return OK, f"{free / GB:.1f} GB free"


def _disk() -> Finding:
    free = shutil.disk_usage(Path.cwd()).free
    text = f"{free / GB:.1f} GB free"
    if free < 0.5 * GB:
        return FIX, f"{text}; 0.5 GB are needed", "uv cache clean"
    if free < 2 * GB:
        return NOTE, f"{text}; downloads and long runs want 2 GB", "uv cache clean"
    return OK, text


def _data() -> Finding:
    import numpy as np

    from barlow_edu.storage.places import data_dir

    path = data_dir() / "garments.npz"
    checkout = (Path(__file__).resolve().parents[1] / ".git").exists()
    fix = "git checkout -- data" if checkout else install_command(THIS_PACKAGE)
    try:
        with np.load(path) as stored:  # reading an array checks its checksum
            number = len(stored["train_images"]) + len(stored["test_images"])
    except Exception as error:
        return FIX, f"garments cannot be read. {_sentence(error)}", fix
    return OK, f"garments, {number:,} images"


def _cifar() -> Finding:
    from barlow_edu.storage.places import download_dir

    if (download_dir() / "cifar-10-batches-py").is_dir():
        return OK, "downloaded"
    return NOTE, "not here; only longer runs need it (170 MB)", DOWNLOAD_CIFAR


def _notebook_packages() -> Finding:
    broken = {}
    for name in NOTEBOOK_PACKAGES:
        try:
            importlib.import_module(name)
        except Exception as error:
            broken[name] = _sentence(error)
    if broken:
        text = f"missing or broken: {', '.join(broken)}. {next(iter(broken.values()))}."
        return FIX, f"{text} Training needs none of them.", install_command(*broken)
    return OK, "JupyterLab, widgets and plots can be imported"


def _kernel() -> Finding:
    """Notebooks start the Python of the kernel `python3`: is it there, with the course in it?"""
    fix = "python -m ipykernel install --sys-prefix"
    try:
        from jupyter_client import KernelManager

        program = KernelManager(kernel_name="python3").format_kernel_cmd()[0]
    except ImportError:
        text = "jupyter_client is missing. Training does not need it."
        return FIX, text, install_command("ipykernel")
    except Exception as error:
        return FIX, f"no notebook kernel python3. {_sentence(error)}", fix
    probe = [program, "-c", "import ipykernel, barlow_edu"]
    try:
        there = tempfile.gettempdir()  # where no folder of the course is on the path
        answer = subprocess.run(probe, cwd=there, capture_output=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        return FIX, f"the kernel python3 does not start. {_sentence(error)}", fix
    if answer.returncode:
        return FIX, f"the kernel python3 runs {program}, which has no barlow_edu", fix
    return OK, f"python3 runs {program}"


def _run_folder() -> Finding:
    folder = Path.cwd() / "runs"
    folder = folder if folder.is_dir() else folder.parent
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        return FIX, f"{folder} cannot be written. {_sentence(error)}", f'chmod u+w "{folder}"'
    return OK, f"{folder} can be written"


CHECKS: tuple[tuple[str, bool, Callable[[], Finding]], ...] = (
    ("Python", True, _python),
    ("PyTorch", True, _torch),
    ("Device", True, _device),
    ("Processor", True, _threads),
    ("Memory", False, _memory),
    ("Disk", True, _disk),
    ("Data", True, _data),
    ("CIFAR-10", True, _cifar),
    ("Notebooks", False, _notebook_packages),
    ("Kernel", False, _kernel),
    ("Runs", True, _run_folder),
)

if __name__ == "__main__":
    sys.exit(run())
