"""Does depth help? The paper's ablation on drawn scenes, where masks and depth are known exactly.

    python pipelines/ablate_scenes.py --out ablation --seeds 3

draws scenes, generates pseudo-depth, trains every variant with every seed for the same number of
iterations, scores masks on unseen scenes, and writes `ablation.md`: mean and spread. Finished runs
are kept and interrupted ones resume, so the command may be stopped and repeated, also with more
seeds or other variants. Runs that differ only from some iteration on share what comes before it:
those with L_cons fork where it sets in, the distilled ones where the teacher is born.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from ablation import VARIANTS, Study, choose, refuse_other_study, run_all
from boxdepth.trainer.config import RunConfig
from exact_depth import write_exact_store
from paper_rows import Row, config_of
from stages import call, console, ensure_store, finished


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


def prepare(
    study: ScenesStudy, *, train: int, val: int, scene_seed: int, camouflage: float, exact: bool
) -> None:
    """Draw the scenes and make the stores, as far as they are missing."""
    drawn = study.out / "scenes.json"
    if not drawn.is_file():
        asked = ("--train", str(train), "--val", str(val), "--seed", str(scene_seed))
        paint = ("--camouflage", str(camouflage))
        facts = call(
            "Draw scenes",
            "depthgen",
            "sample",
            "--out",
            str(study.scenes),
            *asked,
            *paint,
            "--json",
        )
        drawn.write_text(json.dumps(facts) + "\n")
    source = ("--dataset", "coco", "--data-root", str(study.scenes))
    for split in ("train2017", "val2017"):
        ensure_store(
            study.store(split), *source, "--split", split, title=f"Pseudo-depth for {split}"
        )
    if exact and not finished(study.store("train2017", exact=True)):
        console.print("Exact depth of the training scenes")
        write_exact_store(study.store("train2017", exact=True), study.scenes, "train2017")


def main(
    out: Annotated[Path, typer.Option(help="Folder for everything.")] = Path("ablation"),
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each variant.")] = 3,
    train: Annotated[int, typer.Option(min=8, help="Scenes to learn from.")] = 512,
    val: Annotated[int, typer.Option(min=1, help="Scenes to be scored on.")] = 256,
    scale: Annotated[float, typer.Option(min=1e-3, help="Factor of the iterations.")] = 1.0,
    only: Annotated[list[str] | None, typer.Option(help="Variants; default: all.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda...")] = "auto",
    jobs: Annotated[int, typer.Option(min=1, help="Runs at a time.")] = 1,
    scene_seed: Annotated[int, typer.Option(help="Seed of the scenes.")] = 0,
    camouflage: Annotated[
        float, typer.Option(min=0, max=1, help="Share of shapes coloured like what is behind them.")
    ] = 0.4,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Passed to every run; use another --out.")
    ] = None,
) -> None:
    """Train every variant with every seed and tabulate mask AP."""
    names = choose(only, (name for name, variant in VARIANTS.items() if not variant.extra))
    study = ScenesStudy(out=out, scale=scale, device=device, settings=tuple(settings or ()))
    out.mkdir(parents=True, exist_ok=True)
    refuse_other_study(study)
    exact = any(VARIANTS[name].exact_depth for name in names)
    prepare(study, train=train, val=val, scene_seed=scene_seed, camouflage=camouflage, exact=exact)
    print(run_all(study, names, seeds=seeds, jobs=jobs))


if __name__ == "__main__":
    typer.run(main)
