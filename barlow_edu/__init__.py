"""Barlow Twins for learning and research: the loss, the views, the training, the course.

The two lists of imports are for editors. Python reads them as text and loads a name when it is first used, so that
``python -m barlow_edu doctor`` can tell what is missing.
"""

import ast
from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.2.0"

if TYPE_CHECKING:  # functions and classes
    from barlow_edu.config import load_config as load_config
    from barlow_edu.data import ImageSet as ImageSet
    from barlow_edu.data import load_images as load_images
    from barlow_edu.evaluation import evaluate as evaluate
    from barlow_edu.evaluation.features import extract_features as extract_features
    from barlow_edu.evaluation.features import layer_features as layer_features
    from barlow_edu.evaluation.features import pixel_features as pixel_features
    from barlow_edu.evaluation.probes import factor_probe as factor_probe
    from barlow_edu.evaluation.probes import few_label_probe as few_label_probe
    from barlow_edu.evaluation.probes import knn_accuracy as knn_accuracy
    from barlow_edu.evaluation.probes import linear_probe as linear_probe
    from barlow_edu.evaluation.probes import nearest as nearest
    from barlow_edu.evaluation.spectra import covariance_spectrum as covariance_spectrum
    from barlow_edu.evaluation.spectra import distance_to_identity as distance_to_identity
    from barlow_edu.evaluation.spectra import effective_rank as effective_rank
    from barlow_edu.evaluation.spectra import rankme as rankme
    from barlow_edu.evaluation.spectra import spectrum_decay as spectrum_decay
    from barlow_edu.evaluation.supervised import fine_tune as fine_tune
    from barlow_edu.evaluation.supervised import train_classifier as train_classifier
    from barlow_edu.loss import LossTerms as LossTerms
    from barlow_edu.loss import barlow_twins_loss as barlow_twins_loss
    from barlow_edu.loss import cross_correlation as cross_correlation
    from barlow_edu.loss import loss_floor as loss_floor
    from barlow_edu.loss import plain_loss as plain_loss
    from barlow_edu.loss import standardize as standardize
    from barlow_edu.methods.relatives import BYOLModel as BYOLModel
    from barlow_edu.methods.relatives import SimCLRModel as SimCLRModel
    from barlow_edu.methods.relatives import SimSiamModel as SimSiamModel
    from barlow_edu.methods.relatives import VICRegModel as VICRegModel
    from barlow_edu.methods.relatives import byol_loss as byol_loss
    from barlow_edu.methods.relatives import simclr_loss as simclr_loss
    from barlow_edu.methods.relatives import vicreg_loss as vicreg_loss
    from barlow_edu.models import BarlowTwinsModel as BarlowTwinsModel
    from barlow_edu.models import Projector as Projector
    from barlow_edu.models import build_encoder as build_encoder
    from barlow_edu.numerics.batchnorm import synchronize_batch_norm as synchronize_batch_norm
    from barlow_edu.recipe import ViewRecipe as ViewRecipe
    from barlow_edu.runs import Run as Run
    from barlow_edu.runs import best_run as best_run
    from barlow_edu.runs import load_run as load_run
    from barlow_edu.storage.checkpoints import TrainingDiverged as TrainingDiverged
    from barlow_edu.storage.interrupts import TrainingInterrupted as TrainingInterrupted
    from barlow_edu.teaching.playground import playground as playground
    from barlow_edu.teaching.predict import predict as predict
    from barlow_edu.training import pretrain as pretrain
    from barlow_edu.views import TwinViews as TwinViews

if TYPE_CHECKING:  # modules, from where they stand today: names of version one keep answering
    from barlow_edu import cli as cli
    from barlow_edu import config as config
    from barlow_edu import data as data
    from barlow_edu import doctor as doctor
    from barlow_edu import evaluation as evaluation
    from barlow_edu import loss as loss
    from barlow_edu import models as encoders
    from barlow_edu import models as models
    from barlow_edu import runs as runs
    from barlow_edu import settings as settings
    from barlow_edu import training as training
    from barlow_edu import views as views
    from barlow_edu.evaluation import callbacks as callbacks
    from barlow_edu.evaluation import features as features
    from barlow_edu.evaluation import probes as probes
    from barlow_edu.evaluation import spectra as spectra
    from barlow_edu.evaluation import supervised as finetuning
    from barlow_edu.methods import relatives as relatives
    from barlow_edu.numerics import distributed as distributed
    from barlow_edu.numerics import optim as optim
    from barlow_edu.publishing import versions as course
    from barlow_edu.scale import exactness as exactness
    from barlow_edu.scale import imagenet_linear as linear
    from barlow_edu.scale import official as official
    from barlow_edu.scale import planner as planner
    from barlow_edu.storage import stream as streaming
    from barlow_edu.studies import ablations as experiments
    from barlow_edu.studies import lambda_sweep as sweeps
    from barlow_edu.studies import recipes as recipes
    from barlow_edu.teaching import checks as checks
    from barlow_edu.teaching.figures import plots as plots


def _targets(block: ast.stmt) -> dict[str, str]:
    """Name -> where it is, of the imports in a block."""
    return {a.asname: f"{node.module}.{a.name}" for node in block.body for a in node.names}


_blocks = ast.parse(__loader__.get_source(__name__)).body
_HOMES, _MODULES = (_targets(block) for block in _blocks if isinstance(block, ast.If))
__all__ = sorted(_HOMES)


def __getattr__(name: str):
    if name in _HOMES:
        home, _, last = _HOMES[name].rpartition(".")
        value = getattr(import_module(home), last)
        globals()[name] = value
        return value
    if name in _MODULES:
        return import_module(_MODULES[name])
    from barlow_edu.settings import did_you_mean

    near = did_you_mean(name, (*__all__, *_MODULES))
    raise AttributeError(f"barlow_edu has no {name!r}.{near} It has {', '.join(__all__)}.")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})
