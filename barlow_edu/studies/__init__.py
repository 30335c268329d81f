"""Repeated short trainings, their records, and what they say about the claims."""
