"""Synthetic music with known ground truth, a small classifier of it, and how well explanations recover the truth."""
