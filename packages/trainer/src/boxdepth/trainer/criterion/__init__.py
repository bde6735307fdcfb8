"""From outputs to loss terms; `rules` says what is wanted, `terms` computes it."""
