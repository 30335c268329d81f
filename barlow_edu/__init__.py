"""Barlow Twins for learning and research: the loss, the views, the training, the course.

Names are loaded when they are first used, so that ``python -m barlow_edu doctor`` can tell what is missing.
"""

from importlib import import_module

__version__ = "0.2.0"

_HOMES = {
    "config": ("load_config",),
    "data": ("ImageSet", "load_images"),
    "evaluation": ("evaluate",),
    "evaluation.features": ("extract_features", "layer_features", "pixel_features"),
    "evaluation.probes": (
        "factor_probe",
        "few_label_probe",
        "knn_accuracy",
        "linear_probe",
        "nearest",
    ),
    "evaluation.spectra": ("covariance_spectrum", "effective_rank", "rankme", "spectrum_decay"),
    "evaluation.supervised": ("fine_tune", "train_classifier"),
    "loss": (
        "LossTerms",
        "barlow_twins_loss",
        "cross_correlation",
        "loss_floor",
        "plain_loss",
        "standardize",
    ),
    "methods.relatives": (
        "BYOLModel",
        "SimCLRModel",
        "SimSiamModel",
        "VICRegModel",
        "byol_loss",
        "simclr_loss",
        "vicreg_loss",
    ),
    "recipe": ("ViewRecipe",),
    "models": ("BarlowTwinsModel", "Projector", "build_encoder"),
    "runs": ("Run", "best_run", "load_run"),
    "storage.interrupts": ("TrainingInterrupted",),
    "training": ("TrainingDiverged", "pretrain"),
    "views": ("TwinViews",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}
# Where be.NAME, a module, stands today. Names of version one keep answering.
_MODULES = {
    "checks": "teaching.checks",
    "course": "publishing.versions",
    "distributed": "numerics.distributed",
    "encoders": "models",
    "exactness": "scale.exactness",
    "experiments": "studies.ablations",
    "features": "evaluation.features",
    "finetuning": "evaluation.supervised",
    "linear": "scale.imagenet_linear",
    "official": "scale.official",
    "planner": "scale.planner",
    "plots": "teaching.figures.plots",
    "probes": "evaluation.probes",
    "recipes": "studies.recipes",
    "relatives": "methods.relatives",
    "spectra": "evaluation.spectra",
    "streaming": "storage.stream",
    "sweeps": "studies.lambda_sweep",
}
_MODULES |= {name: name for name in ("cli", "config", "data", "doctor", "evaluation", "settings")}
_MODULES |= {name: name for name in ("loss", "models", "optim", "runs", "training", "views")}

__all__ = sorted(_HOME_OF)


def __getattr__(name: str):
    if name in _HOME_OF:
        value = getattr(import_module(f"barlow_edu.{_HOME_OF[name]}"), name)
        globals()[name] = value
        return value
    if name in _MODULES:
        return import_module(f"barlow_edu.{_MODULES[name]}")
    from barlow_edu.settings import did_you_mean

    near = did_you_mean(name, (*__all__, *_MODULES))
    raise AttributeError(f"barlow_edu has no {name!r}.{near} It has {', '.join(__all__)}.")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})
