"""The Cityscapes labels that matter to instance AP (cityscapesScripts, `helpers/labels.py`)."""

CLASSES = {
    24: "person",
    25: "rider",
    26: "car",
    27: "truck",
    28: "bus",
    31: "train",
    32: "motorcycle",
    33: "bicycle",
}
# Labels marked `ignoreInEval`: a detection that lies on their pixels is no false positive. An
# individual caravan or trailer has a pixel value of 29000 or more and so is *not* among them.
VOID = (0, 1, 2, 3, 4, 5, 6, 9, 10, 14, 15, 16, 18, 29, 30)
# In `*_instanceIds.png` a pixel is label * 1000 + number for an object, and the bare label for
# stuff and for groups that could not be told apart.
FIRST_INSTANCE = 1000
MIN_PIXELS = 100
LABEL_IDS = range(34)
# Results may name it, and the official script looks past them; no pixel of ground truth has it.
LICENSE_PLATE = -1
