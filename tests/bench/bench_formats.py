"""The same samples (image, depth, boxes) from our store and from what people use instead.

    python tests/bench/bench_formats.py                       # made-up photographs
    python tests/bench/bench_formats.py --store stores/mine.zarr

The other forms are decoded by Pillow, as people have them; ours by its own decoder, and once by
Pillow too, which compares the forms alone. CPU time is of one core, with the files in the system's
cache; rounds are interleaved. What a slow disk or a bucket makes of it follows from the requests
and bytes that a sample costs there, counted at an S3 server on this machine (moto), for random
access; a tar file is read as a stream, which gives no random order.
"""

import argparse
import importlib.util
import io
import json
import os
import statistics
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import h5py
import numpy as np
import obstore
import zarr
from obstore.store import S3Store
from PIL import Image
from zarr.storage import ObjectStore

from boxdepth.depthgen.exchange.export import export_store
from boxdepth.depthgen.store import Store, open_store

ROUNDS, PER_ROUND, REMOTE = 9, 48, 32
LATENCY, BANDWIDTH = 0.02, 50e6
"""Of the bucket that is reckoned with: seconds a request, bytes a second."""

DISK_LATENCY, DISK_BANDWIDTH = 0.008, 120e6
"""Of the slow disk (one that turns)."""


TESTS = Path(__file__).parents[1]


def module(path: Path) -> ModuleType:
    """A file of the tests, which are no package."""
    specification = importlib.util.spec_from_file_location(path.stem, path)
    assert specification
    assert specification.loader
    found = sys.modules[path.stem] = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(found)
    return found


class Remote:
    """An object as a file that h5py reads."""

    def __init__(self, client: Any, path: str) -> None:
        self._file = obstore.open_reader(client, path, buffer_size=1 << 18)

    def read(self, nbytes: int) -> bytes:
        return bytes(self._file.read(nbytes))

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


BY_PILLOW = "our reader, by Pillow"


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How samples lie somewhere."""

    name: str
    read: Callable[[int], None]
    nbytes: int
    """Of everything, on the disk."""


def rgb(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def write_loose(store: Store, folder: Path) -> None:
    """JPEG, 16-bit PNG and one JSON file of all boxes."""
    folder.mkdir()
    for i in range(len(store)):
        (folder / f"{i}.jpg").write_bytes(store.image_bytes(i))
        Image.fromarray(store.quantised_depth(i)).save(folder / f"{i}.png")
    boxes = {i: store.boxes(i).xyxy.tolist() for i in range(len(store))}
    (folder / "boxes.json").write_text(json.dumps(boxes))


def local_ways(store: Store, work: Path) -> list[Way]:
    """The samples in every form, and a reader of each."""
    write_loose(store, work / "loose")
    export_store(store, work / "all.h5", to="hdf5")
    export_store(store, work / "tars", to="webdataset")
    boxes = json.loads((work / "loose" / "boxes.json").read_text())
    file = h5py.File(work / "all.h5")
    group = zarr.open_group(str(store.path), mode="r")
    starts, sizes = group["image/start"][:], group["image/nbytes"][:]
    stream = tar_samples(work / "tars")

    def ours(i: int) -> None:
        store.image(i), store.quantised_depth(i), store.boxes(i)

    def ours_by_pillow(i: int) -> None:
        rgb(store.image_bytes(i)), store.quantised_depth(i), store.boxes(i)

    def loose(i: int) -> None:
        rgb((work / "loose" / f"{i}.jpg").read_bytes())
        with Image.open(work / "loose" / f"{i}.png") as depth:
            np.asarray(depth)
        np.array(boxes[str(i)])

    def hdf5(i: int) -> None:
        rgb(file["image/file"][i].tobytes())
        file["depth/q"][i]

    def plain_zarr(i: int) -> None:
        end = int(starts[i]) + int(sizes[i])
        rgb(group["image/data"][int(starts[i]) : end].tobytes())
        np.asarray(group["depth/q"][i])

    def tar(_: int) -> None:
        next(stream)

    folder = {"ours": Path(str(store.path)), "loose": work / "loose", "tars": work / "tars"}
    size = {name: sum(f.stat().st_size for f in p.rglob("*") if f.is_file())
            for name, p in folder.items()}  # fmt: skip
    return [
        Way(name="our reader", read=ours, nbytes=size["ours"]),
        Way(name=BY_PILLOW, read=ours_by_pillow, nbytes=size["ours"]),
        Way(name="zarr-python on our store", read=plain_zarr, nbytes=size["ours"]),
        Way(name="h5py (gzip)", read=hdf5, nbytes=(work / "all.h5").stat().st_size),
        Way(name="WebDataset's tar files, in order", read=tar, nbytes=size["tars"]),
        Way(name="loose JPEG + 16-bit PNG", read=loose, nbytes=size["loose"]),
    ]


def tar_samples(folder: Path) -> Iterator[dict[str, Any]]:
    """Sample after sample of a folder of tar files, for ever, as WebDataset streams them."""
    while True:
        for path in sorted(folder.iterdir()):
            sample: dict[str, Any] = {}
            with tarfile.open(path, "r|") as tar:
                for member in tar:
                    _, suffix = member.name.split(".", 1)
                    content = tar.extractfile(member)
                    assert content is not None
                    data = content.read()
                    if suffix == "json":
                        sample[suffix] = json.loads(data)
                    elif suffix == "depth.png":
                        with Image.open(io.BytesIO(data)) as depth:
                            sample[suffix] = np.asarray(depth)
                    else:
                        sample["image"] = rgb(data)
                    if len(sample) == 3:
                        yield sample
                        sample = {}


def measure_local(ways: list[Way], images: int) -> dict[str, float]:
    """CPU seconds an image of each way, medians of interleaved rounds."""
    rng = np.random.default_rng(1)
    rounds: dict[str, list[float]] = {way.name: [] for way in ways}
    for _ in range(ROUNDS):
        order = rng.permutation(images)[:PER_ROUND].tolist()
        for way in ways:
            started = time.process_time()
            for i in order:
                way.read(i)
            rounds[way.name].append((time.process_time() - started) / len(order))
    return {name: statistics.median(values) for name, values in rounds.items()}


def upload(folder: Path, url: str, client: Any) -> None:
    for file in folder.rglob("*"):
        if file.is_file():
            obstore.put(client, f"{url}/{file.relative_to(folder).as_posix()}", file.read_bytes())


def measure_remote(store: Store, work: Path) -> dict[str, tuple[float, float]]:
    """(requests, bytes) of a sample at random, by way; what opening costs is left out."""
    s3 = module(TESTS / "depthgen" / "s3.py")

    keys = {"access_key_id": "k", "secret_access_key": "s", "region": "us-east-1"}
    found: dict[str, tuple[float, float]] = {}
    with s3.serve_s3() as address, s3.serve_proxy(address, patience=5) as proxy:
        options: Any = {"allow_http": True}
        client = S3Store("bucket", endpoint=proxy.url, client_options=options, **keys)
        upload(Path(str(store.path)), "ours.zarr", client)
        upload(work / "loose", "loose", client)
        obstore.put(client, "all.h5", (work / "all.h5").read_bytes())
        os.environ |= {
            "AWS_ENDPOINT_URL": proxy.url, "AWS_ACCESS_KEY_ID": "k", "AWS_REGION": "us-east-1",
            "AWS_SECRET_ACCESS_KEY": "s", "BOXDEPTH_CACHE_GB": "0",
        }  # fmt: skip
        ours = open_store("s3://bucket/ours.zarr")
        group = zarr.open_group(ObjectStore(client, read_only=True), path="ours.zarr", mode="r")
        starts, sizes = group["image/start"][:], group["image/nbytes"][:]
        images, maps = group["image/data"], group["depth/q"]
        file = h5py.File(Remote(client, "all.h5"))

        def plain_zarr(i: int) -> None:
            images[int(starts[i]) : int(starts[i]) + int(sizes[i])]
            maps[i]

        ways: dict[str, Callable[[int], Any]] = {
            "our reader": lambda i: (ours.image_bytes(i), ours.quantised_depth(i)),
            "zarr-python on our store": plain_zarr,
            "h5py (gzip)": lambda i: (file["image/file"][i], file["depth/q"][i]),
            "loose JPEG + 16-bit PNG": lambda i: (
                obstore.get(client, f"loose/{i}.jpg").bytes(),
                obstore.get(client, f"loose/{i}.png").bytes(),
            ),
        }
        order = np.random.default_rng(2).permutation(len(store))[:REMOTE].tolist()
        for name, read in ways.items():
            read(order[-1])  # whatever is fetched once
            proxy.requests.clear()
            proxy.nbytes = 0
            for i in order:
                read(i)
            found[name] = sum(proxy.requests.values()) / REMOTE, proxy.nbytes / REMOTE
        found[BY_PILLOW] = found["our reader"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", type=Path, help="a finished store")
    given = parser.parse_args().store
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        made = module(TESTS / "bench" / "bench_store.py").make_store
        store = open_store(given) if given else made(work / "made-up.zarr")
        ways = local_ways(store, work)
        seconds = measure_local(ways, len(store))
        remote = measure_remote(store, work)
        base = seconds["loose JPEG + 16-bit PNG"]
        print("images/s/core  to loose  kB/image | requests, kB of a sample in a bucket | s3, disk")
        for way in ways:
            s = seconds[way.name]
            line = f"{1 / s:13.1f} {base / s:9.2f} {way.nbytes / len(store) / 1e3:9.0f} |"
            if way.name in remote:
                requests, nbytes = remote[way.name]
                line += f" {requests:5.2f} {nbytes / 1e3:7.0f} |"
            else:
                requests, nbytes = 0.0, way.nbytes / len(store)
                line += f"  stream {nbytes / 1e3:5.0f} |"
            bucket = max(s, requests * LATENCY + nbytes / BANDWIDTH)
            disk = max(s, requests * DISK_LATENCY + nbytes / DISK_BANDWIDTH)
            print(f"{line} {1 / bucket:6.1f} {1 / disk:6.1f}  {way.name}")


if __name__ == "__main__":
    main()
