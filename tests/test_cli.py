"""The command line: a round trip on a tiny tree, and one sentence for whatever is wrong."""

import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from string import Template

import pytest
import torch
import yaml
from PIL import Image
from tiny import CONFIG, write_tree

import barlow_edu as be
from barlow_edu import cli
from barlow_edu.config import settings_help
from barlow_edu.evaluation import features

pytestmark = pytest.mark.usefixtures("registered")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Default run folders go here."""
    monkeypatch.chdir(tmp_path)


def run(capsys, *arguments):
    """Exit status, output, errors (without the progress bar)."""
    status = cli.main([str(a) for a in arguments])
    told = capsys.readouterr()
    return status, told.out, told.err


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp("tree"))


@pytest.fixture(scope="module")
def config(tmp_path_factory, tree):
    path = tmp_path_factory.mktemp("config") / "mine.yaml"
    settings = {**CONFIG, "data": "folder", "root": str(tree), "epochs": 1, "name": "mine"}
    path.write_text(yaml.safe_dump(settings))
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory, config):
    """A run made by the command line."""
    out = tmp_path_factory.mktemp("runs") / "a"
    assert cli.main(["pretrain", str(config), "--out", str(out)]) == 0
    return out


# the round trip


def test_pretrain_tells_what_came_of_it_and_what_to_do_next(capsys, config, tmp_path):
    status, out, _ = run(capsys, "pretrain", config)
    assert status == 0
    folder = Path("runs") / "mine"
    last = be.load_run(folder).metrics[-1]
    assert out.splitlines() == [
        f"{folder}: loss {last['loss']:.2f} after 3 steps.",
        f"Next: python -m barlow_edu evaluate {folder}",
    ]


def test_pretrain_takes_minutes(capsys, config, tmp_path):
    status, _, _ = run(capsys, "pretrain", config, "--out", tmp_path, "--minutes", 0.02)
    assert status == 0 and be.load_run(tmp_path).config["minutes"] == 0.02


def test_evaluate_prints_a_table(capsys, trained):
    status, out, _ = run(capsys, "evaluate", trained, "--k", 5, "--temperature", 0.2)
    (head, columns, *rows), distances = (part.splitlines() for part in out.split("\n\n", 1))
    assert status == 0 and len(distances) >= 3  # of C to the identity
    assert head == ("folder: 48 training and 24 test images, kNN with k = 5, temperature 0.2")
    assert columns.split() == ["kNN", "linear", "eff.", "rank", "RankMe", "alpha"]
    assert [row.split("  ")[0] for row in rows] == ["pixels", "random encoder", "trained encoder"]
    assert all(row.count("%") == 2 for row in rows)


def test_evaluate_json_is_json_and_the_same(capsys, trained, tree):
    status, out, _ = run(capsys, "evaluate", trained, "--json", "--no-linear", "--save")
    assert status == 0
    found = json.loads(out)
    assert found == be.evaluate(be.load_run(trained), linear=False)
    assert found == json.loads((trained / "evaluation.json").read_text())
    wanted = {"knn", "effective_rank", "rankme", "alpha", "seeds"}
    assert set(found["rows"]["pixels"]) == wanted
    again = run(capsys, "evaluate", trained, "--json", "--no-linear", "--root", tree)
    assert json.loads(again[1]) == found  # the same images, of differing sizes, by their folder


def test_evaluate_with_few_labels_and_seeds(capsys, trained):
    options = ("--k", 5, "--few", 1, 2, "--seeds", 2)
    status, out, _ = run(capsys, "evaluate", trained, *options)
    assert status == 0 and "Linear probe, labels a class:" in out and "over 2 seeds" in out
    found = json.loads(run(capsys, "evaluate", trained, *options, "--json")[1])
    assert list(found["rows"]["pixels"]["few"]) == ["1", "2"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), {"few": (), "fine_tuning": (), "supervised": False, "seeds": 1}),
        (("--few", "--fine-tune", "--supervised"), {"few": (1, 5, 10, 100), "supervised": True,
                                                    "fine_tuning": (10, 100, "all")}),
        (("--fine-tune", 3, "all", "--supervised", 2), {"fine_tuning": [3, "all"], "supervised": 2}),
    ],
)  # fmt: skip
def test_what_evaluate_is_asked_for_reaches_it(capsys, trained, monkeypatch, options, expected):
    given = {}

    def spy(run, train, test, **options):
        given.update(options)
        raise ValueError("enough")

    monkeypatch.setattr(be.evaluation, "evaluate", spy)
    assert run(capsys, "evaluate", trained, *options)[0] == 2
    assert expected.items() <= given.items()


def test_evaluate_computes_on_the_device_that_is_asked_for(capsys, trained, tmp_path):
    """Not on the run's own, which may be another machine's."""
    run_folder = shutil.copytree(trained, tmp_path / "copy")
    text = (run_folder / "config.yaml").read_text()
    (run_folder / "config.yaml").write_text(text.replace("device: auto", "device: cuda:77"))
    assert "cuda:77" in run(capsys, "evaluate", run_folder, "--no-linear")[2]
    assert run(capsys, "evaluate", run_folder, "--no-linear", "--device", "cpu")[0] == 0


def test_a_terminal_without_the_characters_loses_no_result(trained, monkeypatch):
    """As a Windows console of code page 437, or one that is told nothing but ASCII."""
    out = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr(sys, "stdout", out)
    results = dict(be.load_run("garments_quick").evaluation)
    monkeypatch.setattr(be.evaluation, "evaluate", lambda *a, **k: results)
    monkeypatch.setattr(be.evaluation, "load_sets", lambda *a: (None, None))
    assert cli.main(["evaluate", str(trained)]) == 0
    out.flush()
    assert b"trained encoder" in out.buffer.getvalue()


def test_evaluate_on_other_images(capsys, trained, monkeypatch):
    def fifty(name, root, split, *_):
        return be.load_images(name, root, split, limit=50)

    for module in (be.config, features):
        monkeypatch.setattr(module, "load_images", fifty)
    arguments = ("--data", "garments", "--json", "--no-linear")
    found = json.loads(run(capsys, "evaluate", trained, *arguments)[1])
    assert (found["data"], found["train_images"]) == ("garments", 50)


def test_resume_goes_on_and_a_second_start_does_not(capsys, config, tmp_path):
    out = tmp_path / "run"
    assert run(capsys, "pretrain", config, "--out", out)[0] == 0
    status, _, err = run(capsys, "pretrain", config, "--out", out)
    assert status == 2 and "holds a run already" in err
    more = run(capsys, "pretrain", config, "--out", out, "--resume", "--set", "epochs=2")
    assert more[0] == 0 and "after 6 steps" in more[1]


def test_auto_resume_begins_and_goes_on(capsys, config, tmp_path):
    for epochs, steps in ((1, 3), (2, 6)):
        more = ("--auto-resume", "--set", f"epochs={epochs}")
        status, out, _ = run(capsys, "pretrain", config, "--out", tmp_path / "run", *more)
        assert status == 0 and f"after {steps} steps" in out


def test_record_keeps_a_run(capsys, trained, tmp_path, monkeypatch):
    monkeypatch.setenv("BARLOW_EDU_DATA", str(tmp_path))
    status, out, _ = run(capsys, "record", trained, "kept", "--no-weights")
    assert status == 0 and "kept" in out
    assert be.load_run("kept").metrics == be.load_run(trained).metrics


def test_the_module_can_be_run(tmp_path):
    """Everything as a user types it, in a process of its own: only what the package has."""
    for i in range(20):
        path = tmp_path / "tree" / ("train" if i < 16 else "test") / f"c{i % 2}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((16, 16), 60 + 60 * (i % 2)).save(path)
    settings = "data=folder root=tree image_size=16 batch_size=8 epochs=1 proj_dim=4 snapshots=0"
    start = [sys.executable, "-m", "barlow_edu", "pretrain", "garments_quick", "--out", "run"]
    done = subprocess.run(
        [*start, "--set", *settings.split()],
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "Next: python -m barlow_edu evaluate run" in done.stdout
    assert "step 2, epoch 1.00 of 1, loss" in done.stderr  # lines, where no terminal shows a bar


# settings


def test_settings_are_read_as_yaml(capsys, config, tmp_path):
    out = tmp_path / "run"
    local = "augment={scale: [[0.5, 1], [0.1, 0.5]]}"
    settings = ["lr=1e-3", "channels_last=true", "limit=null", local]
    more = ["name=other", "batch_size=12", "root=" + be.load_config(config)["root"]]
    status, _, err = run(
        capsys, "pretrain", config, "--out", out, "--set", *settings, "--set", *more
    )
    assert status == 0, err
    found = be.load_run(out).config
    assert (found["lr"], found["channels_last"], found["limit"]) == (0.001, True, None)
    assert found["augment"] == {"scale": [[0.5, 1], [0.1, 0.5]]}
    assert (found["name"], found["batch_size"]) == ("other", 12)


def test_every_setting_can_be_changed_by_set(capsys, config, tmp_path):
    """Also those whose name is an argument of pretrain."""
    status, _, err = run(
        capsys, "pretrain", config, "--set", "data=garments", "root=", "limit=32", "image_size=32"
    )
    assert status == 0, err
    assert be.load_run("runs/mine").environment["data"] == "garments"


# mistakes

P, E = "pretrain $CONFIG --set ", "evaluate $RUN --no-linear "
# A command line; what of it the answer names; what else one can do.
MISTAKES = [
    (P + "lr", "got 'lr'", "--set takes KEY=VALUE"),
    (P + "=3", "got '=3'", "--set takes KEY=VALUE"),
    (P + "lr=1 epochs=2 lr=2", "--set gives lr twice", "Give it once"),
    (P + "out=x", "setting out", "Known: name,"),
    (P + "resume=true", "setting resume", "Known: name,"),
    (P + "learning_rate=1", "setting learning_rate", "Known: name,"),
    (P + "lamda=0.1", "setting lamda", "Did you mean lambd?"),
    (P + "lr=fast", "got 'fast'", "lr must be a number of at least 1e-12"),
    (P + "lr=", "got ''", "lr must be a number of at least 1e-12"),
    (P + "lr=nan", "got nan", "lr must be a number of at least 1e-12"),
    (P + "limit=[1", "got '[1'", "a whole number of at least 1, or null"),
    (P + "epochs=0", "got 0", "epochs must be a whole number of at least 1"),
    (P + "epochs=1.5", "got 1.5", "epochs must be a whole number"),
    (P + "seed=-1", "got -1", "between 0 and"),
    (P + "epochs=" + "9" * 400, "epochs", "epochs must be a whole number"),
    (P + "snapshots=99999999999", "got 99999999999", "between 0 and 10000"),
    (P + "proj_dim=1000000000000", "not enough memory", "Take a smaller batch_size"),
    ("pretrain $MERGED", "$MERGED is not readable", "<< takes others in: write them out"),
    (P + "momentum=2", "got 2", "momentum must be a number between 0 and 1"),
    (P + "image_size=4", "got 4", "image_size must be a whole number of at least 8"),
    (P + "name=../../x", "got '../../x'", "name must be that of a folder"),
    (P + "encoder=resnet51", "No encoder 'resnet51'", "Choose one of small_resnet"),
    (P + "data=mnist", "got 'mnist'", "data must be one of garments"),
    (P + "method=moco", "got 'moco'", "method must be one of barlow_twins"),
    (P + "precision=float64", "got 'float64'", "one of auto, float32, bfloat16"),
    (P + "stream=maybe", "got 'maybe'", "one of auto, True, False"),
    (P + "device=abacus", "got 'abacus'", "auto, cpu, cuda"),
    (P + "device=cpu:5", "got 'cpu:5'", "auto, cpu, cuda"),
    (P + "data=hf:a/b", "data=hf:a/b takes no root, got", "give root=null"),
    (P + "data=garments limit=32", "garments take no root, got", "give data=folder"),
    (E + "--data garments --root nowhere", "got 'nowhere'", "give data=folder"),
    (P + "device=cuda:99", "device='cuda:99'", "Take 'auto' or 'cpu'"),
    (P + "'augment={hue'", "'{hue'", "is not YAML"),
    (P + "'augment={hue: 0.1, hue: 0.2}'", "hue is given twice", "is not YAML"),
    (P + "'augment={hew: 1}'", "augment.hew", "Did you mean hue?"),
    (P + "'augment={flip: 50}'", "got 50", "flip is a probability, between 0 and 1"),
    (P + "'augment={scale: [1, 0.5]}'", "got 1 and 0.5", "the smaller first"),
    (P + "'ablate={term: both}'", "ablate.term", "Did you mean terms?"),
    (P + "batch_size=1000", "batch_size=1000", "Take a smaller batch"),
    (P + "limit=1000", "got 1000", "limit must be between 1 and 48"),
    (P + "root=nowhere", "No folder nowhere", "looks like nowhere"),
    (P + "root=null", "needs root=", "a folder of split/class/image files"),
    (P + "stream=true data=garments", "data=garments", "set data=folder"),
    (P + "stream=false pipeline=per_image", "stream=False", "Set stream=auto"),
    (P + "micro_batch=4", "micro_batch=4", "checkpoint_activations"),
    ("pretrain nowhere", "No configuration 'nowhere'", "Give a YAML file or one of"),
    ("pretrain .", "No configuration '.'", "Give a YAML file or one of"),
    ("pretrain garments_quik", "'garments_quik'", "Did you mean garments_quick?"),
    ("pretrain $TWICE", "$TWICE is not readable", "lr is given twice"),
    ("pretrain $LIST", "$LIST is not readable", "'key: value' lines"),
    ("pretrain $CONFIG --resume", "Nothing to resume: runs", "Start with"),
    ("pretrain $CONFIG --resume --auto-resume", "--auto-resume", "not allowed with"),
    ("pretrain $CONFIG --out $RUN", "$RUN holds a run already", "--resume"),
    ("pretrain $CONFIG --out $LIST", "$LIST: File exists", "Check the path"),
    ("pretrain $CONFIG --out $RUN --resume --set lr=1", "started with lr=0.01", "another folder"),
    (E + "--k 0", "got 0 and 0.1", "k must be at least 1"),
    (E + "--k many", "'many'", "--k"),
    (E + "--temperature -1", "got 200 and -1.0", "temperature above 0"),
    (E + "--temperature nan", "got 200 and nan", "temperature above 0"),
    (E + "--data mnist", "No image set 'mnist'", "Choose one of garments"),
    (E + "--root nowhere", "No folder nowhere", "looks like nowhere"),
    (E + "--few 100", "got 100", "Labels a class must be between 1 and"),
    (E + "--seeds 0", "got 0", "seeds must be at least 1"),
    (E + "--supervised 0", "got 0", "at least 1 epoch"),
    (E + "--fine-tune some", "'some'", "neither a number nor 'all'"),
    (E + "--device abacus", "got 'abacus'", "auto, cpu, cuda"),
    (E + "--device cuda:77", "device='cuda:77'", "Take 'auto' or 'cpu'"),
    ("evaluate nowhere", "No run at 'nowhere'", "Recorded runs:"),
    ("evaluate garments_quik", "'garments_quik'", "Did you mean garments_quick?"),
    ("evaluate $BARE", "$BARE holds no encoder.safetensors", "Resume the run"),
    ("evaluate $BROKEN", "encoder.safetensors is damaged", "resume the run"),
    ("record nowhere name", "No run at 'nowhere'", "Recorded runs:"),
    ("record $RUN ../x", "got '../x'", "name must be that of a folder"),
    ("record $BARE name", "$BARE is not finished", "encoder.safetensors"),
    ("plan garments_quick --gpus 0", "got 0", "gpus must be a whole number of at least 1"),
    ("plan garments_wide --gpus 3", "batch_size=128", "Take 126 or 129"),
    ("plan garments_wide --images 10", "batch_size=128", "Take a smaller batch"),
    ("plan garments_quick --tflops 1 --images-per-second 1", "tflops", "not both"),
    ("plan garments_quick --set method=simclr", "'simclr'", "--set method=barlow_twins"),
    ("sweep ledger nowhere", "No folder nowhere", "holds records"),
    ("linear nowhere", "No run at 'nowhere'", "Recorded runs:"),
    ("linear $RUN --percent 0", "got 0", "percent must be above 0"),
    ("linear $RUN --root nowhere", "No folder nowhere", "looks like nowhere"),
    ("linear $LIST", "$LIST", "not a file of weights"),
    ("course run nowhere.ipynb", "nowhere.ipynb: No such file", "Check the path"),
    ("course student --out o --notebooks n", "No notebooks in ", "Run this in the repository"),
    ("dance", "'dance'", "choose from"),
    ("evaluate", "usage: python -m barlow_edu evaluate", "RUN"),
    ("course", "usage: python -m barlow_edu course", "BUILD"),
]


@pytest.fixture(scope="module")
def places(tmp_path_factory, config, trained):
    """What the command lines call by a name in capitals: whole, and damaged in some way."""
    folder = tmp_path_factory.mktemp("places")
    (folder / "twice.yaml").write_text("lr: 1\nlr: 2\n")
    (folder / "list.yaml").write_text("- lr\n")
    (folder / "merged.yaml").write_text("<<: {lr: 1}\n")
    for name in ("bare", "broken"):
        shutil.copytree(trained, folder / name)
        (folder / name / "encoder.safetensors").unlink()
    (folder / "broken" / "encoder.safetensors").write_bytes(bytes(99))
    names = {"CONFIG": config, "RUN": trained, "TWICE": folder / "twice.yaml"}
    names["MERGED"] = folder / "merged.yaml"
    return (
        names | {"LIST": folder / "list.yaml"} | {n.upper(): folder / n for n in ("bare", "broken")}
    )


@pytest.mark.parametrize(("line", "named", "remedy"), MISTAKES, ids=[line for line, *_ in MISTAKES])
def test_a_mistake_is_one_sentence_with_what_is_wrong_and_a_remedy(
    capsys, places, line, named, remedy
):
    line, named, remedy = (Template(text).substitute(places) for text in (line, named, remedy))
    try:
        status = cli.main(shlex.split(line))
    except SystemExit as stop:  # argparse
        status = stop.code
    out, err = capsys.readouterr()
    assert (status, out) == (2, "")
    assert named in err and remedy in err
    assert err.count("\n") == 1 or err.startswith("usage: ")
    assert not re.search(r"Traceback|\.(py|cc|cpp)\b|\[Errno", err)
    assert not Path("runs").exists()


# what is missing or impossible


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="the superuser may")
def test_a_folder_that_cannot_be_written_is_named(capsys, config, tmp_path):
    tmp_path.chmod(0o500)
    status, _, err = run(capsys, "pretrain", config, "--out", tmp_path / "run")
    tmp_path.chmod(0o700)
    assert status == 2 and "Permission denied" in err


def test_divergence_is_told(capsys, config, tmp_path):
    settings = ["lr=1e12", "optimizer=sgd", "epochs=3", "weight_decay=1", "log_every=1"]
    status, _, err = run(capsys, "pretrain", config, "--set", *settings)
    assert status == 2
    assert "barlow_edu: The loss is nan at step" in err and "Traceback" not in err


def test_an_error_that_nobody_thought_of_is_a_sentence_and_a_traceback_if_it_is_asked_for(
    capsys, monkeypatch, trained
):
    monkeypatch.setattr(be.runs, "load_run", {}.__getitem__)
    status, out, err = run(capsys, "evaluate", "x")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "KeyError: 'x'. The environment variable BARLOW_EDU_TRACEBACK=1 shows where." in err
    monkeypatch.setenv("BARLOW_EDU_TRACEBACK", "1")
    with pytest.raises(KeyError):
        cli.main(["evaluate", "x"])


def test_ctrl_c_is_no_traceback(capsys, monkeypatch, trained):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(be.runs, "load_run", interrupted)
    assert run(capsys, "evaluate", trained) == (130, "", "\nStopped.\n")


@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_stopped_training_says_how_to_go_on(capsys, config, tmp_path, monkeypatch, name, status):
    log, out = be.training.Loop._log, tmp_path / "run"

    def log_and_stop(loop, *arguments):
        log(loop, *arguments)
        if loop.state.step == 2:
            signal.raise_signal(getattr(signal, name))

    monkeypatch.setattr(be.training.Loop, "_log", log_and_stop)
    found, told, err = run(capsys, "pretrain", config, "--out", out)
    assert (found, told) == (status, "")
    assert "Stopped and saved at step 2 of 3. To go on:" in err and "Traceback" not in err
    [command] = re.findall(r"python -m barlow_edu (.*)$", err, re.MULTILINE)
    found, told, _ = run(capsys, *shlex.split(command))  # as it was told
    assert found == 0 and "after 3 steps" in told


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["--help"],
            ["doctor", "pretrain", "evaluate", "record", "plan", "linear", "sweep", "course"],
        ),
        (["--version"], [f"barlow_edu {be.__version__}"]),
        (["pretrain", "--help"], [settings_help(), "--auto-resume"]),
        *(
            ([command, "--help"], ["usage:"])
            for command in ("doctor", "evaluate", "record", "plan")
        ),
        *(
            ([command, "--help"], ["usage:"])
            for command in ("linear", "sweep", "course", "report", "export")
        ),
    ],
)
def test_every_command_explains_itself(capsys, arguments, words):
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    out = capsys.readouterr().out
    assert caught.value.code == 0 and all(word in out for word in words)


def test_what_is_not_installed_is_told(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "barlow_edu.training", None)
    status, out, err = run(capsys, "pretrain", "garments_quick")
    assert (status, out) == (2, "") and err.count("\n") == 1
    assert "barlow_edu.training" in err and "python -m barlow_edu doctor" in err


def test_the_doctors_verdict_is_the_exit_status(capsys, monkeypatch):
    monkeypatch.setattr(be.doctor, "run", lambda: print("ill") or 1)
    assert run(capsys, "doctor")[:2] == (1, "ill\n")


def test_the_weights_are_those_of_the_library(trained, config):
    """The command line and the function are one."""
    run = be.pretrain(str(config), "library", progress=False)
    ours, theirs = run.load_model().state_dict(), be.load_run(trained).load_model().state_dict()
    assert all(torch.equal(ours[k], theirs[k]) for k in ours)


def test_the_command_line_loads_nothing_that_may_be_missing():
    """So that ``doctor`` can say that torch or PyYAML is missing, and ``--help`` answers at once."""
    heavy = "{'torch', 'torchvision', 'numpy', 'yaml', 'tqdm', 'PIL', 'sklearn'}"
    code = f"import sys, barlow_edu.cli, barlow_edu.doctor; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "set()", done.stderr
