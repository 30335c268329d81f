"""Barlow Twins for learning and research: the loss, the views, the training, the course."""

from barlow_edu.config import load_config
from barlow_edu.data import ImageSet, load_images
from barlow_edu.encoders import build_encoder
from barlow_edu.evaluation import (
    effective_rank,
    evaluate,
    extract_features,
    knn_accuracy,
    linear_probe,
    pixel_features,
)
from barlow_edu.loss import (
    LossTerms,
    barlow_twins_loss,
    cross_correlation,
    loss_floor,
    standardize,
)
from barlow_edu.models import BarlowTwinsModel, Projector
from barlow_edu.runs import Run, load_run
from barlow_edu.training import TrainingDiverged, pretrain
from barlow_edu.views import TwinViews, ViewRecipe

__version__ = "0.1.0"

__all__ = [
    "BarlowTwinsModel",
    "ImageSet",
    "LossTerms",
    "Projector",
    "Run",
    "TrainingDiverged",
    "TwinViews",
    "ViewRecipe",
    "barlow_twins_loss",
    "build_encoder",
    "cross_correlation",
    "effective_rank",
    "evaluate",
    "extract_features",
    "knn_accuracy",
    "linear_probe",
    "load_config",
    "load_images",
    "load_run",
    "loss_floor",
    "pixel_features",
    "pretrain",
    "standardize",
]
