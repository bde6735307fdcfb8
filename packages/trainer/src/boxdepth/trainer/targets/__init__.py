"""What a batch has to be learnt as: boxes for locations, locations for masks, trusted pairs."""
