"""A study: variants of the method, several seeds each, trained alike and judged alike.

What is compared is a `Variant`, where and on what a `Study`. `ablate.py` has the
commands.
"""

import json
import statistics
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from boxdepth.trainer.config import RunConfig
from boxdepth.trainer.config.overrides import apply_overrides
from boxdepth.trainer.engine.checkpoint import step_folder
from paper.rows import ROWS, Row
from stages import console, fit, predict, score
from study.given_boxes import mean_mask_iou


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One line of the table."""

    title: str
    row: str
    """The paper's row whose method it has."""
    exact_depth: bool = False
    stem: str | None = None
    """The variant that this one equals until L_cons sets in (iteration W) or, if it distils, until
    the teacher is born; it forks from the last checkpoint before."""
    settings: tuple[str, ...] = ()
    """What differs from the row."""
    extra: bool = False
    """Only run when named: a look at why a result is what it is."""

    def config(self, study: "Study") -> RunConfig:
        """The variant's run, apart from its seed."""
        config = study.row_config(ROWS[self.row])
        store = study.store("train2017", exact=self.exact_depth)
        data = config.data.changed(train=store, val=None)
        every = min(config.losses.warmup_iterations or 1, config.schedule.iterations)
        keep = config.schedule.iterations // every + 1
        checkpoints = config.checkpoints.changed(every=every, keep=keep)
        config = config.changed(data=data, checkpoints=checkpoints)
        return apply_overrides(config, [*self.settings, *study.settings])


VARIANTS: Mapping[str, Variant] = {
    "boxinst": Variant(title="BoxInst", row="boxinst-r50-1x"),
    "depth": Variant(title="+ L_depth", row="terms-depth"),
    "cons": Variant(title="+ L_cons", row="terms-cons", stem="boxinst"),
    "both": Variant(title="+ both", row="terms-both", stem="depth"),
    "cons-alone": Variant(
        title="L_cons instead of colour",
        row="terms-cons",
        settings=("losses.color=0",),
        extra=True,
    ),
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
    "product": Variant(
        title="+ L_depth, mask logit times depth",
        row="terms-depth",
        settings=("model.mask_head.depth=product",),
        extra=True,
    ),
    "product-both": Variant(
        title="+ both, mask logit times depth",
        row="terms-both",
        stem="product",
        settings=("model.mask_head.depth=product",),
        extra=True,
    ),
    "layer": Variant(
        title="+ L_cons, with a depth layer that nothing teaches",
        row="terms-cons",
        settings=("model.mask_head.depth=sum",),
        extra=True,
    ),
    "in-box": Variant(
        title="+ both, L_cons in the box",
        row="terms-both",
        stem="depth",
        settings=("losses.consistency_region=box",),
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
class Study(ABC):
    """Where everything lies and how long a run is."""

    out: Path
    scale: float = 1.0
    """Factor of the iterations."""
    device: str = "auto"
    settings: tuple[str, ...] = ()
    """`--set` assignments of every run."""

    @property
    @abstractmethod
    def annotations(self) -> Path:
        """Exact masks of the validation images."""

    @abstractmethod
    def store(self, split: str, *, exact: bool = False) -> Path:
        """The store of a split."""

    @abstractmethod
    def row_config(self, row: Row) -> RunConfig:
        """A row of the paper on this study's data."""

    @abstractmethod
    def about(self) -> str:
        """What the runs learn from and are judged on, in a sentence for the table."""

    def folder(self, name: str, seed: int) -> Path:
        """One run."""
        return self.out / "runs" / name / f"seed-{seed}"

    def results(self, name: str) -> list[dict[str, Any]]:
        """The finished runs of a variant."""
        files = sorted((self.out / "runs" / name).glob("seed-*/result.json"))
        return [json.loads(file.read_text()) for file in files]


def begin(study: Study) -> None:
    """Make the study's folder: it holds runs of one length and one set of settings.

    Raises:
        typer.BadParameter: this folder's are others.
    """
    study.out.mkdir(parents=True, exist_ok=True)
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
    config = variant.config(study).changed(seed=seed)
    asked = folder / "asked.json"
    asked.write_text(config.model_dump_json(indent=2) + "\n")
    device = ("--device", study.device)
    has_teacher = config.distillation.method != "off"
    fork = None
    if variant.stem is not None:
        run_variant(study, variant.stem, seed)
        stem = study.folder(variant.stem, seed) / "run" / "checkpoints"
        last = config.distillation.start if has_teacher else config.losses.warmup_iterations
        fork = step_folder(stem, last - last % config.checkpoints.every)
    # A stem whose checkpoint was deleted, to save room, say: then from the beginning.
    stem_state = fork if fork and fork.is_dir() else None
    fitted = fit(("--config", str(asked)), folder / "run", *device, fork=stem_state)
    scores = {
        weights: judge(study, folder, weights)
        for weights in (("teacher", "student") if has_teacher else ("student",))
    }
    about = {
        "variant": name,
        "seed": seed,
        "scale": study.scale,
        "seconds": fitted.result.get("seconds"),
    }
    result.write_text(json.dumps({**about, "segm": scores}, indent=2) + "\n")


def families(names: Iterable[str]) -> list[list[str]]:
    """The variants, those with one stem together: it must not be trained twice at a time."""
    groups: dict[str, list[str]] = {}
    for name in names:
        root = name
        while stem := VARIANTS[root].stem:
            root = stem
        groups.setdefault(root, []).append(name)
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
    found = score(predictions, study.annotations, "--iou-type", "segm").result["segm"]
    found.pop("per_class", None)
    predict(run, store, given, "--boxes", str(study.annotations), *options)
    overlap = mean_mask_iou(given, study.annotations)
    return {**found, **{f"given_boxes_{kind}": value for kind, value in overlap.items()}}


COLUMNS: Mapping[str, str] = {
    "ap": "AP",
    "ap50": "AP50",
    "ap75": "AP75",
    "given_boxes_all": "IoU",
    "given_boxes_camouflaged": "camouflaged",
    "given_boxes_plain": "plain",
}


def markdown(study: Study) -> str:
    """The table: mean and spread over the seeds of what is there."""
    results = {name: found for name in VARIANTS if (found := study.results(name))}
    columns = [
        key
        for key in COLUMNS
        if any(key in row["segm"][w] for r in results.values() for row in r for w in row["segm"])
    ]
    lines = [
        f"{study.about()}{', ' + ', '.join(study.settings) if study.settings else ''}. "
        "Mask AP in percent on images never seen, mean ± standard deviation over seeds; "
        "distilled: the teacher (the student in brackets). IoU: mean over the masks of the true "
        "boxes, in percent.",
        "",
        f"| variant | {' | '.join(COLUMNS[key] for key in columns)} | seeds |",
        f"| --- | {'---: | ' * len(columns)}---: |",
    ]
    for name, found in results.items():
        cells = [_cell(found, key) for key in columns]
        lines.append(f"| {VARIANTS[name].title} | {' | '.join(cells)} | {len(found)} |")
    return "\n".join(lines) + "\n"


def choose(names: Iterable[str] | None, default: Iterable[str]) -> list[str]:
    """The variants asked for.

    Raises:
        typer.BadParameter: there is no such variant.
    """
    chosen = list(names or default)
    unknown = sorted(set(chosen) - VARIANTS.keys())
    if unknown:
        raise typer.BadParameter(
            f"no variant {', '.join(unknown)}; there are {', '.join(VARIANTS)}"
        )
    return chosen


def run_all(study: Study, names: Iterable[str], *, seeds: int, jobs: int) -> str:
    """Every variant with every seed; the table so far is written after each, and returned."""
    groups = [(group, seed) for seed in range(seeds) for group in families(names)]
    table = study.out / "ablation.md"
    with ThreadPoolExecutor(jobs) as pool:
        for job in [pool.submit(run_family, study, group, seed) for group, seed in groups]:
            job.result()
            table.write_text(markdown(study), encoding="utf-8")
    return markdown(study)


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
