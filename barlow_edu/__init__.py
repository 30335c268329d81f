"""Barlow Twins for learning and research: the loss, the views, the training, the course.

Names are loaded when they are first used, so that ``python -m barlow_edu doctor`` can tell what is missing.
"""

from importlib import import_module

__version__ = "0.1.0"

_HOMES = {
    "config": ("load_config",),
    "data": ("ImageSet", "load_images"),
    "encoders": ("build_encoder",),
    "evaluation": ("evaluate",),
    "features": ("extract_features", "layer_features", "pixel_features"),
    "finetuning": ("fine_tune", "train_classifier"),
    "loss": ("LossTerms", "barlow_twins_loss", "cross_correlation", "loss_floor", "standardize"),
    "models": ("BarlowTwinsModel", "Projector"),
    "probes": ("factor_probe", "few_label_probe", "knn_accuracy", "linear_probe", "nearest"),
    "relatives": (
        "BYOLModel",
        "SimCLRModel",
        "SimSiamModel",
        "VICRegModel",
        "byol_loss",
        "simclr_loss",
        "vicreg_loss",
    ),
    "runs": ("Run", "best_run", "load_run"),
    "spectra": ("covariance_spectrum", "effective_rank", "rankme", "spectrum_decay"),
    "training": ("TrainingDiverged", "TrainingInterrupted", "pretrain"),
    "views": ("TwinViews", "ViewRecipe"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}
_MODULES = (
    *("checks", "cli", "course", "distributed", "doctor", "experiments", "linear", "official"),
    *("optim", "planner", "plots", "recipes", "streaming", "sweeps", *_HOMES),
)

__all__ = sorted(_HOME_OF)


def __getattr__(name: str):
    if name in _HOME_OF:
        value = getattr(import_module(f"barlow_edu.{_HOME_OF[name]}"), name)
        globals()[name] = value
        return value
    if name in _MODULES:
        return import_module(f"barlow_edu.{name}")
    from barlow_edu.spelling import did_you_mean

    near = did_you_mean(name, (*__all__, *_MODULES))
    raise AttributeError(f"barlow_edu has no {name!r}.{near} It has {', '.join(__all__)}.")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})
