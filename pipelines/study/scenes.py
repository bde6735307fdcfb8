"""The study on drawn scenes, where masks and depth are known exactly."""

import json
from dataclasses import dataclass
from pathlib import Path

from boxdepth.trainer.config import RunConfig
from paper.rows import Row, config_of
from stages import call, console, ensure_store, finished
from study.exact_depth import write_exact_store
from study.study import VARIANTS, Study


@dataclass(frozen=True, slots=True, kw_only=True)
class ScenesStudy(Study):
    """On drawn scenes."""

    @property
    def scenes(self) -> Path:
        """The drawn scenes."""
        return self.out / "scenes"

    @property
    def annotations(self) -> Path:
        """Exact masks of the validation scenes."""
        return self.scenes / "annotations" / "instances_val2017.json"

    def store(self, split: str, *, exact: bool = False) -> Path:
        """The store of a split."""
        return self.out / "stores" / f"{'exact' if exact else 'scenes'}-{split}.zarr"

    def row_config(self, row: Row) -> RunConfig:
        """A row of the paper on scenes."""
        return config_of(row, "scenes", scale=self.scale)

    def about(self) -> str:
        """Scenes, camouflage, length."""
        facts = json.loads((self.out / "scenes.json").read_text())
        share = facts["camouflaged"] / max(facts["instances"], 1)
        iterations = VARIANTS["both"].config(self).schedule.iterations
        return (
            f"{facts['train']} training and {facts['val']} validation scenes, "
            f"{100 * share:.0f} % of the objects camouflaged, {iterations} iterations"
        )


def prepare(study: ScenesStudy, *sample: str, exact: bool) -> None:
    """Draw the scenes and make the stores, as far as they are missing.

    Args:
        sample: options of `depthgen sample`.
    """
    drawn = study.out / "scenes.json"
    if not drawn.is_file():
        command = ("depthgen", "sample", "--out", str(study.scenes), *sample, "--json")
        facts = call("Draw scenes", *command).result
        drawn.write_text(json.dumps(facts) + "\n")
    source = ("--dataset", "coco", "--data-root", str(study.scenes))
    for split in ("train2017", "val2017"):
        options = (*source, "--split", split, "--with-masks")
        ensure_store(study.store(split), *options, title=f"Pseudo-depth for {split}")
    if exact and not finished(study.store("train2017", exact=True)):
        console.print("Exact depth of the training scenes")
        write_exact_store(study.store("train2017", exact=True), study.scenes, "train2017")
