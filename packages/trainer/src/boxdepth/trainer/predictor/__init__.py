"""Predicting with what was trained: from a run folder and pictures to instances."""
