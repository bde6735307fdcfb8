"""Predicting: from dense outputs to masks at the original size, from a run folder to results."""
