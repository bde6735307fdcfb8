# ruff: noqa: E501 - comments of the recording, left as they are
"""Deterministic weights and images, so that any implementation can rebuild the same numbers.

Everything is drawn from numpy.random.RandomState (its stream is frozen by NumPy's compatibility
policy), seeded with crc32 of the *AdelaiDet* tensor name. No torch random state is used.
"""

import hashlib
import zlib

import numpy as np


def seeded(name):
    return np.random.RandomState(zlib.crc32(name.encode("ascii")) & 0xFFFFFFFF)


def _normal(name, shape, scale, shift=0.0):
    return (seeded(name).standard_normal(size=tuple(shape)) * scale + shift).astype(np.float32)


def _uniform(name, shape, lo, hi):
    return seeded(name).uniform(lo, hi, size=tuple(shape)).astype(np.float32)


def tensor_for(name, shape):
    """Value of the tensor `name` (AdelaiDet state-dict name), or None: leave it as initialised."""
    shape = tuple(int(s) for s in shape)
    fan_in = int(np.prod(shape[1:])) if len(shape) > 1 else 1
    leaf = name.rsplit(".", 1)[-1]
    if name.startswith("mask_head.") or leaf == "num_batches_tracked":
        return None
    if leaf == "running_mean":
        return _normal(name, shape, 0.1)
    if leaf == "running_var":
        return _uniform(name, shape, 0.8, 1.2)
    if leaf == "scale":
        return _uniform(name, shape, 0.8, 1.2)
    if name.startswith("backbone.bottom_up."):
        if ".norm." in name:
            if leaf == "weight":
                # small gain on the last norm of every residual branch: keeps 16 blocks from blowing up
                return (
                    _uniform(name, shape, 0.1, 0.3)
                    if ".conv3." in name
                    else _uniform(name, shape, 0.8, 1.2)
                )
            return _normal(name, shape, 0.1)
        gain = np.sqrt(2.0 / fan_in)
        if ".stem." in name:
            gain /= 60.0  # inputs are 0..255 minus the mean
        return _normal(name, shape, gain)
    if len(shape) == 1:  # biases and affine parameters of GN/BN
        if leaf == "weight":
            return _uniform(name, shape, 0.8, 1.2)
        if name.endswith("fcos_head.cls_logits.bias"):
            # few classes: -3; COCO's 80: -5, so that inference has a few hundred candidates, not thousands
            return _normal(name, shape, 0.1, -3.0 if shape[0] <= 20 else -5.0)
        if name.endswith("mask_branch.logits.bias"):
            return _normal(name, shape, 0.1, -3.0)
        if name.endswith("fcos_head.bbox_pred.bias"):
            return _normal(name, shape, 0.2, 2.0)
        if name == "controller.bias":
            v = _normal(name, shape, 0.2)
            v[-1] -= np.float32(
                0.8
            )  # last generated bias: moves the masks towards half on, half off
            return v
        return _normal(name, shape, 0.05)
    if name.startswith("backbone."):  # FPN convolutions, p6, p7
        return _normal(name, shape, np.sqrt(1.0 / fan_in))
    if "_tower." in name or "mask_branch.refine" in name or "mask_branch.seg_head" in name:
        return _normal(name, shape, np.sqrt(2.0 / fan_in))
    if name.startswith("mask_branch.tower."):
        return _normal(name, shape, np.sqrt(2.0 / fan_in))
    if name == "controller.weight":
        return _normal(name, shape, 0.5 * np.sqrt(1.0 / fan_in))
    return _normal(name, shape, np.sqrt(1.0 / fan_in))  # cls_logits, bbox_pred, ctrness


def fill_state_dict(shapes):
    """{name: shape} -> {name: float32 array} for the tensors that the recipe defines."""
    out = {}
    for name, shape in shapes.items():
        v = tensor_for(name, shape)
        if v is not None:
            out[name] = v
    return out


def digest(arrays):
    """sha256 over names and raw little-endian bytes, in sorted order of names."""
    h = hashlib.sha256()
    for k in sorted(arrays):
        a = np.ascontiguousarray(arrays[k])
        h.update(k.encode("ascii"))
        h.update(str(a.dtype.str).encode("ascii"))
        h.update(str(tuple(a.shape)).encode("ascii"))
        h.update(a.tobytes())
    return h.hexdigest()


def image(seed, h, w):
    """uint8 [h, w, 3] synthetic image (BGR order by convention): gradient, shapes, texture."""
    r = np.random.RandomState(seed)
    yy, xx = np.mgrid[0:h, 0:w].astype(np.float64)
    img = np.empty((h, w, 3), np.float64)
    for c in range(3):
        a, b = r.uniform(-0.4, 0.4, 2)
        img[..., c] = 110 + 80 * (a * (yy / max(h, 1) - 0.5) + b * (xx / max(w, 1) - 0.5))
    for _ in range(9):
        cy, cx = r.uniform(0, h), r.uniform(0, w)
        ry, rx = r.uniform(0.06, 0.3) * h, r.uniform(0.06, 0.3) * w
        inside = (
            ((yy - cy) / ry) ** 2 + ((xx - cx) / rx) ** 2 <= 1
            if r.rand() < 0.5
            else (np.abs(yy - cy) <= ry) & (np.abs(xx - cx) <= rx)
        )
        img[inside] = r.uniform(10, 245, 3) + 0.0 * img[inside]
    img += r.standard_normal(img.shape) * 4.0
    return np.clip(np.rint(img), 0, 255).astype(np.uint8)


def boxes(seed, n, h, w, num_classes, lo=0.1, hi=0.6):
    """n boxes xyxy float32 (pixels) inside h x w, and int64 classes."""
    r = np.random.RandomState(seed)
    bw, bh = r.uniform(lo, hi, n) * w, r.uniform(lo, hi, n) * h
    x1, y1 = r.uniform(0, 1, n) * (w - bw), r.uniform(0, 1, n) * (h - bh)
    b = np.stack([x1, y1, x1 + bw, y1 + bh], 1).astype(np.float32)
    return b, r.randint(0, num_classes, n).astype(np.int64)


def polygons(bxs, seed, k=10):
    """One wobbly star polygon [2k] per box, inside the box."""
    r = np.random.RandomState(seed)
    out = []
    for x1, y1, x2, y2 in bxs.astype(np.float64):
        t = np.sort(r.uniform(0, 2 * np.pi, k))
        rad = r.uniform(0.35, 1.0, k)
        px = (x1 + x2) / 2 + (x2 - x1) / 2 * rad * np.cos(t)
        py = (y1 + y2) / 2 + (y2 - y1) / 2 * rad * np.sin(t)
        out.append(np.stack([px, py], 1).reshape(-1))
    return out
