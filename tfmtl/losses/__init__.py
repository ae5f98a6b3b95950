"""Keras losses for ranking."""
