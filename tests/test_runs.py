"""Run folders: found by path or name, read lazily, recorded in little space."""

import io
import json
import re
import shutil

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from tiny import CONFIG, tiny_images, write_tree

import barlow_edu as be
from barlow_edu.config import SETTINGS
from barlow_edu.runs import ALWAYS, record
from barlow_edu.storage.files import write_json
from barlow_edu.storage.run_folder import RunWriter
from barlow_edu.storage.weights import write_weights
from barlow_edu.training import pretrain

pytestmark = pytest.mark.usefixtures("registered")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return pretrain(CONFIG, tmp_path_factory.mktemp("runs") / "a", tiny_images(), progress=False)


@pytest.fixture
def records(tmp_path, monkeypatch):
    """An empty data folder."""
    monkeypatch.setenv("BARLOW_EDU_DATA", str(tmp_path))
    return tmp_path / "runs"


def test_a_run_is_found_by_path_and_by_name(run, records):
    assert be.load_run(str(run.path)).config == run.config
    record(run, "kept")
    assert be.load_run("kept").config == run.config
    assert repr(be.load_run("kept")) == "Run('kept')"


def test_the_best_run_on_some_images_is_found_by_what_it_scored(run, records):
    for name, label, knn in (
        ("a", "x", 0.4),
        ("b", "x (copy)", 0.6),
        ("c", "x-100", 0.9),
        ("d", "x", 0.5),
    ):
        path = record(run, name).path
        write_json(path / "environment.json", {"data": label})
        write_json(path / "evaluation.json", {"rows": {"trained encoder": {"knn": knn}}})
    record(run, "not_evaluated")
    other = {"transfer": {"z": {"rows": {"trained encoder": {"knn": 0.99}}}}}
    path = record(run, "on_other_images_alone").path
    write_json(path / "environment.json", {"data": "x"})
    write_json(path / "evaluation.json", other)
    assert be.best_run("x").path.name == "b"
    assert be.best_run("x-100").path.name == "c"
    with pytest.raises(FileNotFoundError, match=r"No recorded run on 'y'.* x \(copy\)"):
        be.best_run("y")


def test_a_missing_run_names_those_that_are_there(run, records):
    with pytest.raises(FileNotFoundError, match="No run at 'nowhere'. Recorded runs: none."):
        be.load_run("nowhere")
    record(run, "first")
    record(run, "second")
    with pytest.raises(FileNotFoundError, match="Recorded runs: first, second."):
        be.load_run("nowhere")


@pytest.mark.parametrize("file", ["config.yaml", "projector.safetensors"])
def test_a_run_that_cannot_be_recorded_leaves_nothing_behind(run, records, tmp_path, file):
    damaged = be.load_run(shutil.copytree(run.path, tmp_path / "damaged"))
    (damaged.path / file).write_bytes(b"a: [")
    with pytest.raises(ValueError, match=f"{file} is damaged"):
        record(damaged, "other")
    assert list(records.iterdir()) == []


def test_a_record_cut_short_is_none(run, records):
    kept = record(run, "whole")
    (kept.path / "evaluation.json").write_text(
        json.dumps({"rows": {"trained encoder": {"knn": 0.5}}})
    )
    kept.path.rename(records / ".whole.part")  # as a crash leaves it
    with pytest.raises(FileNotFoundError, match="No run at 'nowhere'. Recorded runs: none."):
        be.load_run("nowhere")
    with pytest.raises(FileNotFoundError, match="No recorded run on"):
        be.best_run(run.environment["data"])


def test_a_record_holds_everything_but_the_checkpoint(run, records):
    (run.path / "wandb_id").write_text("an account's")
    kept = record(run, "kept")
    assert kept.path == records / "kept"
    names = {p.name for p in run.path.iterdir()}
    not_kept = {"checkpoint.pt", "checkpoint_previous.pt", ".lock", "wandb_id"}
    assert names > {"checkpoint.pt", "checkpoint_previous.pt"}
    assert {p.name for p in kept.path.iterdir()} == names - not_kept
    assert kept.metrics == run.metrics and kept.environment == run.environment
    assert all(np.array_equal(c, run.snapshots[step]) for step, c in kept.snapshots.items())
    size = (kept.path / "encoder.safetensors").stat().st_size
    assert size < (run.path / "encoder.safetensors").stat().st_size
    assert [p.name for p in records.iterdir()] == ["kept"]  # and nothing half done


def test_recorded_weights_are_halved_and_still_give_the_features(run, records):
    model, kept = run.load_model(), record(run, "kept").load_model()
    assert all(p.dtype == torch.float32 for p in kept.parameters())
    x = run.views().normalize(tiny_images(20).images)
    torch.testing.assert_close(kept.embed(x), model.embed(x), rtol=0.02, atol=0.02)


def test_a_record_without_weights_says_so_when_they_are_asked_for(run, records):
    kept = record(run, "kept", without_weights=True)
    assert kept.load_model(weights=False) is not None
    with pytest.raises(FileNotFoundError, match="holds no encoder.safetensors"):
        kept.load_model()


def test_records_are_not_overwritten_and_must_be_finished(run, records, tmp_path):
    record(run, "kept")
    with pytest.raises(FileExistsError, match="kept exists. Remove it first"):
        record(run, "kept")
    for name in ("../kept", ".hidden", "", "a\nb", "a\0b", " "):
        with pytest.raises(ValueError, match=f"^name must be .*, got {re.escape(repr(name))}"):
            record(run, name)
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "unfinished" / "config.yaml").write_text("{}")
    with pytest.raises(ValueError, match="is not finished: it holds no encoder.safetensors"):
        record(be.load_run(tmp_path / "unfinished"), "other")
    assert [p.name for p in records.iterdir()] == ["kept"]


def test_a_run_is_read_when_it_is_asked_for(tmp_path):
    run = be.Run(tmp_path)  # nothing is there yet
    writer = RunWriter(tmp_path)
    writer.metrics(1, {"loss": 1 / 3})
    writer.snapshot(1, torch.eye(2))
    write_json(tmp_path / "evaluation.json", {"k": 5})
    assert run.metrics == [{"step": 1, "loss": 0.333333}]
    assert run.snapshots[1].tolist() == [[1, 0], [0, 1]]
    assert run.evaluation == {"k": 5}
    assert be.Run(tmp_path / "elsewhere").evaluation == {}


def test_rewinding_drops_what_came_after(tmp_path):
    writer = RunWriter(tmp_path)
    for step in (0, 5, 10):
        writer.metrics(step, {"loss": 1.0})
        writer.snapshot(step, torch.zeros(2, 2))
    writer.rewind(5)
    run = be.Run(tmp_path)
    assert [m["step"] for m in run.metrics] == [0, 5]
    assert sorted(run.snapshots) == [0, 5]
    RunWriter(tmp_path / "empty").rewind(5)


def test_no_metrics_no_history(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("")
    steps, values = be.Run(tmp_path).history("loss")
    assert len(steps) == len(values) == 0


def test_metrics_are_valid_json_lines(run):
    for line in (run.path / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=lambda c: pytest.fail(f"{c} is not JSON"))


def array(shape):
    """An array's head of that shape, and the content of a small one."""
    file = io.BytesIO()
    about = {"descr": "<f2", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, about)
    return file.getvalue() + bytes(6)


def zipped():
    file = io.BytesIO()
    np.savez(file, np.eye(2))
    return file.getvalue()


zipped = zipped()
# File, what it holds (None: it is a folder), what of a run asks for it, and what is said after the file's name.
DAMAGES = {
    "not yaml": ("config.yaml", b"a: [", "config", "is damaged: while parsing"),
    "empty": ("config.yaml", b"", "config", "is damaged: "),
    "words": ("config.yaml", b"just words", "config", "is damaged: "),
    "zeros": ("config.yaml", bytes(99), "config", "is damaged: "),
    "no limit": (
        "config.yaml",
        b"data: garments",
        "config",
        "is damaged: root, limit, .* is missing. Add",
    ),
    "too deep": ("config.yaml", b"[" * 9999, "config", "is damaged: maximum recursion depth"),
    "no json": ("environment.json", b'{"a": ', "environment", "is damaged: "),
    "deep json": ("environment.json", b"[" * 99999, "environment", "is damaged: "),
    "a number": ("environment.json", b'{"data": 5}', "environment", "is damaged: data is 5. Mend"),
    "no root": (
        "environment.json",
        b'{"data": "x", "root": []}',
        "environment",
        r"is damaged: root is \[\]. Mend",
    ),
    "no rows": ("evaluation.json", b'{"rows": null}', "evaluation", "is damaged: rows is None. M"),
    "a zip": ("snapshots/c_0000004.npy", zipped, "snapshots", "is damaged: .* Remove it"),
    "a vector": ("snapshots/c_0000004.npy", array((3,)), "snapshots", "is damaged: .* no square"),
    "nothing": ("snapshots/c_0000004.npy", array((0, 0)), "snapshots", "is damaged: .* no square"),
    "endless": ("snapshots/c_0000004.npy", array((9**9, 9**9)), "snapshots", "is damaged: .* Remo"),
    "text logged": (
        "metrics.jsonl",
        b'{"step": 1, "loss": "x"}\n{"step": 2, "loss": 1}\n',
        "metrics",
        "is damaged in line 1. Resume",
    ),
    "a step that is none": (
        "metrics.jsonl",
        b'{"step": true}\n{"step": 2}\n',
        "metrics",
        "is damaged in line 1. Resume",
    ),
    "brackets logged": (
        "metrics.jsonl",
        b'{"step": ' + b"[" * 99999 + b'\n{"step": 2}\n',
        "metrics",
        "is damaged in line 1. Resume",
    ),
    "a folder of weights": ("encoder.safetensors", None, "model", "is damaged: "),
    "null": ("environment.json", b"null", "environment", "is damaged: data is missing. Add it by"),
    "no data": ("environment.json", b"{}", "environment", "is damaged: data is missing. Add it by"),
    "a list": ("evaluation.json", b"[1]", "evaluation", "is damaged: everything is missing"),
    "half": ("evaluation.json", b'{"a": ', "evaluation", "is damaged: "),
    "empty snapshot": ("snapshots/c_0000004.npy", b"", "snapshots", "is damaged: .* Remove it"),
    "no snapshot": ("snapshots/c_0000004.npy", b"words", "snapshots", "is damaged: .* Remove it"),
    "a block of zeros": (
        "metrics.jsonl",
        b'{"step": 1}\n' + bytes(4096) + b'\n{"step": 3}\n',
        "metrics",
        "is damaged in line 2. Resume",
    ),
    "no weights": ("encoder.safetensors", b"words", "model", "is damaged: "),
    "no projector": ("projector.safetensors", b"", "model", "is damaged: "),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_named_with_what_to_do(run, records, damage):
    file, content, part, told = DAMAGES[damage]
    kept = record(run, "damaged")
    if content is None:
        (kept.path / file).unlink()
        (kept.path / file).mkdir()
    else:
        (kept.path / file).write_bytes(content)
    with pytest.raises(ValueError, match=f"^[^\n]*{file} {told}[^\n]*$"):
        be.load_run(kept.path).load_model() if part == "model" else getattr(kept, part)


WRONG = {int: "many", float: "much", str: [1], dict: "word", object: {"a": 1}}


@pytest.mark.parametrize("name", sorted(SETTINGS.keys() - {"encoder"}))
def test_a_setting_that_cannot_be_is_damage_and_one_that_is_not_there_has_its_default(
    run, records, name
):
    kept = record(run, "kept")
    path, config = kept.path / "config.yaml", dict(kept.config)
    config[name] = WRONG[SETTINGS[name].kind]
    path.write_text(yaml.safe_dump(config))
    with pytest.raises(ValueError, match=f"^[^\n]*config.yaml is damaged: {name} [^\n]*$"):
        be.load_run(kept.path).config  # noqa: B018
    del config[name]
    path.write_text(yaml.safe_dump(config))
    if name in ALWAYS:
        with pytest.raises(ValueError, match=f"config.yaml is damaged: {name} is missing"):
            be.load_run(kept.path).config  # noqa: B018
    else:
        assert be.load_run(kept.path).config[name] == SETTINGS[name].default


@pytest.mark.parametrize("name", ["c_x.npy", "c_.npy", "c_0000004 (1).npy", "c_0000004-copy.npy"])
def test_copies_that_other_programs_leave_are_no_snapshots(run, records, name):
    """A disk that is shared writes such names where two have changed a file."""
    kept = record(run, "kept")
    before = sorted(kept.snapshots)
    (kept.path / "snapshots" / name).write_bytes(b"x")
    assert sorted(be.load_run(kept.path).snapshots) == before
    RunWriter(kept.path).rewind(4)
    assert (kept.path / "snapshots" / name).exists()


def test_missing_metrics_are_told(run, records):
    kept = record(run, "kept")
    (kept.path / "metrics.jsonl").unlink()
    with pytest.raises(FileNotFoundError, match="metrics.jsonl is missing: what this run has"):
        kept.history("loss")


def test_weights_of_another_kind_are_refused(run, records):
    """torch itself copies whole numbers into weights without a word."""
    path = record(run, "kept").path / "encoder.safetensors"
    weights = load_file(path)
    for kind in (torch.int8, torch.float8_e5m2):
        save_file({k: v.to(kind) for k, v in weights.items()}, path)
        with pytest.raises(ValueError, match=r"encoder.safetensors .* not as float numbers \(body"):
            be.load_run("kept").load_model()
    save_file({k: v[:1] if v.ndim else v for k, v in weights.items()}, path)
    with pytest.raises(ValueError, match="the encoder of config.yaml beside it: .*another shape"):
        be.load_run("kept").load_model()


def test_without_its_projector_a_run_encodes_and_embeds_nothing(run, records):
    """Embeddings of a projector that was never trained would look like results."""
    kept = record(run, "kept")
    (kept.path / "projector.safetensors").unlink()
    model, x = kept.load_model(), run.views().normalize(tiny_images(4).images)
    torch.testing.assert_close(model.encode(x), run.load_model().encode(x), rtol=0.02, atol=0.02)
    with pytest.raises(ValueError, match="There is no .*projector.safetensors: only the encoder"):
        model.embed(x)


def test_the_encoder_is_written_last_and_says_that_a_run_is_finished(tmp_path, monkeypatch):
    written = []

    def stop(path, weights):
        written.append(path.name)
        if len(written) == 2:
            raise ZeroDivisionError
        write_weights(path, weights)

    monkeypatch.setattr("barlow_edu.storage.run_folder.write_weights", stop)
    with pytest.raises(ZeroDivisionError):
        pretrain(CONFIG, tmp_path, tiny_images(), progress=False, epochs=1)
    with pytest.raises(FileNotFoundError, match="holds no encoder.safetensors. Resume the run"):
        be.load_run(tmp_path).load_model()
    monkeypatch.undo()
    run = pretrain(CONFIG, tmp_path, tiny_images(), resume=True, progress=False, epochs=1)
    assert run.load_model().embed(torch.zeros(2, 3, 16, 16)).shape == (2, 8)


def test_a_run_says_on_which_images_it_was_trained(run, records, tmp_path, monkeypatch):
    """From whichever folder it is read; a record leaves the machine's folder out."""
    write_tree(tmp_path / "images", 32, 1)
    monkeypatch.chdir(tmp_path)
    settings = CONFIG | {"data": "folder", "root": "images", "epochs": 1, "snapshots": 0}
    trained = pretrain(settings, tmp_path / "run", progress=False)
    assert trained.environment["root"] == str((tmp_path / "images").resolve())
    assert trained.environment["fingerprint"].startswith("32 x 3 x 28 x 28, checksum")
    assert "root" not in record(trained, "kept").environment
    assert run.environment["fingerprint"] == tiny_images().fingerprint()
    assert "root" not in run.environment  # images that were handed over have no folder
