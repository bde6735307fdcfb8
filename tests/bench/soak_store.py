"""What a night finds: kills, full disks, damage, hostile files, dead workers, 20,000 images.

    python tests/bench/soak_store.py --nightly            # about an hour of two cores
    python tests/bench/soak_store.py --only kills --kills 25
    python tests/bench/soak_store.py --only clusters --photos datasets/coco-dev

Every section prints what it counted and stops at the first surprise, with the seed to repeat it.
The suite runs the same sections in small (``tests/depthgen/test_soak.py``).
"""

import argparse
import contextlib
import hashlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image

from boxdepth.depthgen.datasets.coco import read_custom
from boxdepth.depthgen.datasets.records import OnBad
from boxdepth.depthgen.store import DataError, DepthgenError, decode_image, open_store, verify_store

DEPTHGEN = str(Path(sysconfig.get_path("scripts")) / "depthgen")
LOCK = ".boxdepth/lock"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """Where it happens, and the command that makes the store."""

    work: Path
    source: tuple[str, ...]
    seed: int = 0

    def command(self, store: Path, *more: str) -> list[str]:
        where = ("--store", str(store), "--device", "cpu", "--unit", "4")
        return [DEPTHGEN, "run", *self.source, *where, *more]

    def start(self, store: Path, *more: str) -> subprocess.Popen[str]:
        """The command in a process group of its own."""
        return subprocess.Popen(
            self.command(store, *more),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env=os.environ | {"OMP_NUM_THREADS": "1", "NO_COLOR": "1"},
        )

    def finish(self, store: Path, *more: str) -> None:
        process = self.start(store, *more)
        _, said = process.communicate()
        assert process.returncode == 0, said

    def whole(self) -> dict[str, bytes]:
        """The bytes of a run that nothing disturbs, and how long it takes."""
        store = self.work / "whole.zarr"
        if not store.exists():
            started = time.monotonic()
            self.finish(store)
            (self.work / "seconds").write_text(str(time.monotonic() - started))
        return tree(store)

    @property
    def seconds(self) -> float:
        self.whole()
        return float((self.work / "seconds").read_text())


def tree(store: Path) -> dict[str, bytes]:
    """Every file of a store but the lock."""
    files = {p.relative_to(store).as_posix(): p for p in store.rglob("*") if p.is_file()}
    return {name: path.read_bytes() for name, path in files.items() if name != LOCK}


def drawn(work: Path, count: int, seed: int = 0) -> Bench:
    """A bench over drawn scenes."""
    made = ("--out", str(work / "scenes"), "--train", str(count), "--val", "1")
    subprocess.run([DEPTHGEN, "sample", *made], check=True, capture_output=True)
    source = ("--dataset", "coco", "--data-root", str(work / "scenes"))
    return Bench(work=work, source=source, seed=seed)


@contextlib.contextmanager
def cluster(folder: Path, workers: int = 2) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """A scheduler and its workers, started as a user starts them: its address, the workers."""
    file = folder / "scheduler.json"
    shared = ["--scheduler-file", str(file), "--no-dashboard", "--host", "127.0.0.1"]
    module = [sys.executable, "-m"]
    started: list[subprocess.Popen[bytes]] = []

    def run(*command: str) -> None:
        started.append(subprocess.Popen([*module, *command, *shared], stderr=subprocess.DEVNULL))

    try:
        run("distributed.cli.dask_scheduler", "--port", "0")
        while not file.exists():
            time.sleep(0.05)
        for _ in range(workers):
            run("distributed.cli.dask_worker", "--nthreads", "1")
        yield json.loads(file.read_text())["address"], started[1:]
    finally:
        for process in reversed(started):
            process.terminate()
        for process in started:
            process.wait(timeout=60)
        file.unlink(missing_ok=True)


def clusters(bench: Bench) -> Counter[str]:
    """In-process, two local workers, a scheduler elsewhere with two workers: the same bytes."""
    whole = bench.whole()
    bench.finish(bench.work / "jobs.zarr", "--jobs", "2")
    assert tree(bench.work / "jobs.zarr") == whole
    with cluster(bench.work) as (address, _):
        bench.finish(bench.work / "tcp.zarr", "--scheduler", address)
    assert tree(bench.work / "tcp.zarr") == whole
    return Counter(files=len(whole), bytes=sum(map(len, whole.values())), ways=3)


def kills(bench: Bench, count: int, *more: str) -> Counter[str]:
    """The whole process group is killed at random moments, start and commit included."""
    rng, whole, store = random.Random(bench.seed), bench.whole(), bench.work / "killed.zarr"
    counted: Counter[str] = Counter()
    for _ in range(count):
        process = bench.start(store, *more)
        time.sleep(rng.uniform(0, 1.1 * bench.seconds))
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        counted["killed" if process.returncode == -signal.SIGKILL else "ended before"] += 1
        if (store / ".boxdepth" / "MANIFEST.json").exists():
            assert tree(store) == whole, bench.seed
            counted["identical"] += 1
            shutil.rmtree(store)
    bench.finish(store, *more)
    assert tree(store) == whole, bench.seed
    shutil.rmtree(store)
    counted["identical"] += 1
    return counted


def dead_workers(bench: Bench, count: int) -> Counter[str]:
    """A worker of a cluster dies ``count`` times at random moments, and is replaced."""
    rng, whole, store = random.Random(bench.seed + 1), bench.whole(), bench.work / "workers.zarr"
    counted: Counter[str] = Counter()
    while counted["killed"] < count:
        process = bench.start(store, "--jobs", "2")
        killed = 0
        while process.poll() is None and counted["killed"] + killed < count:
            time.sleep(rng.uniform(0.1, bench.seconds / 2))
            victims = _workers(process.pid)
            if victims and killed < 2:  # a unit that loses three workers is given up
                with contextlib.suppress(psutil.NoSuchProcess):
                    rng.choice(victims).kill()
                    killed += 1
        _, said = process.communicate()
        counted["killed"] += killed
        if process.returncode == 6 and "do not start" in said:  # killed before they were workers
            counted["repeated"] += 1
            continue
        assert process.returncode == 0, said
        assert tree(store) == whole, bench.seed
        counted["runs identical"] += 1
        shutil.rmtree(store)
    return counted


def _workers(pid: int) -> list[psutil.Process]:
    found = []
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in psutil.Process(pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if "spawn_main" in " ".join(child.cmdline()):
                    found.append(child)
    return found


def dead_clients(bench: Bench, count: int) -> Counter[str]:
    """The client of a running cluster is killed, and its command repeated."""
    rng, whole, store = random.Random(bench.seed + 2), bench.whole(), bench.work / "client.zarr"
    with cluster(bench.work) as (address, _):
        for _ in range(count):
            process = bench.start(store, "--scheduler", address)
            time.sleep(rng.uniform(0.3, 1) * bench.seconds)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
        bench.finish(store, "--scheduler", address)
    assert tree(store) == whole
    return Counter(killed=count, identical=1)


def writers(bench: Bench, count: int) -> Counter[str]:
    """While one command writes a store, a second ends with 75 and changes nothing."""
    whole, store = bench.whole(), bench.work / "two.zarr"
    for _ in range(count):
        first = bench.start(store)
        while not (store / LOCK).exists() or not (store / LOCK).read_bytes():
            assert first.poll() is None
            time.sleep(0.002)
        os.killpg(first.pid, signal.SIGSTOP)  # it holds the lock for as long as we like
        second = bench.start(store)
        _, said = second.communicate()
        os.killpg(first.pid, signal.SIGCONT)
        assert second.returncode == 75, said
        assert f"process {first.pid} on" in said
        _, said = first.communicate()
        assert first.returncode == 0, said
        assert tree(store) == whole
        shutil.rmtree(store)
    return Counter({"second ended with 75": count, "identical": count})


def full(bench: Bench, count: int) -> Counter[str]:
    """No object may grow beyond a limit (``ulimit -f``): one line, exit 6; later it goes on."""
    whole, store = bench.whole(), bench.work / "full.zarr"
    largest, counted = max(map(len, whole.values())), Counter[str]()
    for k in range(count):
        limit = int(largest * (k + 1) / (count + 1))

        def limited(limit: int = limit) -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

        process = subprocess.Popen(
            bench.command(store), stderr=subprocess.PIPE, text=True, preexec_fn=limited
        )
        _, said = process.communicate()
        assert process.returncode == 6, (limit, said)
        assert "Traceback" not in said
        assert not (store / ".boxdepth" / "MANIFEST.json").exists()
        counted["ended with 6"] += 1
    bench.finish(store)
    assert tree(store) == whole
    return counted + Counter(identical=1)


def damages(store: Path, count: int, seed: int = 0) -> Counter[str]:
    """Every damage is found by ``verify --deep``, and no reader returns other bytes."""
    rng, before, counted = random.Random(seed), tree(store), Counter[str]()
    expected = _everything(store)
    ways = (_flip, _truncate, _empty, _delete, _zero, _stale)
    for number in range(count):
        name, damage = rng.choice(sorted(before)), ways[number % len(ways)]
        if not damage(store / name, rng):
            counted["no change"] += 1
            continue
        try:
            found = verify_store(store, deep=True).problems
        except DataError as error:
            found = (str(error),)
        assert found, (seed, damage.__name__, name)
        try:
            assert _everything(store) == expected, (seed, damage.__name__, name)
            counted["read as it was"] += 1
        except DataError:
            counted["refused by the reader"] += 1
        counted["found"] += 1
        (store / name).write_bytes(before[name])
    assert _everything(store) == expected
    return counted


STRANGE = (
    None, "", "NaN", "../../etc/passwd", "\0", "numcodecs.pickle", True, -1, 0, 0.5, 1e308, 2**40,
    2**70, [], [0], [-1, 2], [2**40], [[]], {}, {"a": 1},
)  # fmt: skip


def odd_metadata(store: Path, count: int, seed: int = 0) -> Counter[str]:
    """One value of a ``zarr.json``, a record or the manifest becomes strange, and the manifest
    vouches for it: refused in words, or read as before."""
    rng, counted, expected = random.Random(seed), Counter[str](), _everything(store)
    manifest = store / ".boxdepth" / "MANIFEST.json"
    files = sorted(store.rglob("*.json"))
    for _ in range(count):
        file = rng.choice([*files, *[manifest] * 5])
        before, vouched = file.read_bytes(), manifest.read_bytes()
        document = json.loads(before)
        *parents, last = rng.choice(list(_places(document)))
        node = document
        for key in parents:
            node = node[key]
        node[last] = rng.choice(STRANGE)
        data = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
        file.write_bytes(data)
        if file != manifest:
            hashes = [hashlib.sha256(part).hexdigest().encode() for part in (before, data)]
            manifest.write_bytes(vouched.replace(*hashes))
        try:
            assert _everything(store) == expected, (seed, file.name, parents, last)
            counted["read as it was"] += 1
        except DataError:
            counted["refused"] += 1
        file.write_bytes(before)
        manifest.write_bytes(vouched)
    return counted


def _places(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    if isinstance(tree, dict | list):
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from _places(value, (*path, key))


def _everything(store: Path) -> list[object]:
    opened = open_store(store)
    return [
        (opened.image_bytes(i), opened.quantised_depth(i).tobytes(), opened.boxes(i).xyxy.tobytes())
        for i in range(len(opened))
    ]


def _flip(path: Path, rng: random.Random) -> bool:
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)
    return True


def _truncate(path: Path, rng: random.Random) -> bool:
    os.truncate(path, rng.randrange(path.stat().st_size))
    return True


def _empty(path: Path, rng: random.Random) -> bool:
    os.truncate(path, 0)
    return True


def _delete(path: Path, rng: random.Random) -> bool:
    path.unlink()
    return True


def _zero(path: Path, rng: random.Random) -> bool:
    data = bytearray(path.read_bytes())
    start = rng.randrange(max(1, len(data) - 256))
    part = data[start : start + 256]
    data[start : start + 256] = bytes(len(part))
    path.write_bytes(data)
    return any(part)


def _stale(path: Path, rng: random.Random) -> bool:
    """Another unit's object of the same array."""
    others = sorted(p for p in path.parent.iterdir() if p.is_file() and p != path)
    if not others:
        return False
    before, data = path.read_bytes(), rng.choice(others).read_bytes()
    path.write_bytes(data)
    return data != before


def fuzz(work: Path, count: int, seed: int = 0) -> Counter[str]:
    """Damaged pictures and annotation files: read, or refused in words; nothing else."""
    rng, counted = random.Random(seed), Counter[str]()
    signal.signal(signal.SIGALRM, _too_slow)
    for number in range(count):
        signal.alarm(5)
        data = _mutated(_picture(rng), rng)
        try:
            pixels = decode_image(data, expected_size=None, name="x")
            assert pixels.dtype == np.uint8
            counted["pictures read"] += 1
        except DataError:
            counted["pictures refused"] += 1
        file = work / "fuzz.json"
        file.write_bytes(_mutated(_annotations(rng), rng) if number % 2 else _odd(rng))
        try:
            policy = rng.choice(list(OnBad))
            data_read = read_custom(
                None, images=work, annotations=file, split="train", on_bad=policy
            )
            for item in data_read.records:
                box = item.boxes_xyxy
                assert (box >= 0).all()
                assert (box[:, 2] <= item.width).all()
                assert (box[:, 3] <= item.height).all()
            counted["annotations read"] += 1
        except DepthgenError:
            counted["annotations refused"] += 1
    signal.alarm(0)
    counted["peak MB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return counted


def _too_slow(*_: object) -> None:
    raise AssertionError("more than five seconds for one file")


def _picture(rng: random.Random) -> bytes:
    import io

    pixels = np.random.default_rng(rng.randrange(1 << 30)).integers(0, 256, (24, 31, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, rng.choice(["JPEG", "PNG", "WEBP", "TIFF", "BMP"]))
    return buffer.getvalue()


def _annotations(rng: random.Random) -> bytes:
    return json.dumps(_document(rng)).encode()


def _document(rng: random.Random) -> dict[str, object]:
    return {
        "images": [{"id": i, "file_name": f"{i}.jpg", "height": 40, "width": 50} for i in range(3)],
        "annotations": [
            {"id": k, "image_id": rng.randrange(3), "category_id": 1,
             "bbox": [rng.uniform(-9, 50) for _ in range(4)], "iscrowd": 0}
            for k in range(4)
        ],
        "categories": [{"id": 1, "name": "cup"}],
    }  # fmt: skip


def _odd(rng: random.Random) -> bytes:
    """One field of a good document becomes something strange."""
    strange = (None, "", "NaN", -1, 1e308, [], {}, [[]], True, 2**70, "../../etc/passwd", "\x00", 0)
    document = _document(rng)
    table = rng.choice(sorted(document))
    rows = document[table]
    assert isinstance(rows, list)
    row = rng.choice(rows)
    row[rng.choice(sorted(row))] = rng.choice(strange)
    return json.dumps(document).encode()


def _mutated(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.randrange(1, 8)):
        place = rng.randrange(len(changed))
        match rng.randrange(3):
            case 0:
                changed[place] = rng.randrange(256)
            case 1:
                del changed[place : place + rng.randrange(40)]
            case _:
                changed[place:place] = rng.randbytes(rng.randrange(20))
        if not changed:
            return b""
    return bytes(changed)


def many(work: Path, count: int) -> Counter[str]:
    """A tenth of the images, then all of them: the peak memory of each run, in megabytes."""
    photos = work / "many"
    photos.mkdir()
    rng = np.random.default_rng(0)
    for i in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (3, 4, 3), dtype=np.uint8))
        coarse.resize((64, 48), Image.Resampling.BICUBIC).save(photos / f"{i:06d}.jpg")
    counted: Counter[str] = Counter()
    source = ("--dataset", "folder", "--images", str(photos))
    for images in (count // 10, count):
        store = work / f"many-{images}.zarr"
        typed = [DEPTHGEN, "run", *source, "--store", str(store), "--limit", str(images),
                 "--depth-grid", "48x64", "--device", "cpu", "--json"]  # fmt: skip
        said = json.loads(_output([*typed, "--dry-run"]))
        started = time.monotonic()
        process = subprocess.Popen(typed, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = status
        assert status == 0
        nbytes = sum(p.stat().st_size for p in store.rglob("*") if p.is_file())
        counted[f"{images} images: peak MB"] = usage.ru_maxrss // 1024
        counted[f"{images} images: seconds"] = int(time.monotonic() - started)
        counted[f"{images} images: dry run said seconds"] = int(said["seconds"])
        counted[f"{images} images: dry run's bytes, per mille"] = 1000 * said["bytes"] // nbytes
    return counted


def _output(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.strip().splitlines()[-1]


def sections(
    work: Path, size: argparse.Namespace, *, photos: Path | None
) -> dict[str, Callable[[], Counter[str]]]:
    """What there is to run, by name."""
    bench = drawn(work, 24, seed=size.seed)
    real = bench
    if photos is not None:
        source = ("--dataset", "coco", "--data-root", str(photos), "--split", "train2017")
        (work / "photos").mkdir()
        real = Bench(work=work / "photos", source=source)

    def copied(name: str) -> Path:
        bench.whole()
        return shutil.copytree(work / "whole.zarr", work / name)

    return {
        "clusters": lambda: clusters(real),
        "kills": lambda: kills(bench, size.kills),
        "kills of a local cluster": lambda: kills(bench, size.kills // 5, "--jobs", "2"),
        "dead workers": lambda: dead_workers(bench, 5),
        "dead clients": lambda: dead_clients(bench, 3),
        "two writers": lambda: writers(bench, size.writers),
        "full disk": lambda: full(bench, size.full),
        "damages": lambda: damages(copied("copy.zarr"), size.damages, size.seed),
        "odd metadata": lambda: odd_metadata(copied("odd.zarr"), size.damages, size.seed),
        "fuzz": lambda: fuzz(work, size.fuzz, size.seed),
        "many images": lambda: many(work, size.many),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nightly", action="store_true", help="the large sizes")
    parser.add_argument("--only", action="append", help="a section; repeatable")
    parser.add_argument("--photos", type=Path, help="COCO's layout, for the clusters")
    parser.add_argument("--seed", type=int, default=0)
    for name, (few, lots) in {
        "kills": (5, 250), "writers": (1, 25), "full": (4, 40), "damages": (150, 3000),
        "fuzz": (300, 6000), "many": (500, 20_000),
    }.items():  # fmt: skip
        parser.add_argument(f"--{name}", type=int, help=f"{few}, nightly {lots}")
        parser.set_defaults(**{f"_{name}": (few, lots)})
    size = parser.parse_args()
    for name in ("kills", "writers", "full", "damages", "fuzz", "many"):
        if getattr(size, name) is None:
            setattr(size, name, getattr(size, f"_{name}")[size.nightly])
    with tempfile.TemporaryDirectory() as folder:
        for name, section in sections(Path(folder), size, photos=size.photos).items():
            if size.only and name not in size.only:
                continue
            started = time.monotonic()
            counted = section()
            text = ", ".join(f"{what} {number}" for what, number in counted.items())
            print(f"{name}: {text} ({time.monotonic() - started:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
