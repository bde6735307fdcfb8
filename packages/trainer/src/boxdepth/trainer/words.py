"""Numbers in words."""


def counted(number: int, noun: str, ending: str = "s") -> str:
    """``1 image``, ``2 images``, ``3 classes``."""
    return f"{number} {noun}{'' if number == 1 else ending}"
