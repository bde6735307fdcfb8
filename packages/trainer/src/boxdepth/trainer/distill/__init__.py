"""Self-distillation: an EMA teacher whose masks, matched to the boxes, become targets."""
