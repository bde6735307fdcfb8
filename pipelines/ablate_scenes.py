"""Does depth help? The paper's ablation on drawn scenes, where masks and depth are known exactly.

    python pipelines/ablate_scenes.py --out ablation --seeds 3

draws scenes, generates pseudo-depth, trains every variant with every seed for the same number of
iterations, scores masks on unseen scenes, and writes `ablation.md`: mean and spread. Finished runs
are kept and interrupted ones resume, so the command may be stopped and repeated, also with more
seeds or other variants.
"""

import json
import statistics
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from exact_depth import write_exact_store
from paper_rows import ROWS, config_of
from stages import call, console, ensure_store, finished, fit, predict, score


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One line of the table."""

    title: str
    row: str
    """The paper's row whose method it has."""
    exact_depth: bool = False

    @property
    def has_teacher(self) -> bool:
        """Whether student and teacher are scored apart."""
        return config_of(ROWS[self.row], "scenes").distillation.method != "off"


VARIANTS: Mapping[str, Variant] = {
    "boxinst": Variant(title="BoxInst", row="boxinst-r50-1x"),
    "depth": Variant(title="+ L_depth", row="terms-depth"),
    "cons": Variant(title="+ L_cons", row="terms-cons"),
    "both": Variant(title="+ both", row="terms-both"),
    "distill-iou": Variant(title="+ both + distillation, IoU match", row="teacher-800-iou"),
    "distill": Variant(title="+ both + distillation, S_match", row="ours-r50-1x"),
    "both-exact": Variant(title="+ both, exact depth", row="terms-both", exact_depth=True),
    "distill-exact": Variant(
        title="+ both + distillation, S_match, exact depth", row="ours-r50-1x", exact_depth=True
    ),
    "condinst": Variant(title="CondInst, learnt from masks", row="condinst-r50-1x"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """Where everything lies and how long a run is."""

    out: Path
    scale: float
    device: str

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

    def folder(self, name: str, seed: int) -> Path:
        """One run."""
        return self.out / "runs" / name / f"seed-{seed}"

    def results(self, name: str) -> list[dict[str, Any]]:
        """The finished runs of a variant."""
        files = sorted((self.out / "runs" / name).glob("seed-*/result.json"))
        return [json.loads(file.read_text()) for file in files]


def prepare(study: Study, *, train: int, val: int, scene_seed: int, exact: bool) -> None:
    """Draw the scenes and make the stores, as far as they are missing."""
    drawn = study.out / "scenes.json"
    if not drawn.is_file():
        counts = ("--train", str(train), "--val", str(val), "--seed", str(scene_seed))
        facts = call(
            "Draw scenes", "depthgen", "sample", "--out", str(study.scenes), *counts, "--json"
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


def run_variant(study: Study, name: str, seed: int) -> None:
    """Fit, predict and score one variant with one seed, unless that is done."""
    folder = study.folder(name, seed)
    result = folder / "result.json"
    if result.is_file():
        console.print(f"[dim]{name}, seed {seed}: kept")
        return
    variant = VARIANTS[name]
    folder.mkdir(parents=True, exist_ok=True)
    config = config_of(ROWS[variant.row], "scenes", scale=study.scale)
    train = study.store("train2017", exact=variant.exact_depth)
    data = config.data.model_copy(update={"train": train, "val": None})
    config = config.model_copy(update={"seed": seed, "data": data})
    asked = folder / "asked.json"
    asked.write_text(config.model_dump_json(indent=2) + "\n")
    device = ("--device", study.device)
    fitted = fit(asked, folder / "run", *device)
    scores = {}
    for weights in ("teacher", "student") if variant.has_teacher else ("student",):
        predictions = folder / f"{weights}.json"
        predict(folder / "run", study.store("val2017"), predictions, "--weights", weights, *device)
        found = score(predictions, study.annotations, "--iou-type", "segm")["segm"]
        scores[weights] = {key: value for key, value in found.items() if key != "per_class"}
    about = {"variant": name, "seed": seed, "scale": study.scale, "seconds": fitted.get("seconds")}
    result.write_text(json.dumps({**about, "segm": scores}, indent=2) + "\n")


def markdown(study: Study, names: Iterable[str]) -> str:
    """The table: mean and spread over the seeds of what is there."""
    facts = json.loads((study.out / "scenes.json").read_text())
    share = facts["camouflaged"] / max(facts["instances"], 1)
    iterations = config_of(ROWS["ours-r50-1x"], "scenes", scale=study.scale).schedule.iterations
    lines = [
        f"{facts['train']} training and {facts['val']} validation scenes, "
        f"{100 * share:.0f} % of the objects camouflaged, {iterations} iterations. "
        "Mask AP in percent on unseen scenes, mean ± standard deviation over seeds; "
        "distilled: the teacher (the student in brackets).",
        "",
        "| variant | AP | AP50 | AP75 | seeds |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name in names:
        found = study.results(name)
        if not found:
            continue
        cells = [_cell(found, key) for key in ("ap", "ap50", "ap75")]
        lines.append(f"| {VARIANTS[name].title} | {' | '.join(cells)} | {len(found)} |")
    return "\n".join(lines) + "\n"


def _cell(results: list[dict[str, Any]], key: str) -> str:
    text = [
        _spread([100 * result["segm"][weights][key] for result in results])
        for weights in ("teacher", "student")
        if results and all(weights in result["segm"] for result in results)
    ]
    return "" if not text else text[0] if len(text) == 1 else f"{text[0]} ({text[1]})"


def _spread(values: list[float]) -> str:
    mean = statistics.fmean(values)
    return f"{mean:.1f} ± {statistics.stdev(values):.1f}" if len(values) > 1 else f"{mean:.1f}"


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
) -> None:
    """Train every variant with every seed and tabulate mask AP."""
    names = only or list(VARIANTS)
    unknown = sorted(set(names) - VARIANTS.keys())
    if unknown:
        raise typer.BadParameter(
            f"no variant {', '.join(unknown)}; there are {', '.join(VARIANTS)}"
        )
    study = Study(out=out, scale=scale, device=device)
    out.mkdir(parents=True, exist_ok=True)
    exact = any(VARIANTS[name].exact_depth for name in names)
    prepare(study, train=train, val=val, scene_seed=scene_seed, exact=exact)
    runs = [(name, seed) for seed in range(seeds) for name in names]
    with ThreadPoolExecutor(jobs) as pool:
        for job in [pool.submit(run_variant, study, name, seed) for name, seed in runs]:
            job.result()
            (out / "ablation.md").write_text(markdown(study, VARIANTS), encoding="utf-8")
    print(markdown(study, VARIANTS))


if __name__ == "__main__":
    typer.run(main)
