"""Training in several processes: shared, killed, told to stop, requeued; and memory saved without a trace."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny import CONFIG, TinyEncoder, tiny_encoder, tiny_images
from together import KILLED, STEPS, TOGETHER, TOLD
from torch import nn

from barlow_edu.config import Schedule, build_model, load_config
from barlow_edu.models import BarlowTwinsModel
from barlow_edu.numerics import distributed
from barlow_edu.numerics.devices import Computer
from barlow_edu.numerics.recompute import save_memory
from barlow_edu.scale.planner import MemoryMeter
from barlow_edu.scale.processes import run_processes
from barlow_edu.state import TrainingState
from barlow_edu.storage.checkpoints import read_checkpoint
from barlow_edu.storage.interrupts import TrainingInterrupted
from barlow_edu.training import pretrain

HERE = Path(__file__).parents[1] / "helpers"
TORCHRUN = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--max-restarts", "1"]
TORCHRUN += [
    "--rdzv-backend",
    "c10d",
    "--rdzv-endpoint",
    "127.0.0.1:0",
    "--local-addr",
    "127.0.0.1",
]
posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")


@pytest.fixture
def tiny():
    with tiny_encoder():
        yield


def at(step, signum):
    """A callback that sends a signal once, at a step (of which there are snapshots)."""
    return lambda now, c: signal.raise_signal(signum) if now == step else None


def weights(run):
    found = [load_file(run / f"{name}.safetensors") for name in ("encoder", "projector")]
    return {f"{i} {k}": v for i, part in enumerate(found) for k, v in part.items()}


@posix
def test_one_process_then_two_of_which_one_is_killed_and_one_told_then_one_again(tmp_path, tiny):
    """torchrun starts the killed process again; the end is that of a run that one process does undisturbed."""
    whole = pretrain(TOGETHER, tmp_path / "whole", tiny_images(), progress=False)
    out = tmp_path / "run"
    with pytest.raises(TrainingInterrupted, match="saved at step 12 of 40"):
        pretrain(TOGETHER, out, tiny_images(), False, False, at(12, signal.SIGINT))
    command = [sys.executable, *TORCHRUN, str(HERE / "together.py"), str(out)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=900)
    told = done.stdout + done.stderr
    assert done.returncode == 1, told  # stopped, not finished
    assert "exitcode: -9" in told, told  # torchrun saw the first one die
    for rank in (0, 1):  # one was told, both stopped
        assert f"process {rank}: Stopped and saved at step {TOLD} of {STEPS}" in told, told
    assert read_checkpoint(out)["step"] == TOLD
    run = pretrain(TOGETHER, out, tiny_images(), resume=True, progress=False)
    assert [m["step"] for m in run.metrics] == list(range(1, STEPS + 1))
    assert run.snapshots.keys() == whole.snapshots.keys()
    for m, expected in zip(run.metrics, whole.metrics, strict=True):
        assert m["loss"] == pytest.approx(expected["loss"], rel=1e-3)
    expected = weights(whole.path)
    for name, value in weights(run.path).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-3, atol=1e-4, msg=name)
    moved = weights(whole.path)["0 body.0.weight"] - TinyStart.weight()
    assert moved.abs().max() > 1e-2
    assert KILLED < TOLD


class TinyStart:
    """The tiny encoder as a run begins with it."""

    @staticmethod
    def weight():
        return build_model(load_config(TOGETHER)).encoder.body[0].weight.detach()


def shared_run(out, taken):
    """In a process group: what is refused in all processes, and a run of the same epoch."""
    told = []
    with tiny_encoder():
        for change, folder in (({"batch_size": 15}, out), ({}, taken), ({"lr": -1.0}, out)):
            try:
                pretrain(CONFIG, folder, tiny_images(), progress=False, **change)
            except (ValueError, FileExistsError) as error:
                told.append(str(error))
        seen = []
        run = pretrain(
            CONFIG,
            out,
            tiny_images(),
            progress=False,
            on_snapshot=lambda s, c: seen.append(s),
            epochs=1,
        )
        last = run.metrics[-1]
        try:
            pretrain(CONFIG, out, tiny_images(), progress=False, resume=True, epochs=1, lr=0.5)
        except ValueError as error:
            told.append(str(error))
    return told, seen, last["loss"], run.environment.get("processes")


def test_processes_share_a_run_and_its_errors(tmp_path, tiny):
    taken = tmp_path / "taken"
    alone = pretrain(CONFIG, taken, tiny_images(), progress=False, epochs=1)
    first, second = run_processes(shared_run, 2, tmp_path / "run", taken)
    assert first[0] == second[0] and len(first[0]) == 4
    assert "batch_size=15 is that of all 2 processes together" in first[0][0]
    assert "Take 14 or 16" in first[0][0]
    assert "holds a run already" in first[0][1]
    assert "lr must be a number of at least" in first[0][2]
    assert "was started with lr=0.01, not 0.5" in first[0][3]
    assert first[1] == sorted(alone.snapshots) and second[1] == []  # process 0 alone is called back
    assert first[2] == second[2] == pytest.approx(alone.metrics[-1]["loss"], rel=1e-3)
    assert first[3] == 2 and "processes" not in alone.environment


def test_a_batch_that_cannot_be_shared_names_its_neighbours(tiny):
    config = load_config(CONFIG, batch_size=3)
    with pytest.raises(ValueError, match="all 8 processes together .* Take 8.$"):
        Schedule.of(config, 80, 8)
    assert Schedule.of(load_config(CONFIG), 85, 4) == Schedule.of(load_config(CONFIG), 85)


# --- SLURM --------------------------------------------------------------------------------------


def stub(folder, name, body):
    """A shell script that stands for a program."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{body}\n")
    (folder / name).chmod(0o755)


@posix
@pytest.mark.parametrize("works", [True, False])
def test_sigusr1_saves_and_requeues_the_job(tmp_path, tiny, monkeypatch, caplog, works):
    stub(tmp_path / "bin", "scontrol", f'echo "$*" >> "{tmp_path}/log"; exit {int(not works)}')
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    out = tmp_path / "run"
    told = "Job 4711 is requeued" if works else "To go on: pretrain"
    with pytest.raises(TrainingInterrupted, match=f"saved at step 4 of 10. {told}") as caught:
        pretrain(CONFIG, out, tiny_images(), "auto", False, at(4, signal.SIGUSR1))
    assert caught.value.signum == signal.SIGUSR1
    assert (tmp_path / "log").read_text() == "requeue 4711\n"
    assert ("Job 4711 could not be requeued" in caplog.text) != works
    # It is started again, with the same command: and goes on.
    run = pretrain(CONFIG, out, tiny_images(), "auto", False)
    assert [m["step"] for m in run.metrics] == [1, 2, 4, 6, 8, 10]


@posix
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGUSR1])
def test_nothing_is_requeued_by_sigterm_or_outside_slurm(tmp_path, tiny, monkeypatch, signum):
    stub(tmp_path / "bin", "scontrol", f'echo "$*" >> "{tmp_path}/log"')
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    if signum == signal.SIGTERM:  # SLURM requeues what it preempts itself
        monkeypatch.setenv("SLURM_JOB_ID", "4711")
    with pytest.raises(TrainingInterrupted, match="To go on: pretrain"):
        pretrain(CONFIG, tmp_path / "run", tiny_images(), False, False, at(4, signum))
    assert not (tmp_path / "log").exists()


@posix
def test_the_slurm_script_starts_every_process_as_torchrun_would(tmp_path):
    """With stubs for SLURM's programs and for Python."""
    folder = tmp_path / "bin"
    stub(folder, "scontrol", "printf 'node1\\nnode2\\n'")
    stub(
        folder,
        "srun",
        'shift; for i in 0 3; do SLURM_PROCID=$i SLURM_LOCALID=$((i % 2)) "$@"; done',
    )
    said = "$RANK $LOCAL_RANK $WORLD_SIZE $LOCAL_WORLD_SIZE $MASTER_ADDR $MASTER_PORT"
    stub(folder, "python", f'echo "{said} | $*"')
    environment = {
        "PATH": f"{folder}:{os.environ['PATH']}",
        "SLURM_JOB_ID": "4711",
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_NTASKS": "4",
        "SLURM_NNODES": "2",
    }
    script = HERE.parents[1] / "barlow_edu" / "configs" / "slurm.sh"
    command = ["bash", script, "imagenet_resnet50", "--set", "epochs=3"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    call = (
        "-m barlow_edu pretrain imagenet_resnet50 --out runs/imagenet_resnet50-4711 --auto-resume"
    )
    assert done.stdout.splitlines() == [
        f"0 0 4 2 node1 24711 | {call} --set epochs=3",
        f"3 1 4 2 node1 24711 | {call} --set epochs=3",
    ], done.stderr
    assert subprocess.run(["bash", script], env=environment, capture_output=True).returncode == 1


def test_auto_resume_begins_where_there_is_nothing_and_refuses_what_is_no_run(tmp_path, tiny):
    with pytest.raises(ValueError, match="resume must be True, False or 'auto', got 'always'"):
        pretrain(CONFIG, tmp_path, tiny_images(), "always", False)
    (tmp_path / "config.yaml").write_text("name: recorded\n")  # without a checkpoint
    with pytest.raises(FileExistsError, match="holds a run already"):
        pretrain(CONFIG, tmp_path, tiny_images(), "auto", False)


# --- memory -------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("encoder", ["small_resnet", "tiny"])
def test_activations_computed_again_change_nothing(tmp_path, tiny, encoder, precision):
    settings = {**CONFIG, "encoder": encoder, "precision": precision, "epochs": 1}
    images, found = tiny_images(), {}
    for again in (False, True):
        out = tmp_path / str(again)
        run = pretrain(settings, out, images, False, False, checkpoint_activations=again)
        found[again] = weights(run.path)
    assert any("running_mean" in name for name in found[True])
    for name, value in found[True].items():
        assert torch.equal(value, found[False][name]), name


def one_step(config, dtype):
    """The gradients of one step, and the peak of memory."""
    torch.manual_seed(0)
    model = BarlowTwinsModel({k: config[k] for k in ("encoder", "stem", "image_size", "proj_dim")})
    model.to(dtype)
    save_memory(model, config)
    side = config["image_size"]
    views = torch.randn(2, 12, 3, side, side, dtype=dtype)
    with MemoryMeter() as meter:
        model(*views)[0].backward()
    buffers = dict(model.named_buffers())
    return {n: p.grad for n, p in model.named_parameters()}, buffers, meter.peak


def test_less_memory_and_the_same_gradients():
    config = load_config(encoder="small_resnet", proj_dim=16)
    plain, buffers, most = one_step(config, torch.float64)
    again, kept, less = one_step(config | {"checkpoint_activations": True}, torch.float64)
    assert less < 0.85 * most  # weights and their gradients are in both
    assert plain.keys() == again.keys() and all(torch.equal(plain[k], again[k]) for k in plain)
    assert all(torch.equal(buffers[k], kept[k]) for k in buffers)
    assert {int(v) for k, v in kept.items() if "tracked" in k} == {2}  # once a view


def test_a_batch_in_parts_has_the_gradients_of_the_whole():
    """A vision transformer has no batch norm in it; the projector's sees the whole batch."""
    config = load_config(encoder="vit_tiny", proj_dim=16, image_size=16)
    plain, buffers, most = one_step(config, torch.float64)
    parts, kept, less = one_step(config | {"micro_batch": 5}, torch.float64)  # 5, 5 and 2 images
    assert less < 0.65 * most
    for name, value in plain.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-9, atol=1e-9, msg=name)
    assert max(v.abs().max() for v in plain.values()) > 0.01
    assert all(torch.allclose(buffers[k].double(), kept[k].double()) for k in buffers)


def test_what_cannot_be_exact_is_refused_with_a_reason(tiny):
    for change, told in (
        ({"micro_batch": 8}, "micro_batch=8 cannot be exact with encoder=tiny: its batch norm"),
        ({"checkpoint_activations": True, "compile": True}, "Set compile=False"),
    ):
        config = load_config(CONFIG, **change)
        with pytest.raises(ValueError, match=told):
            TrainingState(config, build_model(config), Computer.choose(config), "")
    model = nn.Module()
    model.encoder = TinyEncoder()
    save_memory(model, load_config(CONFIG))  # nothing asked for, nothing done
    assert "forward" not in vars(model.encoder)
    assert distributed.world_size() == 1
