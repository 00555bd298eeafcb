"""Prostate brachytherapy planning: contours in, a checked seed plan out."""
