"""A store as a dataset that needs no trainer, and no torch until somebody brings it."""

import multiprocessing
import pickle  # noqa: TID251  (that it survives it is what is tested)
import subprocess
import sys
from operator import itemgetter
from pathlib import Path

import numpy as np
import pytest

from boxdepth.depthgen import StoreDataset, open_store

from .conftest import content


def test_items_are_the_stores_images_in_order(store_path: Path) -> None:
    dataset, store = StoreDataset(store_path), open_store(store_path)
    assert len(dataset) == 10
    for i, item in enumerate(dataset[k] for k in range(10)):
        assert (item.image_id, item.name) == (int(store.image_ids[i]), store.image_names[i])
        np.testing.assert_array_equal(item.image, store.image(i))
        np.testing.assert_array_equal(item.inverse_depth, store.inverse_depth(i))
        np.testing.assert_array_equal(item.boxes.xyxy, content(10)["records"][i].boxes_xyxy)


def test_batches_come_in_the_order_asked_for(store_path: Path) -> None:
    dataset = StoreDataset(store_path)
    order = [7, 0, 9, 7, 3]
    batch = dataset.__getitems__(order)
    assert [item.image_id for item in batch] == [dataset[i].image_id for i in order]
    assert dataset[-1].image_id == dataset[9].image_id


def test_an_index_too_far_ends_a_loop(store_path: Path) -> None:
    dataset = StoreDataset(store_path)
    with pytest.raises(IndexError, match="the store has 10 images"):
        dataset[10]
    assert len(list(iter(dataset))) == 10  # Python's own protocol: index until IndexError


def test_spawned_workers_read_it(store_path: Path) -> None:
    dataset = StoreDataset(store_path)
    assert pickle.loads(pickle.dumps(dataset))[3].image_id == 26  # noqa: S301
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(itemgetter(3), (dataset,)).image_id == 26


def test_torchs_loader_takes_it_as_it_is(store_path: Path) -> None:
    data = pytest.importorskip("torch.utils.data")
    loader = data.DataLoader(StoreDataset(store_path), batch_size=4, collate_fn=list)
    assert [item.image_id for batch in loader for item in batch] == [7 * i + 5 for i in range(10)]


_ALONE = """
import sys
from boxdepth.depthgen import StoreDataset
item = StoreDataset(sys.argv[1])[0]
heavy = {"torch", "transformers", "torchvision", "scipy", "dask", "obstore"} & set(sys.modules)
sys.exit(f"{heavy} came along" if heavy else 0)
"""


def test_it_needs_neither_torch_nor_a_trainer(store_path: Path) -> None:
    command = [sys.executable, "-c", _ALONE, str(store_path)]
    done = subprocess.run(command, timeout=120, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
