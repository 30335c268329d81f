"""Barlow Twins for learning and research: the loss, the views, the training, the course."""

from barlow_edu.loss import (
    LossTerms,
    barlow_twins_loss,
    cross_correlation,
    loss_floor,
    standardize,
)

__version__ = "0.1.0"

__all__ = [
    "LossTerms",
    "barlow_twins_loss",
    "cross_correlation",
    "loss_floor",
    "standardize",
]
