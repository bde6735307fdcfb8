"""Does depth help? The paper's ablation on drawn scenes, where masks and depth are known exactly.

    python pipelines/ablate_scenes.py --out ablation --seeds 3

draws scenes, generates pseudo-depth, trains every variant with every seed for the same number of
iterations, scores masks on unseen scenes, and writes `ablation.md`: mean and spread. Finished runs
are kept and interrupted ones resume, so the command may be stopped and repeated, also with more
seeds or other variants. Runs that differ only from some iteration on share what comes before it:
the distilled ones fork from the run without distillation where the teacher is born.
"""

import json
import statistics
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from boxdepth.trainer.config import RunConfig
from boxdepth.trainer.engine.checkpoint import step_folder
from boxdepth.trainer.resolve import apply_overrides
from exact_depth import write_exact_store
from given_boxes import mean_mask_iou
from paper_rows import ROWS, config_of
from stages import call, console, ensure_store, finished, fit, predict, score


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One line of the table."""

    title: str
    row: str
    """The paper's row whose method it has."""
    exact_depth: bool = False
    stem: str | None = None
    """The variant that this one is equal to until distillation starts; it forks from there."""
    settings: tuple[str, ...] = ()
    """What differs from the row."""
    extra: bool = False
    """Only run when named: a look at why a result is what it is."""

    def config(self, study: "Study") -> RunConfig:
        """The variant's run, apart from its seed."""
        config = config_of(ROWS[self.row], "scenes", scale=study.scale)
        data = config.data.model_copy(
            update={"train": study.store("train2017", exact=self.exact_depth), "val": None}
        )
        every = min(config.distillation.start or 1, config.schedule.iterations)
        checkpoints = config.checkpoints.model_copy(update={"every": every, "keep": 3})
        config = config.model_copy(update={"data": data, "checkpoints": checkpoints})
        return apply_overrides(config, [*self.settings, *study.settings])


VARIANTS: Mapping[str, Variant] = {
    "boxinst": Variant(title="BoxInst", row="boxinst-r50-1x"),
    "depth": Variant(title="+ L_depth", row="terms-depth"),
    "cons": Variant(title="+ L_cons", row="terms-cons"),
    "both": Variant(title="+ both", row="terms-both"),
    "distill-iou": Variant(
        title="+ both + distillation, IoU match", row="teacher-800-iou", stem="both"
    ),
    "distill": Variant(title="+ both + distillation, S_match", row="ours-r50-1x", stem="both"),
    "both-exact": Variant(title="+ both, exact depth", row="terms-both", exact_depth=True),
    "distill-exact": Variant(
        title="+ both + distillation, S_match, exact depth",
        row="ours-r50-1x",
        stem="both-exact",
        exact_depth=True,
    ),
    "mixed": Variant(
        title="BoxInst, with masks of 10 % of the objects",
        row="boxinst-r50-1x",
        settings=("data.supervision=mixed", "data.mask_fraction=0.1"),
    ),
    "condinst": Variant(title="CondInst, learnt from masks", row="condinst-r50-1x"),
    "tau-0.3": Variant(title="+ both, tau_d = 0.3", row="tau-0.3", extra=True),
    "tau-0.7": Variant(title="+ both, tau_d = 0.7", row="tau-0.7", extra=True),
    "whole-image": Variant(
        title="+ both, L_cons on the whole image",
        row="terms-both",
        settings=("losses.consistency_region=image",),
        extra=True,
    ),
    "no-warmup": Variant(
        title="+ both, L_cons from the start",
        row="terms-both",
        settings=("losses.consistency_warmup=none",),
        extra=True,
    ),
    "giou": Variant(
        title="+ both + distillation, GIoU, decaying beta",
        row="ours-r50-1x",
        stem="both",
        settings=(
            "distillation.matching.iou=giou",
            "distillation.matching.beta_schedule=linear",
        ),
        extra=True,
    ),
    "boxteacher": Variant(title="BoxTeacher", row="boxteacher-r50-1x", extra=True),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """Where everything lies and how long a run is."""

    out: Path
    scale: float
    device: str
    settings: tuple[str, ...] = ()
    """`--set` assignments of every run."""

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


def prepare(
    study: Study, *, train: int, val: int, scene_seed: int, camouflage: float, exact: bool
) -> None:
    """Draw the scenes and make the stores, as far as they are missing."""
    drawn = study.out / "scenes.json"
    if not drawn.is_file():
        asked = ("--train", str(train), "--val", str(val), "--seed", str(scene_seed))
        asked = (*asked, "--camouflage", str(camouflage))
        facts = call(
            "Draw scenes", "depthgen", "sample", "--out", str(study.scenes), *asked, "--json"
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


def refuse_other_study(study: Study) -> None:
    """One folder holds runs of one length and one set of settings.

    Raises:
        typer.BadParameter: this folder's are others.
    """
    file = study.out / "study.json"
    asked = {"scale": study.scale, "settings": list(study.settings)}
    if file.is_file() and json.loads(file.read_text()) != asked:
        raise typer.BadParameter(f"{study.out} holds runs of {file.read_text().strip()}; use --out")
    file.write_text(json.dumps(asked) + "\n")


def run_variant(study: Study, name: str, seed: int) -> None:
    """Fit, predict and score one variant with one seed, unless that is done."""
    folder = study.folder(name, seed)
    result = folder / "result.json"
    if result.is_file():
        console.print(f"[dim]{name}, seed {seed}: kept")
        return
    variant = VARIANTS[name]
    folder.mkdir(parents=True, exist_ok=True)
    config = variant.config(study).model_copy(update={"seed": seed})
    asked = folder / "asked.json"
    asked.write_text(config.model_dump_json(indent=2) + "\n")
    device = ("--device", study.device)
    fork = None
    if variant.stem is not None:
        run_variant(study, variant.stem, seed)
        stem = study.folder(variant.stem, seed) / "run" / "checkpoints"
        fork = step_folder(stem, config.distillation.start)
    # Not there any more: the stem was interrupted and went on past it. Then from the beginning.
    fitted = fit(asked, folder / "run", *device, fork=fork if fork and fork.is_dir() else None)
    has_teacher = config.distillation.method != "off"
    scores = {
        weights: judge(study, folder, weights)
        for weights in (("teacher", "student") if has_teacher else ("student",))
    }
    about = {"variant": name, "seed": seed, "scale": study.scale, "seconds": fitted.get("seconds")}
    result.write_text(json.dumps({**about, "segm": scores}, indent=2) + "\n")


def families(names: Iterable[str]) -> list[list[str]]:
    """The variants, those with one stem together: it must not be trained twice at a time."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(VARIANTS[name].stem or name, []).append(name)
    return list(groups.values())


def run_family(study: Study, names: Iterable[str], seed: int) -> None:
    """Variants of one stem, one after the other."""
    for name in names:
        run_variant(study, name, seed)


def judge(study: Study, folder: Path, weights: str) -> dict[str, Any]:
    """Mask AP on the validation scenes, and the masks of their true boxes."""
    run, store = folder / "run", study.store("val2017")
    options = ("--weights", weights, "--device", study.device)
    predictions, given = folder / f"{weights}.json", folder / f"{weights}-given.json"
    predict(run, store, predictions, *options)
    found = score(predictions, study.annotations, "--iou-type", "segm")["segm"]
    predict(run, store, given, "--boxes", str(study.annotations), *options)
    overlap = mean_mask_iou(given, study.annotations)
    return {key: value for key, value in found.items() if key != "per_class"} | {
        f"given_boxes_{kind}": value for kind, value in overlap.items()
    }


COLUMNS = (
    "ap", "ap50", "ap75", "given_boxes_all", "given_boxes_camouflaged", "given_boxes_plain",
)  # fmt: skip


def markdown(study: Study, names: Iterable[str]) -> str:
    """The table: mean and spread over the seeds of what is there."""
    facts = json.loads((study.out / "scenes.json").read_text())
    share = facts["camouflaged"] / max(facts["instances"], 1)
    iterations = VARIANTS["both"].config(study).schedule.iterations
    lines = [
        f"{facts['train']} training and {facts['val']} validation scenes, "
        f"{100 * share:.0f} % of the objects camouflaged, {iterations} iterations"
        f"{', ' + ', '.join(study.settings) if study.settings else ''}. "
        "Mask AP in percent on unseen scenes, mean ± standard deviation over seeds; "
        "distilled: the teacher (the student in brackets). IoU: mean over the masks of the true "
        "boxes, in percent.",
        "",
        "| variant | AP | AP50 | AP75 | IoU | camouflaged | plain | seeds |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name in names:
        found = study.results(name)
        if not found:
            continue
        cells = [_cell(found, key) for key in COLUMNS]
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
    camouflage: Annotated[
        float, typer.Option(min=0, max=1, help="Share of shapes coloured like what is behind them.")
    ] = 0.4,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Passed to every run; use another --out.")
    ] = None,
) -> None:
    """Train every variant with every seed and tabulate mask AP."""
    names = only or [name for name, variant in VARIANTS.items() if not variant.extra]
    unknown = sorted(set(names) - VARIANTS.keys())
    if unknown:
        raise typer.BadParameter(
            f"no variant {', '.join(unknown)}; there are {', '.join(VARIANTS)}"
        )
    study = Study(out=out, scale=scale, device=device, settings=tuple(settings or ()))
    out.mkdir(parents=True, exist_ok=True)
    refuse_other_study(study)
    exact = any(VARIANTS[name].exact_depth for name in names)
    prepare(study, train=train, val=val, scene_seed=scene_seed, camouflage=camouflage, exact=exact)
    groups = [(group, seed) for seed in range(seeds) for group in families(names)]
    with ThreadPoolExecutor(jobs) as pool:
        for job in [pool.submit(run_family, study, group, seed) for group, seed in groups]:
            job.result()
            (out / "ablation.md").write_text(markdown(study, VARIANTS), encoding="utf-8")
    print(markdown(study, VARIANTS))


if __name__ == "__main__":
    typer.run(main)
