"""From dense outputs to instances at the original size: ``detections``, ``masks``, ``results``."""
