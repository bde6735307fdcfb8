"""A store of drawn scenes whose depth is exact: what no predictor can exceed."""

from pathlib import Path

from boxdepth.depthgen.datasets.coco import read_coco
from boxdepth.depthgen.datasets.sample.files import load_inverse_depth
from boxdepth.depthgen.store import DepthInfo, write_store


def write_exact_store(store: Path, scenes: Path, split: str, *, masks: bool = True) -> Path:
    """Write the scenes' images and boxes with their exact inverse depth.

    Args:
        store: a new folder; an unfinished one goes on.
        scenes: what `depthgen sample` drew, in COCO's layout and one size.
        split: `train2017` or `val2017`.
    """
    dataset = read_coco(scenes, split=split, masks=masks)
    files = [record.path for record in dataset.records if isinstance(record.path, Path)]
    depth = [load_inverse_depth(scenes / "depth" / split / f"{f.stem}.png") for f in files]
    height, width = depth[0].shape
    return write_store(
        store,
        dataset.records,
        images=[file.read_bytes() for file in files],
        depth=depth,
        categories=dataset.categories,
        depth_info=DepthInfo(kind="inverse_metric", grid=(height, width)),
        dataset=dataset.name,
        split=split,
        generator={"model": "exact"},
        masks=masks,
    )
