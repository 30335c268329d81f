"""Runs that are killed, stopped, crowded or starved of disk, and resumed: they end as if nothing had happened.

python tests/test_resume.py --kills 20        # twenty kills at random steps of one run, told one by one
python tests/test_resume.py --kills 5 --two   # of one of two processes
"""

import argparse
import errno
import json
import logging
import multiprocessing
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
import zipfile
from pathlib import Path

if __name__ == "__main__":  # pytest finds the helpers by itself
    sys.path.insert(0, str(Path(__file__).parent / "helpers"))

import filelock
import interrupted
import pytest
import torch
from interrupted import LONG, STEPS, forgetful_encoder
from safetensors.torch import load_file
from tiny import CONFIG, tiny_encoder, tiny_images

import barlow_edu as be
from barlow_edu.storage import checkpoints
from barlow_edu.storage.files import DiskFull, FolderInUse
from barlow_edu.storage.interrupts import TrainingInterrupted
from barlow_edu.training import pretrain

# Processes of their own: forked from one that has nothing but the imports, or, on Windows, started afresh.
PROCESSES = multiprocessing.get_context("spawn" if sys.platform == "win32" else "forkserver")
PROCESSES.set_forkserver_preload(["torch", "torchvision", "barlow_edu.training"])


@pytest.fixture(scope="module", autouse=True)
def forgetful():
    """For this module alone: other tests count the encoders."""
    with forgetful_encoder():
        yield


def start(out, resume=False, die_at=None):
    """Begin a process that trains in ``out``."""
    arguments = (out, resume, told_by(out), die_at)
    process = PROCESSES.Process(target=interrupted.train, args=arguments, daemon=True)
    process.start()
    return process


def told_by(out):
    """Where its stderr goes."""
    return out.with_name(out.name + ".stderr")


def end(process, out):
    """Wait for its end: exit status, and what it told."""
    process.join()
    return process.exitcode, told_by(out).read_text()


def steps_written(out):
    """The last step that stands in metrics.jsonl."""
    try:
        lines = (out / "metrics.jsonl").read_text().splitlines()
    except FileNotFoundError:
        return 0
    return max([json.loads(x)["step"] for x in lines if x.endswith("}")], default=0)


def wait_for_step(process, out, step, seconds=200):
    limit = time.monotonic() + seconds
    while steps_written(out) < step and process.exitcode is None:
        assert time.monotonic() < limit, f"step {step} was not reached in {seconds} s"
        time.sleep(0.0005)


def kill_at(out, step, resume, rng):
    """Start, wait for a step, kill a little later. Returns how far it came, and its exit status."""
    process = start(out, resume)
    wait_for_step(process, out, step)
    time.sleep(rng.uniform(0, 0.01))
    process.kill()
    return end(process, out)[0], steps_written(out)


def finish(out):
    status, told = end(start(out, resume=True), out)
    assert status == 0, told


TIMES = ("images_per_second",)


def same(a, b):
    """What differs between two run folders: weights, optimizer and all, metrics but for times, snapshots."""
    different = []
    for name in ("encoder.safetensors", "projector.safetensors"):
        x, y = load_file(Path(a, name)), load_file(Path(b, name))
        different += [f"{name}: {k}" for k in x if not torch.equal(x[k], y[k])]
    x, y = (
        [{k: v for k, v in m.items() if k not in TIMES} for m in be.load_run(p).metrics]
        for p in (a, b)
    )
    different += ["metrics"] if x != y else []
    x, y = ({p.name: p.read_bytes() for p in Path(r, "snapshots").iterdir()} for r in (a, b))
    different += ["snapshots"] if x != y else []
    x, y = (checkpoints.read_checkpoint(Path(p)) for p in (a, b))
    for key in ("step", "config", "optimizer", "generator", "order_from"):
        different += [] if _equal(x[key], y[key]) else [f"checkpoint: {key}"]
    return different


def _equal(x, y):
    if isinstance(x, dict):
        return x.keys() == y.keys() and all(_equal(x[k], y[k]) for k in x)
    if isinstance(x, list):
        return len(x) == len(y) and all(map(_equal, x, y))
    return torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y


def start_two(out, resume):
    """Begin two processes that train as one in ``out``."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        places = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    both = []
    for rank in "01":
        place = places | {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2"}
        told = told_by(out.with_name(f"{out.name}-{rank}"))
        arguments = (out, resume, told, None, place)
        both.append(PROCESSES.Process(target=interrupted.train, args=arguments, daemon=True))
        both[-1].start()
    return both


def kill_one_of_two(out, step, resume, rng):
    """Start two, wait for a step, kill one a little later: the other ends, too, and says why."""
    both = start_two(out, resume)
    wait_for_step(both[0], out, step)
    time.sleep(rng.uniform(0, 0.01))
    victim = rng.randrange(2)
    both[victim].kill()
    for process in both:
        process.join(120)
    told = told_by(out.with_name(f"{out.name}-{1 - victim}")).read_text()
    assert "another of the 2 processes has ended" in told, told
    return both[victim].exitcode, steps_written(out)


def kill_and_resume(out, kills, rng, tell=lambda text: None, kill_at=kill_at):
    """Kill a run ``kills`` times at random steps, each time later on, and let it finish."""
    done = 0
    for i in range(kills):
        room = (STEPS - 5 - done) / (kills - i)
        status, done = kill_at(out, done + 1 + int(rng.uniform(0, room)), i > 0, rng)
        kept = checkpoints.read_checkpoint(out)["step"]
        assert status < 0 and done < STEPS, f"it was too quick: step {done}, status {status}"
        tell(f"kill {i + 1:2}: after step {done:3}, last checkpoint of step {kept:3}")
    if kill_at is kill_one_of_two:
        train_on_two(out, resume=True)
    else:
        finish(out)


def train_on_two(out, resume=False):
    both = start_two(out, resume)
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]


# kill -9


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What the child trains, undisturbed, in this process."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    pretrain(LONG, out, tiny_images(), progress=False)
    torch.set_num_threads(threads)
    return out


def test_killed_at_random_steps_and_resumed_it_ends_as_the_undisturbed_run(tmp_path, whole):
    kill_and_resume(tmp_path / "run", 5, random.Random(os.urandom(8)))
    assert same(tmp_path / "run", whole) == []


@pytest.mark.parametrize("point", interrupted.POINTS)
def test_killed_while_a_checkpoint_is_written(tmp_path, whole, point):
    out = tmp_path / "run"
    status, told = end(start(out, die_at=point), out)
    assert status == -interrupted.KILL or sys.platform == "win32", told
    assert steps_written(out) == 21  # checkpoints of steps 0, 7, 14, 21: in the fourth
    assert checkpoints.read_checkpoint(out)["step"] == (21 if point == "in place" else 14)
    finish(out)
    assert same(out, whole) == []
    assert not list(out.rglob("*.part"))


def test_other_weights_metrics_or_snapshots_would_be_seen(tmp_path, whole):
    with tiny_encoder():
        other = pretrain(LONG, tmp_path / "run", tiny_images(), progress=False, lr=0.0101)
    different = same(other.path, whole)
    assert "encoder.safetensors: body.0.weight" in different
    assert {"metrics", "snapshots", "checkpoint: optimizer"} <= set(different)


@pytest.mark.parametrize("joint", [False, True])
def test_the_small_residual_net_resumes_in_bfloat16(tmp_path, tiny, joint):
    """The package's own encoder, in the precision and layout of the recorded runs."""
    settings = {**CONFIG, "encoder": "small_resnet", "precision": "bfloat16", "channels_last": True}
    settings |= {"snapshots": 99, "joint_views": joint, "image_size": 32, "epochs": 1}
    images = tiny_images(size=32)
    whole = pretrain(settings, tmp_path / "whole", images, progress=False)
    stop = at(3, signal.raise_signal, signal.SIGINT)
    with pytest.raises(TrainingInterrupted, match="saved at step 3 of 5"):
        pretrain(settings, tmp_path / "run", images, progress=False, on_snapshot=stop)
    run = pretrain(settings, tmp_path / "run", images, progress=False, resume=True)
    assert same(run.path, whole.path) == []


def test_a_resumed_run_goes_on_with_the_threads_it_began_with(tmp_path, tiny):
    settings = {**CONFIG, "encoder": "small_resnet", "image_size": 32, "epochs": 1, "snapshots": 99}
    images = tiny_images(size=32)
    torch.set_num_threads(2)  # back to one by the fixture
    whole = pretrain(settings, tmp_path / "whole", images, progress=False)
    stop = at(3, signal.raise_signal, signal.SIGINT)
    with pytest.raises(TrainingInterrupted, match="saved at step 3 of 5"):
        pretrain(settings, tmp_path / "run", images, progress=False, on_snapshot=stop)
    torch.set_num_threads(1)
    run = pretrain(settings, tmp_path / "run", images, progress=False, resume=True)
    assert same(run.path, whole.path) == []
    assert run.environment["threads"] == 2 and torch.get_num_threads() == 1


# Ctrl-C and SIGTERM


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals to send")
@pytest.mark.parametrize("name, status", [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_signal_ends_the_step_saves_and_says_how_to_go_on(tmp_path, whole, name, status):
    out = tmp_path / "run"
    process = start(out)
    wait_for_step(process, out, 23)
    os.kill(process.pid, getattr(signal, name))
    found, told = end(process, out)
    assert found == status, told
    step = steps_written(out)
    assert 23 <= step < STEPS
    assert checkpoints.read_checkpoint(out)["step"] == step  # nothing is lost
    assert f"Stopped and saved at step {step} of {STEPS}. To go on: pretrain" in told
    assert f'--out "{out}" --resume' in told
    finish(out)
    assert same(out, whole) == []


@pytest.fixture
def tiny():
    with tiny_encoder():
        yield


def train(out, on_snapshot=None, **options):
    options = {"progress": False, "on_snapshot": on_snapshot, **options}
    return pretrain(CONFIG, out, tiny_images(), **options)


def at(step, act, *arguments):
    """A callback that acts once, at a step (of which there are snapshots)."""

    def on_snapshot(now, c):
        if now == step:
            act(*arguments)

    return on_snapshot


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_handlers_are_put_back_and_the_checkpoint_is_of_the_step(tmp_path, tiny, signum):
    before = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(KeyboardInterrupt, match="saved at step 4 of 10") as caught:
        train(tmp_path, at(4, signal.raise_signal, signum))
    assert caught.value.signum == signum
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == before
    assert checkpoints.read_checkpoint(tmp_path)["step"] == 4
    resumed = train(tmp_path, resume=True)
    assert [m["step"] for m in resumed.metrics] == [1, 2, 4, 6, 8, 10]
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_signal_in_the_last_step_lets_the_run_finish(tmp_path, tiny):
    run = train(tmp_path, at(10, signal.raise_signal, signal.SIGINT))
    assert (run.path / "encoder.safetensors").exists()


def test_a_second_ctrl_c_stops_at_once_if_it_is_meant(tmp_path, tiny, monkeypatch):
    def twice():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)  # right after the first: the same key

    with pytest.raises(TrainingInterrupted):
        train(tmp_path / "a", at(4, twice))
    monkeypatch.setattr("barlow_edu.storage.interrupts.IMPATIENCE", -1)
    with pytest.raises(KeyboardInterrupt) as caught:
        train(tmp_path / "b", at(4, twice))
    assert not isinstance(caught.value, TrainingInterrupted)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_ignored_signal_stays_ignored(tmp_path, tiny):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        train(tmp_path, at(4, signal.raise_signal, signal.SIGINT))
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_training_in_a_thread_leaves_signals_alone(tmp_path, tiny):
    seen = []
    look = at(4, lambda: seen.append(signal.getsignal(signal.SIGINT)))
    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=train, args=(tmp_path, look))
    thread.start()
    thread.join()
    assert seen == [before]
    assert (tmp_path / "encoder.safetensors").exists()


# damaged checkpoints


def cut(path):
    path.write_bytes(path.read_bytes()[:1000])


def empty(path):
    path.write_bytes(b"")


def flip(where):
    """Change one bit: the first of all, one in the middle of a record, or one in the archive's directory."""

    def damage(path):
        content = bytearray(path.read_bytes())
        with zipfile.ZipFile(path) as archive:
            directory = archive.start_dir
            places = {"first": 0, "checksum": directory + 16, "disk": directory + 35}
            for record in archive.infolist():
                start = content.find(archive.read(record), record.header_offset)
                places[record.filename.partition("/")[2]] = start + record.file_size // 2
        content[places[where]] ^= 1
        path.write_bytes(content)

    return damage


@pytest.fixture(scope="module")
def ten(tmp_path_factory):
    """A run of ten steps, undisturbed."""
    with tiny_encoder():
        return train(tmp_path_factory.mktemp("runs") / "ten")


@pytest.fixture(scope="module")
def four(tmp_path_factory):
    """The same run with a checkpoint at every step, stopped after the fourth."""
    out = tmp_path_factory.mktemp("runs") / "four"
    with tiny_encoder(), pytest.raises(TrainingInterrupted):
        train(out, at(4, signal.raise_signal, signal.SIGINT), checkpoint_every=1)
    return out


@pytest.fixture
def stopped(four, tmp_path, tiny):
    """A copy of it, to be damaged."""
    return shutil.copytree(four, tmp_path / "run")


DAMAGES = {"cut": cut, "empty": empty}
DAMAGES |= {f"a bit of {w}": flip(w) for w in ("first", "data.pkl", "data/0", "checksum", "disk")}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(stopped, ten, caplog, damage):
    out = stopped
    DAMAGES[damage](out / "checkpoint.pt")
    run = train(out, resume=True, checkpoint_every=3)
    assert [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING] == [
        f"{out / 'checkpoint.pt'} is damaged: its checksum is not right. "
        f"Going on from {out / 'checkpoint_previous.pt'}, step 3."
    ]
    assert _equal(run.load_model().state_dict(), ten.load_model().state_dict())
    # the damaged one is out of the way: it did not push out the good one
    assert (out / "checkpoint_damaged.pt").exists()
    assert [checkpoints._read(p, "cpu")["step"] for p in checkpoints.find_checkpoints(out)] == [
        10,
        9,
    ]


def test_with_both_damaged_both_are_named(stopped):
    cut(stopped / "checkpoint.pt")
    cut(stopped / "checkpoint_previous.pt")
    with pytest.raises(
        ValueError, match=r"checkpoint.pt is damaged.*checkpoint_previous.pt is dam"
    ):
        train(stopped, resume=True)


def test_a_checkpoint_is_read_by_torch_load_and_by_zip(ten, tiny):
    state = torch.load(ten.path / "checkpoint.pt", weights_only=True)
    assert _equal(state["model"], dict(ten.load_model().state_dict()))
    assert zipfile.ZipFile(ten.path / "checkpoint.pt").testzip() is None


def test_a_checkpoint_holds_tensors_and_no_code(tmp_path, tiny):
    class Bad:
        def __reduce__(self):
            return (print, ("executed",))

    checkpoints.write_checkpoint(tmp_path, {"step": Bad()})
    with pytest.raises(ValueError, match="checkpoint.pt is not a checkpoint of this version"):
        train(tmp_path, resume=True)


def test_other_images_are_refused_when_resuming(stopped):
    with pytest.raises(ValueError, match="started with images=.85 x 3 x 16 x 16, checksum"):
        pretrain(CONFIG, stopped, tiny_images(seed=1), resume=True, progress=False)
    with pytest.raises(ValueError, match="not .84 x 3 x 16 x 16"):
        pretrain(CONFIG, stopped, tiny_images(84), resume=True, progress=False)


def test_resuming_puts_the_old_weights_away(tmp_path, tiny):
    """A run made longer is not finished until it is."""
    train(tmp_path, epochs=1, snapshots=99)
    assert (tmp_path / "encoder.safetensors").exists()
    with pytest.raises(TrainingInterrupted):
        stop = at(7, signal.raise_signal, signal.SIGINT)
        train(tmp_path, stop, resume=True, epochs=2, snapshots=99)
    assert not list(tmp_path.glob("*.safetensors"))
    assert train(tmp_path, resume=True, epochs=2, snapshots=99).load_model()


# a full disk


def fill_up(bytes_left):
    """From now on no file may grow beyond this: the system refuses to write, as a full disk does."""
    import resource

    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_left, hard))


@pytest.fixture
def disk():
    """Give the space back afterwards."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, before)
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    "room, file", [(5000, "checkpoint.pt"), (300, "metrics.jsonl"), (20, "c_0000006.npy")]
)
def test_a_full_disk_is_told_and_nothing_is_lost(tmp_path, tiny, disk, room, file):
    """Full from step 5 on: the next line of metrics, snapshot or checkpoint does not fit."""
    options = {"snapshots": 99, "log_every": 7 if file == "c_0000006.npy" else 2}
    options |= {"checkpoint_every": 1 if file == "checkpoint.pt" else 4}
    whole = train(tmp_path / "whole", **options)
    out = tmp_path / "run"
    with pytest.raises(DiskFull) as caught:
        train(out, at(5, fill_up, room), **options)
    disk()  # space is freed
    told = str(caught.value)
    assert told.startswith("The disk is full: ") and f"{file} could not be written." in told
    assert "Free some space. To go on: pretrain(...) as before" in told
    assert not list(out.rglob("*.part"))
    lines = (out / "metrics.jsonl").read_text().splitlines()
    assert all(json.loads(line) for line in lines)  # whole lines only
    assert checkpoints.read_checkpoint(out)["step"] == 4
    run = train(out, resume=True, **options)
    assert same(run.path, whole.path) == []


def test_any_error_for_a_full_disk_is_told(tmp_path, tiny, monkeypatch):
    """Also where the system has no limit to set: the write itself fails."""

    def refuse(path, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    def fill():
        monkeypatch.setattr(Path, "write_bytes", refuse)

    with pytest.raises(DiskFull, match="The disk is full: .*checkpoint.pt could not be written"):
        train(tmp_path, at(4, fill))
    monkeypatch.undo()
    assert checkpoints.read_checkpoint(tmp_path)["step"] == 0
    assert train(tmp_path, resume=True).metrics[-1]["step"] == 10


# two processes


def test_a_second_process_on_the_folder_is_refused_until_the_first_is_gone(tmp_path, whole):
    out = tmp_path / "run"
    process = start(out)
    wait_for_step(process, out, 3)
    told = rf"Another process is training in .*{out.name}. Wait for it to end, or choose another"
    with pytest.raises(FolderInUse, match=told):
        pretrain(LONG, out, tiny_images(), resume=True, progress=False)
    with pytest.raises(FileExistsError, match="holds a run already"):
        pretrain(LONG, out, tiny_images(), progress=False)
    process.kill()
    end(process, out)
    assert steps_written(out) < STEPS
    finish(out)  # the lock went with the process
    assert same(out, whole) == []


def test_a_second_run_in_the_same_process_is_refused_too(tmp_path, tiny):
    def again():
        with pytest.raises(FolderInUse, match="Another process is training"):
            train(tmp_path, resume=True)

    assert train(tmp_path, at(4, again)).metrics[-1]["step"] == 10


def test_a_folder_begun_since_is_not_overwritten(tmp_path, tiny, monkeypatch):
    """The second look at the folder, once it is ours."""
    build = be.training.build_model

    def build_while_another_begins(*given, **options):
        (tmp_path / "config.yaml").write_text("theirs")
        return build(*given, **options)

    monkeypatch.setattr(be.training, "build_model", build_while_another_begins)
    with pytest.raises(FileExistsError, match="holds a run already"):
        train(tmp_path)
    assert (tmp_path / "config.yaml").read_text() == "theirs"


def test_a_file_system_without_locks_is_told(tmp_path, tiny, monkeypatch, caplog):
    def refuse(self, timeout):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    assert train(tmp_path).metrics[-1]["step"] == 10
    assert f"knows no locks: see to it that one process alone uses {tmp_path}" in caplog.text


# what is left over


def test_a_start_that_was_killed_early_can_be_resumed_or_begun_again(tmp_path, tiny, ten):
    """Before the first step there is a checkpoint already; before that one, no run."""
    with pytest.raises(ZeroDivisionError):
        train(tmp_path / "a", at(0, lambda: 1 / 0))
    assert same(train(tmp_path / "a", resume=True).path, ten.path) == []
    for name in ("metrics.jsonl", ".metrics.jsonl.1.part", "checkpoint_previous.pt"):
        (tmp_path / "b").mkdir(exist_ok=True)
        (tmp_path / "b" / name).write_text('{"step": 3, "loss": 1.0}\n')
    assert same(train(tmp_path / "b").path, ten.path) == []
    assert not list((tmp_path / "b").rglob("*.part"))


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument(
        "--seed", type=int, default=None, help="of the steps; default: another each time"
    )
    parser.add_argument("--two", action="store_true", help="two processes, of which one is killed")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else int.from_bytes(os.urandom(2))
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, forgetful_encoder():
        whole, killed = Path(folder, "whole"), Path(folder, "killed")
        if options.two:
            train_on_two(whole)
        else:
            pretrain(LONG, whole, tiny_images(), progress=False)
        told = be.load_run(whole).environment["precision"]
        print(f"{STEPS} steps, a checkpoint every {LONG['checkpoint_every']}, {told}, seed {seed}")
        kill = kill_one_of_two if options.two else kill_at
        kill_and_resume(killed, options.kills, random.Random(seed), print, kill)
        different = same(killed, whole)
    print("weights, optimizer, metrics, snapshots: " + (", ".join(different) or "bit-identical"))
    sys.exit(bool(different))


if __name__ == "__main__":
    main()
