"""The doctor: each failure is injected, and its report must name the command that fixes it."""

import contextlib
import io
import shutil
import subprocess
import sys
import tempfile
import venv
from collections import namedtuple
from types import SimpleNamespace

import pytest

from barlow_edu import doctor
from barlow_edu.doctor import FIX, NOTE, OK, Check

GB = 1e9


def look(name):
    """The finding of one check, by its name in the report."""
    [entry] = [entry for entry in doctor.CHECKS if entry[0] == name]
    return doctor._checked(*entry)


def raising(error):
    def function(*args, **kwargs):
        raise error

    return function


def report_of(monkeypatch, *findings):
    """(exit status, text) of a run whose checks are `findings`, each (training, status, text)."""
    entries = [(f"Check{i}", training, lambda f=f: f) for i, (training, *f) in enumerate(findings)]
    monkeypatch.setattr(doctor, "CHECKS", entries)
    with contextlib.redirect_stdout(io.StringIO()) as stream:
        return doctor.run(), stream.getvalue()


@pytest.fixture(scope="module")
def here():
    """The findings on the machine that runs the tests."""
    return doctor.diagnose()


def test_what_the_tests_need_is_fine_here(here):
    found = {check.name: check for check in here}
    assert list(found) == [name for name, *_ in doctor.CHECKS]
    for name in ("Python", "PyTorch", "Data", "Notebooks", "Kernel", "Runs"):
        assert found[name].status == OK, found[name]


def test_every_problem_here_comes_with_a_command(here):
    assert all(check.fix for check in here if check.status == FIX)


def test_the_report_fits_80_columns_and_is_plain(here):
    text = doctor.report([*here, Check("Long", FIX, "word " * 60 + "x" * 200, "a command")])
    assert text.isascii()
    commands = ("        fix: ", "        try: ")
    lines = [line for line in text.splitlines() if not line.startswith(commands)]
    assert max(map(len, lines)) <= 80


def test_without_problems_the_course_runs(monkeypatch):
    status, text = report_of(monkeypatch, (True, OK, "good"), (True, NOTE, "look", "a command"))
    assert status == 0
    assert "  ok    Check0      good\n" in text
    assert "  note  Check1      look\n        try: a command\n" in text
    assert text.strip().endswith("The course will run here.")


def test_a_problem_of_training_stops_the_course(monkeypatch):
    status, text = report_of(monkeypatch, (True, FIX, "bad", "mend it"), (False, FIX, "bad", "too"))
    assert status == 1
    assert "  FIX   Check0      bad\n        fix: mend it\n" in text
    assert "The course will not run yet: 2 to fix" in text
    assert "Training from the command line works" not in text


def test_a_problem_of_the_notebooks_leaves_training(monkeypatch):
    status, text = report_of(monkeypatch, (True, OK, "good"), (False, FIX, "bad", "mend it"))
    assert status == 1
    assert "Training from the command line works" in " ".join(text.split())


def test_a_check_that_breaks_is_a_finding(monkeypatch):
    entries = [("First", True, raising(KeyError("odd"))), ("Second", True, lambda: (OK, "good"))]
    monkeypatch.setattr(doctor, "CHECKS", entries)
    first, second = doctor.diagnose()
    assert first.status == FIX and "KeyError: 'odd'" in first.text and "install -e ." in first.fix
    assert second == Check("Second", OK, "good")


def test_a_bare_python_gets_a_report_and_no_traceback(tmp_path):
    run = [sys.executable, "-I", "-S", doctor.__file__]  # no installed package at all
    done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stderr == ""
    assert "FIX   PyTorch     torch" in done.stdout
    assert "install --force-reinstall" in done.stdout
    assert "ok    Python" in done.stdout


def test_old_python(monkeypatch):
    monkeypatch.setattr("platform.python_version_tuple", lambda: ("3", "10", "9"))
    check = look("Python")
    assert check.status == FIX
    assert "uv run --python 3.12" in check.fix


def test_torchvision_of_another_torch(monkeypatch):
    error = RuntimeError("operator torchvision::nms does not exist")
    monkeypatch.setattr("torchvision.ops.nms", raising(error))
    check = look("PyTorch")
    assert check.status == FIX
    assert "operator torchvision::nms does not exist" in check.text
    assert check.fix.endswith("install --force-reinstall torch torchvision")


def test_torchvision_that_computes_nonsense(monkeypatch):
    monkeypatch.setattr("torchvision.ops.nms", lambda boxes, scores, threshold: scores.argsort())
    assert look("PyTorch").status == FIX


def test_torchvision_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision.ops", None)
    check = look("PyTorch")
    assert check.status == FIX
    assert "torchvision" in check.fix


@pytest.fixture
def gpu(monkeypatch):
    properties = SimpleNamespace(name="Test GPU", total_memory=24 * GB)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda index: properties)


def test_a_gpu_that_works_is_named(monkeypatch, gpu):
    two = SimpleNamespace(sum=lambda: SimpleNamespace(item=lambda: 2.0))
    monkeypatch.setattr("torch.ones", lambda n, device: two)
    assert look("Device") == Check("Device", OK, "CUDA, 2 x Test GPU, 24 GB")


def test_a_gpu_that_fails_can_be_hidden(monkeypatch, gpu):
    error = RuntimeError("no kernel image is available for execution on the device")
    monkeypatch.setattr("torch.ones", raising(error))
    check = look("Device")
    assert check.status == FIX
    assert "no kernel image" in check.text
    assert check.fix.endswith("CUDA_VISIBLE_DEVICES=-1")


@pytest.mark.parametrize(
    ("mps", "driver", "status", "says"),
    [
        (True, None, OK, "MPS"),
        (False, None, OK, "CPU"),
        (False, "nvidia-smi", NOTE, "NVIDIA driver"),
    ],
)
def test_devices_without_cuda(monkeypatch, mps, driver, status, says):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: mps)
    monkeypatch.setattr("shutil.which", lambda name: driver)
    check = look("Device")
    assert check.status == status
    assert says in check.text


def test_more_threads_than_cores(monkeypatch):
    monkeypatch.setattr("joblib.cpu_count", lambda: 2)
    monkeypatch.setattr("torch.get_num_threads", lambda: 64)
    check = look("Processor")
    assert check.status == NOTE
    assert "2 cores, torch uses 64 threads" in check.text
    assert check.fix.endswith("OMP_NUM_THREADS=2")
    monkeypatch.setattr("torch.get_num_threads", lambda: 2)
    assert look("Processor").status == OK


@pytest.mark.parametrize(
    ("limits", "status", "says"),
    [
        ({}, OK, "8.0 GB free"),
        ({"memory.max": "max", "memory.current": "400"}, OK, "8.0 GB free"),
        ({"memory.max": "4000000000", "memory.current": "1000000000"}, OK, "3.0 GB free"),
        ({"memory.max": "2000000000", "memory.current": "500000000"}, NOTE, "1.5 GB free"),
        ({"memory.max": "90000000000", "memory.current": "4000"}, OK, "8.0 GB free"),
    ],
)
def test_memory_is_what_the_system_and_the_container_leave(monkeypatch, limits, status, says):
    def read_text(path, encoding):
        if path.name not in limits:
            raise FileNotFoundError(path)
        return limits[path.name]

    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=8 * GB))
    monkeypatch.setattr("pathlib.Path.read_text", read_text)
    check = look("Memory")
    assert check.status == status
    assert says in check.text


@pytest.mark.parametrize(("free", "status"), [(0.1 * GB, FIX), (1 * GB, NOTE), (9 * GB, OK)])
def test_disk(monkeypatch, free, status):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10 * GB, 0, free))
    check = look("Disk")
    assert check.status == status
    assert check.fix == ("" if status == OK else "uv cache clean")


def test_data_missing_cut_short_or_empty(monkeypatch, tmp_path):
    import numpy as np

    from barlow_edu.storage.places import data_dir

    whole = (data_dir() / "garments.npz").read_bytes()
    monkeypatch.setenv("BARLOW_EDU_DATA", str(tmp_path))
    assert "FileNotFoundError" in look("Data").text
    path = tmp_path / "garments.npz"
    for content in (b"", whole[: len(whole) // 2], whole[:5000] + b"\0" * 500 + whole[5500:]):
        path.write_bytes(content)
        check = look("Data")
        assert (check.status, bool(check.fix)) == (FIX, True)
    np.savez(path, other=np.zeros(3))
    assert "train_images is not a file in the archive" in look("Data").text
    path.write_bytes(whole)
    assert look("Data").status == OK


def test_data_is_restored_by_git_or_by_a_new_install(monkeypatch, tmp_path):
    monkeypatch.setenv("BARLOW_EDU_DATA", str(tmp_path))
    monkeypatch.setattr(doctor, "__file__", str(tmp_path / "barlow_edu" / "doctor.py"))
    assert look("Data").fix.endswith("pip install -e .")
    (tmp_path / ".git").mkdir()
    assert look("Data").fix == "git checkout -- data"


def test_cifar_is_information(monkeypatch, tmp_path):
    monkeypatch.setenv("BARLOW_EDU_DATA", str(tmp_path))
    check = look("CIFAR-10")
    assert check.status == NOTE
    assert "load_images('cifar10')" in check.fix
    (tmp_path / "downloads" / "cifar-10-batches-py").mkdir(parents=True)
    assert look("CIFAR-10") == Check("CIFAR-10", OK, "downloaded")


def test_missing_notebook_packages(monkeypatch):
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    monkeypatch.setitem(sys.modules, "anywidget", None)
    check = look("Notebooks")
    assert check.status == FIX
    assert not check.training
    assert "missing or broken: ipywidgets, anywidget." in check.text
    assert "Training needs none of them" in check.text
    assert check.fix.endswith("install ipywidgets anywidget")


def test_jupyter_missing_altogether(monkeypatch):
    monkeypatch.setitem(sys.modules, "jupyter_client", None)
    check = look("Kernel")
    assert (check.status, check.training) == (FIX, False)
    assert "Training does not need it" in check.text
    assert check.fix.endswith("install ipykernel")


def kernel_of(monkeypatch, answer):
    method = "jupyter_client.kernelspec.KernelSpecManager.get_kernel_spec"
    monkeypatch.setattr(method, answer)
    return look("Kernel")


def kernel_running(monkeypatch, program):
    return kernel_of(
        monkeypatch, lambda self, name: SimpleNamespace(argv=[str(program), "-m"], resource_dir="")
    )


INSTALL_KERNEL = "python -m ipykernel install --sys-prefix"


def test_no_kernel(monkeypatch):
    from jupyter_client.kernelspec import NoSuchKernel

    check = kernel_of(monkeypatch, raising(NoSuchKernel("python3")))
    assert (check.status, check.fix) == (FIX, INSTALL_KERNEL)
    assert "python3" in check.text


def test_a_kernel_whose_python_is_gone(monkeypatch, tmp_path):
    check = kernel_running(monkeypatch, tmp_path / "gone" / "python")
    assert (check.status, check.fix) == (FIX, INSTALL_KERNEL)
    assert "does not start" in check.text


def test_a_kernel_of_another_environment(monkeypatch, tmp_path):
    venv.create(tmp_path / "other", with_pip=False)
    folder = "Scripts" if sys.platform == "win32" else "bin"
    monkeypatch.setenv("PYTHONPATH", "")
    check = kernel_running(monkeypatch, tmp_path / "other" / folder / "python")
    assert (check.status, check.fix) == (FIX, INSTALL_KERNEL)
    assert "has no barlow_edu" in check.text


def test_a_kernel_named_python_is_this_python(monkeypatch):
    check = kernel_running(monkeypatch, "python")
    assert check.status == OK
    assert sys.executable in check.text


def test_a_folder_that_cannot_be_written(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "TemporaryFile", raising(PermissionError("Permission denied")))
    check = look("Runs")
    assert check.status == FIX
    assert check.fix == f'chmod u+w "{tmp_path}"'


def test_the_check_of_the_folder_leaves_nothing_behind(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert look("Runs").status == OK
    assert list(tmp_path.iterdir()) == []


def test_install_commands_of_each_tool(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert doctor.install_command("torch") == "uv pip install torch"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    assert doctor.install_command("torch") == "python -m pip install torch"
    assert doctor.install_command("a", again=True) == "python -m pip install --force-reinstall a"
    (tmp_path / "conda-meta").mkdir()
    assert doctor.install_command("torch") == "conda install -c conda-forge pytorch"
    assert doctor.install_command(doctor.THIS_PACKAGE) == "python -m pip install -e ."
