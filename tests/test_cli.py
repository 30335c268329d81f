"""The command line: a round trip on a tiny tree, and one sentence for whatever is wrong."""

import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from tiny import CONFIG, tiny_encoder, tiny_images, write_tree

import barlow_edu as be
from barlow_edu import cli
from barlow_edu.config import settings_help


@pytest.fixture(autouse=True, scope="module")
def registered():
    with tiny_encoder():
        yield


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
    head, columns, *rows = out.splitlines()
    assert status == 0
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

    def spy(run, **options):
        given.update(options)
        raise ValueError("enough")

    monkeypatch.setattr(be.evaluation, "evaluate", spy)
    assert run(capsys, "evaluate", trained, *options)[0] == 2
    assert expected.items() <= given.items()


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

    for module in (be.config, be.evaluation):
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
    assert "2/2" in done.stderr  # the progress bar


# settings


def test_settings_are_read_as_yaml(capsys, config, tmp_path):
    out = tmp_path / "run"
    settings = ["lr=1e-3", "channels_last=true", "limit=null", "augment={scale: [0.5, 1]}"]
    more = ["name=other", "batch_size=12", "root=" + be.load_config(config)["root"]]
    status, _, err = run(
        capsys, "pretrain", config, "--out", out, "--set", *settings, "--set", *more
    )
    assert status == 0, err
    found = be.load_run(out).config
    assert (found["lr"], found["channels_last"], found["limit"]) == (0.001, True, None)
    assert found["augment"] == {"scale": [0.5, 1]}
    assert (found["name"], found["batch_size"]) == ("other", 12)


def test_every_setting_can_be_changed_by_set(capsys, config, tmp_path):
    """Also those whose name is an argument of pretrain."""
    status, _, err = run(
        capsys, "pretrain", config, "--set", "data=garments", "limit=32", "image_size=32"
    )
    assert status == 0, err
    assert be.load_run("runs/mine").environment["data"] == "garments"


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("lr", "--set takes KEY=VALUE, got 'lr'."),
        ("=3", "--set takes KEY=VALUE, got '=3'."),
        ("limit=[1", "limit must be a whole number of at least 1, or null, got '[1'."),
        ("name=../../x", "name must be that of a folder"),
        ("out=x", "Unknown setting out. Known: name,"),
        ("config=x", "Unknown setting config."),
        ("resume=true", "Unknown setting resume."),
        ("learning_rate=1", "Unknown setting learning_rate."),
        ("lr=fast", "lr must be a number of at least 1e-12, got 'fast'."),
        ("augment={hue", "augment: '{hue' is not YAML"),
        ("lr=", "lr must be a number of at least 1e-12, got ''."),
        ("epochs=0", "epochs must be a whole number of at least 1, got 0."),
        ("encoder=resnet51", "encoder must be one of small_resnet"),
        ("batch_size=1000", "batch_size=1000 is more than the 48 images there are."),
        ("limit=1000", "limit must be between 1 and 48, got 1000."),
        ("root=nowhere", f"No folder {Path('nowhere') / 'train'}."),
        ("root=null", "load_images('folder') needs root="),
        ("device=abacus", "abacus"),
    ],
)
def test_a_setting_that_is_wrong_is_one_sentence(capsys, config, pair, message):
    status, out, err = run(capsys, "pretrain", config, "--set", pair)
    assert (status, out) == (2, "")
    assert err.startswith("barlow_edu: ") and message in err
    assert "Traceback" not in err and err.count("\n") == 1
    assert not Path("runs").exists()


# what is missing or impossible


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pretrain", "nowhere"], "No configuration 'nowhere'. Give a YAML file or one of"),
        (["pretrain", "."], "No configuration '.'."),
        (["evaluate", "nowhere"], "No run at 'nowhere'. Recorded runs:"),
        (["record", "nowhere", "name"], "No run at 'nowhere'."),
        (["pretrain", "garments_quick", "--resume"], "Nothing to resume:"),
        (["course", "run", "nowhere.ipynb"], "nowhere.ipynb"),
        (["course", "student", "--out", "o", "--notebooks", "n"], "No notebooks in n."),
    ],
)
def test_what_is_missing_is_named_in_one_sentence(capsys, arguments, message, monkeypatch):
    monkeypatch.setattr(
        be.training, "images_for", lambda config, images=None: tiny_images(300, size=32)
    )
    status, out, err = run(capsys, *arguments)
    assert (status, out) == (2, "")
    assert err.startswith("barlow_edu: ") and message in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--k", "0"], "k must be at least 1 and temperature above 0, got 0 and 0.1."),
        (["--temperature", "-1"], "got 200 and -1.0."),
        (["--data", "mnist"], "No image set 'mnist'."),
        (["--root", "nowhere"], "No folder"),
        (["--few", "100"], "Labels a class must be between 1 and"),
        (["--seeds", "0"], "seeds must be at least 1, got 0."),
    ],
)
def test_an_evaluation_that_cannot_be_is_one_sentence(capsys, trained, options, message):
    status, out, err = run(capsys, "evaluate", trained, "--no-linear", *options)
    assert (status, out) == (2, "")
    assert message in err and err.count("\n") == 1


def test_a_run_without_weights_is_told(capsys, trained, tmp_path):
    (tmp_path / "cut").mkdir()
    for name in ("config.yaml", "environment.json", "metrics.jsonl"):
        (tmp_path / "cut" / name).write_bytes((trained / name).read_bytes())
    status, _, err = run(capsys, "evaluate", tmp_path / "cut")
    assert status == 2 and "holds no encoder.safetensors" in err


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="the superuser may")
def test_a_folder_that_cannot_be_written_is_named(capsys, config, tmp_path):
    tmp_path.chmod(0o500)
    status, _, err = run(capsys, "pretrain", config, "--out", tmp_path / "run")
    tmp_path.chmod(0o700)
    assert status == 2 and "Permission denied" in err


def test_a_file_in_the_place_of_the_run_folder_is_named(capsys, config, tmp_path):
    (tmp_path / "file").write_text("")
    status, _, err = run(capsys, "pretrain", config, "--out", tmp_path / "file")
    assert status == 2 and str(tmp_path / "file") in err and err.count("\n") == 1


def test_divergence_is_told(capsys, config, tmp_path):
    settings = ["lr=1e12", "optimizer=sgd", "epochs=3", "weight_decay=1", "log_every=1"]
    status, _, err = run(capsys, "pretrain", config, "--set", *settings)
    assert status == 2
    assert "barlow_edu: The loss is nan at step" in err and "Traceback" not in err


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


@pytest.mark.parametrize("arguments", [[], ["dance"], ["pretrain"], ["evaluate"], ["course"]])
def test_usage_is_shown_when_a_command_is_not_whole(capsys, arguments):
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    assert "usage: python -m barlow_edu" in capsys.readouterr().err


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
        *(([command, "--help"], ["usage:"]) for command in ("linear", "sweep", "course")),
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


def test_labels_are_a_number_or_all(capsys):
    with pytest.raises(SystemExit):
        cli.main(["evaluate", "run", "--fine-tune", "some"])
    assert "'some' is neither a number nor 'all'" in capsys.readouterr().err


def test_the_doctors_verdict_is_the_exit_status(capsys, monkeypatch):
    monkeypatch.setattr(be.doctor, "run", lambda out: print("ill", file=out) or 1)
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
