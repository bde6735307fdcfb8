"""Folders of images: what lies there, how large each image is, and what is no image."""

from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from boxdepth.depthgen.datasets.fields import Notes
from boxdepth.depthgen.datasets.paths import hidden
from boxdepth.depthgen.datasets.places import (
    HEADER_BYTES,
    Images,
    RemoteFolder,
    open_images,
    read_head,
)
from boxdepth.depthgen.datasets.records import (
    Dataset,
    ImageFile,
    OnBad,
    RecordBuilder,
    settle,
)
from boxdepth.depthgen.store.errors import (
    ConfigError,
    EnvironmentFailure,
    ImageError,
    environment_failure,
    is_of_the_machine,
)
from boxdepth.depthgen.store.images import IMAGE_SUFFIXES, image_size
from boxdepth.depthgen.store.remote_file import RemoteFile

AT_ONCE = 32
"""Files that are asked for at a time."""

LABEL_SUFFIXES = frozenset({".txt", ".xml", ".json", ".yaml", ".csv"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What a folder holds, subfolders included, in the order of names.

    Attributes:
        names: Images, relative to the folder, with forward slashes.
        others: How many files of each other ending there are (in lower case).
        hidden: Files that file managers hide.
    """

    names: tuple[str, ...]
    others: Counter[str]
    hidden: int


def list_images(folder: Images) -> Listing:
    """List the images of a folder; hidden files and folders are passed over and counted."""
    names, others, hidden_files = [], Counter[str](), 0
    for file in folder.files():
        suffix = file.suffix.lower()
        if hidden(file):
            hidden_files += 1
        elif suffix in IMAGE_SUFFIXES:
            names.append(file.as_posix())
        else:
            others[suffix or "no ending"] += 1
    return Listing(names=tuple(sorted(names)), others=others, hidden=hidden_files)


def measure_images(folder: Images, names: Sequence[str]) -> tuple[dict[str, ImageFile], list[str]]:
    """Size and place of each named image, by name, and what is wrong with the others.

    Ids count from 1 in the order given, those that cannot be used included.

    Raises:
        EnvironmentFailure: The disk fails.
    """

    def look(number: int, name: str) -> ImageFile | str:
        try:
            path, stored = folder.locate(name)
            height, width = _size(path, name)
        except OSError as error:
            if is_of_the_machine(error):
                raise environment_failure(error, folder.root / name) from error
            return f"{name!a}: {error.strerror}"
        except EnvironmentFailure:
            raise
        except ValueError as error:
            return str(error)
        return ImageFile(id=number, name=stored, path=path, height=height, width=width)

    # A request waits for the network, not for this machine.
    with ThreadPoolExecutor(AT_ONCE if isinstance(folder, RemoteFolder) else None) as pool:
        found = list(pool.map(look, range(1, len(names) + 1), names))
    images = {
        name: item for name, item in zip(names, found, strict=True) if isinstance(item, ImageFile)
    }
    return images, [item for item in found if isinstance(item, str)]


def _size(file: Path | RemoteFile, name: str) -> tuple[int, int]:
    head = read_head(file)
    try:
        return image_size(head, name=name)
    except ImageError:  # a header behind large metadata, or at the end as in many TIFF files
        if len(head) < HEADER_BYTES:
            raise
        return image_size(file.read_bytes(), name=name)


def note_listing(notes: Notes, listing: Listing, *, expected: Iterable[str] = ()) -> None:
    """Say which files of a folder are not read, but for the endings that belong there."""
    notes.add("file", "hidden, passed over", listing.hidden)
    for suffix, count in sorted(listing.others.items()):
        if suffix not in set(expected):
            notes.add("file", f"no image by its ending ({suffix}), passed over", count)


def read_folder(
    images: Path,
    *,
    split: str,
    name: str = "folder",
    masks: bool = False,
    on_bad: OnBad = OnBad.error,
) -> Dataset:
    """Read a folder of images without annotations: they get depth and no boxes.

    Subfolders are read, links are followed, hidden files and other files are passed over and
    counted. Ids count from 1 in the order of names.

    Raises:
        ConfigError: No such folder, or no image in it.
        DataError: Files that are no images although their ending says so.
    """
    folder = open_images(images)
    listing = list_images(folder)
    if not listing.names:
        raise ConfigError(f"{images}: no image in it (looked for {_suffixes()})")
    notes = Notes()
    measured, problems = measure_images(folder, listing.names)
    rejected = settle(problems, source=images, on_bad=on_bad)
    notes.add("folder", "without annotations: its images get depth and no boxes")
    note_listing(notes, listing)
    if labels := LABEL_SUFFIXES & listing.others.keys():
        notes.add(
            "folder",
            f"with {', '.join(sorted(labels))} files beside the images; if they are labels, "
            "--dataset yolo or --dataset voc reads them, --annotations a COCO-format file",
        )
    notes.add("image", "a link that leads out of the image folder", folder.links_followed)
    builder = RecordBuilder(masks=masks)
    records = tuple(builder.build(image, ()) for image in measured.values())
    report = builder.report(records, rejected=rejected, notes=notes.lines())
    return Dataset(name=name, split=split, categories=(), records=records, report=report)


def _suffixes() -> str:
    return ", ".join(sorted(IMAGE_SUFFIXES))
