"""What did it learn? One protocol: every number beside pixels, a random encoder and, if asked, labels."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

from torch import Tensor, nn

from barlow_edu.config import images_for
from barlow_edu.data import ImageSet
from barlow_edu.evaluation import features, probes, spectra
from barlow_edu.evaluation.results import add_to_run, means
from barlow_edu.evaluation.supervised import BUDGETS, Budget, fine_tune, supervised_encoder
from barlow_edu.numerics.devices import choose_device
from barlow_edu.runs import Run, load_run
from barlow_edu.storage.containers import data_and_root

FEW_LABELS = (1, 5, 10, 100)
FINE_TUNING = (10, 100, "all")
SPECTRUM_IMAGES = 2000
SEED_CHANGES = {
    "knn": "nothing, unless the encoder differs",
    "linear": "the validation split that chooses the regularisation",
    "few": "which images are labelled",
    "fine_tuning": "which images are labelled, their order and views",
    "random encoder": "its initial weights, in every column (seed 0: those the run started from)",
    "supervised encoder": "its initial weights, the order of the images and their views",
}
EncoderOf = Callable[[int], nn.Module | None]  # seed -> encoder, None for the pixels themselves


def evaluate(
    run: Run | str,
    train: ImageSet | None = None,
    test: ImageSet | None = None,
    linear: bool = True,
    k: int = probes.KNN_K,
    temperature: float = probes.KNN_TEMPERATURE,
    save: bool = False,
    seeds: int = 1,
    few: Sequence[int] = (),
    fine_tuning: Sequence[int | str] = (),
    supervised: bool | int = False,
    progress: bool | None = False,
    device: str | None = None,
) -> dict[str, Any]:
    """What a run's encoder knows, beside pixels and the same encoder untrained, by one protocol.

    Features are taken before the projector, without augmentation. train, test: image sets, by default those of the
    run's configuration; others test the transfer. linear: the linear probe, its regularisation chosen on a part of
    the training images. few: labels a class, for linear probes with few labels. fine_tuning: labels a class, or
    "all": the whole encoder trained further, beside one from scratch. supervised: also the same encoder trained with
    all labels, for so many epochs (True: as many as the run had). seeds: how many times all that is random is drawn;
    numbers are then means, with standard deviations (``SEED_CHANGES`` says what a seed changes). progress: show a bar
    (None: on a terminal; elsewhere the log says what is being done). device: by default that of the configuration.

    Returns {"data", "k", "temperature", "train_images", "test_images", "protocol", "rows", "identity", ...}; rows
    maps "pixels", "random encoder", "trained encoder" (and "supervised encoder") to {"knn", "linear",
    "regularization", "effective_rank", "rankme", "alpha", "few", "sd"}, as far as asked for; identity is about C,
    see ``identity_of``. save=True adds each row to the run's evaluation.json once it is there: results on other
    images than the run's stand there under "transfer". Raises ValueError if the run was trained on other images
    than its configuration loads, for splits whose classes differ or are fewer than two, and for impossible seeds or
    numbers of labels.

    >>> import torch
    >>> noise = torch.randint(256, (20, 3, 32, 32), dtype=torch.uint8)
    >>> images = ImageSet(noise, torch.arange(20) % 2, ["even", "odd"], "noise")
    >>> evaluate("garments_quick", images, images, k=1, linear=False)["rows"]["trained encoder"]["knn"]
    1.0
    """
    run = run if isinstance(run, Run) else load_run(run)
    own = load_sets(run) if train is None or test is None else ()
    train, test = own[0] if train is None else train, own[1] if test is None else test
    _check(train, test, seeds, supervised, [*few, *(n for n in fine_tuning if n != "all")])
    protocol = Protocol(linear, k, temperature, tuple(range(seeds)), tuple(few))
    results = protocol.describe(train, test) | {"trained_on": run.environment["data"], "rows": {}}
    device = choose_device(device or run.config["device"])
    trained = run.load_model().encoder.to(device)  # before the long work: are there weights?

    def with_labels(seed: int) -> nn.Module:
        epochs = None if supervised is True else supervised
        encoder, record = supervised_encoder(run, train, test, epochs, seed, device, progress)
        results.setdefault("supervised", []).append(record)
        return encoder

    # What is compared: name -> the encoder of a seed, and whether a seed changes it.
    encoders: dict[str, tuple[EncoderOf, bool]] = {
        "pixels": (lambda seed: None, False),
        "random encoder": (lambda seed: run.untrained(seed).encoder.to(device), True),
        "trained encoder": (lambda seed: trained, False),
    }
    if supervised:
        encoders["supervised encoder"] = (with_labels, True)
    # One after the other, and each is kept at once: what comes later may fail.
    for name, say in features.one_by_one([*encoders, *map(str, fine_tuning)], progress):
        if name in encoders:
            sets = (train, test, run.views().normalize)
            results["rows"][name] = protocol.row(*encoders[name], *sets, say)
        else:
            how = (run.views(), None if name == "all" else int(name), protocol.seeds)
            tuned = results.setdefault("fine_tuning", {"budget": BUDGETS}).setdefault(name, {})
            for start, budget in BUDGETS.items():
                encoder = run.load_model(weights=start == "pretrained").encoder.to(device)
                score = fine_tune(encoder, train, test, *how, Budget(**budget), progress)
                tuned[start] = score.rounded()
        if name == "trained encoder" and (run.path / "projector.safetensors").exists():
            results["identity"] = spectra.identity_of(run, test, device)
        if save:
            add_to_run(run, results)
    return results


@dataclass(frozen=True)
class Protocol:
    """What is asked of every kind of features, the same for the encoder and for its baselines."""

    linear: bool
    k: int
    temperature: float
    seeds: tuple[int, ...]
    few: tuple[int, ...]

    def describe(self, train: ImageSet, test: ImageSet) -> dict[str, Any]:
        """The head of the results: on what, and how."""
        first, last = spectra.DECAY_RANKS
        words = {
            "features": "before the projector, no augmentation",
            "knn": f"cosine, {self.k} neighbours, weight exp(cosine / {self.temperature})",
            "linear": "logistic regression on standardised features, regularisation chosen from "
            f"{list(probes.REGULARIZATIONS)} on a held-out tenth of the training images",
            "few": f"the same with regularisation {probes.FEW_REGULARIZATION}",
            "spectrum": f"first {SPECTRUM_IMAGES} test images; alpha over ranks {first} to {last}",
            "seeds": list(self.seeds),
            "seed_changes": SEED_CHANGES,
        }
        head = {"data": test.name, "k": self.k, "temperature": self.temperature}
        return head | {"train_images": len(train), "test_images": len(test), "protocol": words}

    def row(
        self,
        encoder_of: EncoderOf,
        varies: bool,
        train: ImageSet,
        test: ImageSet,
        normalize: Callable[[Tensor], Tensor],
        say: features.Say = str,
    ) -> dict[str, Any]:
        """One line of the table: means over the seeds; "sd", the deviations of what a seed changed.

        varies: whether the encoder differs by seed. say: is called with what comes next.
        """
        answers: list[dict[str, Any]] = []
        for seed in self.seeds:
            if varies or not answers:
                say("features, neighbours and spectrum")
                encoder = encoder_of(seed)
                ours = partial(features.extract_features, encoder, normalize=normalize)
                features_of = features.pixel_features if encoder is None else ours
                x, x_test = features_of(train.images), features_of(test.images)
                sets = (x, train.labels, x_test, test.labels)
                knn = probes.knn_accuracy(*sets, self.k, self.temperature)
                fixed = {"knn": knn, **spectra.summary(x_test[:SPECTRUM_IMAGES])}
                accuracy = cache(partial(probes.linear_probe, *sets))  # seeds may choose the same
            answers.append(dict(fixed))
            if self.linear:
                say(f"linear probe, seed {seed}")
                chosen = probes.choose_regularization(*sets[:2], seed)
                answers[-1] |= {"linear": accuracy(chosen), "regularization": chosen}
            if self.few:
                say(f"few labels, seed {seed}")
                answers[-1]["few"] = probes.few_label_probe(*sets, self.few, (seed,))
        return means(answers)


def load_sets(run: Run, data: str = "", root: str = "") -> tuple[ImageSet, ImageSet]:
    """Training and test images to evaluate a run on: its own, or those of another name or folder.

    Raises ValueError if no others are asked for and the run was trained on other images than its configuration
    loads today.
    """
    known, mark = run.environment, run.environment.get("fingerprint", "")  # older runs have none
    config = run.config | {"root": root or known.get("root", run.config["root"])}
    config |= {} if " files, " in mark else {"stream": False, "pipeline": "decode_once"}
    if data and data != config["data"]:
        config |= data_and_root(data, root or None) | {"limit": None}
    train, test = features.labelled_sets(config)
    if mark and train.name == known["data"] and mark != images_for(config).fingerprint():
        name = f"{train.name} in {config['root'] or 'another version'}"
        train, test = replace(train, name=name), replace(test, name=name)
    if train.name != known["data"] and not (data or root):
        raise ValueError(
            f"{run} was trained on {known['data']!r}, but its configuration loads {train.name!r}. Give train= and "
            "test= (on the command line --data and --root)."
        )
    return train, test


def _check(train: ImageSet, test: ImageSet, seeds: int, supervised: bool | int, labels) -> None:
    classes = len(train.labels.unique())
    if train.classes != test.classes:
        raise ValueError(
            f"The classes differ: {train.classes} for training, {test.classes} for the test. "
            "A class folder must be there in both splits, even if it is empty."
        )
    if classes < 2:
        raise ValueError(
            f"An evaluation needs labelled images of at least two classes, and {train.name} has {classes}. Take "
            "folders train/CLASS/image and test/CLASS/image, or other images (--data and --root)."
        )
    if seeds < 1:
        raise ValueError(f"seeds must be at least 1, got {seeds}.")
    if supervised is not False and supervised < 1:
        raise ValueError(f"supervised must be True or at least 1 epoch, got {supervised}.")
    for n in labels:
        probes.labelled_subset(train.labels, n)
