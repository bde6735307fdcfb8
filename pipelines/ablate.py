r"""Does depth help? The method's rows with several seeds, on drawn scenes and on photographs.

    python pipelines/ablate.py scenes --out ablation --seeds 3

draws scenes, generates pseudo-depth, trains every variant with every seed for the same number of
iterations, scores masks on unseen scenes, and writes `ablation.md`: mean and spread. Finished runs
are kept and interrupted ones resume, so the command may be stopped and repeated, also with more
seeds or other variants. Runs that differ only from some iteration on share what comes before it:
those with L_cons fork where it sets in, the distilled ones where the teacher is born.

    python pipelines/ablate.py photographs --photos coco --weights mobilenetv2.safetensors

does the same with photographs, a folder in COCO's layout (or `images/`, `instances_train.json`,
`instances_val.json`) and the weights of a small timm backbone that stays frozen (ImageNet,
mean = std = 0.5). The depth model that comes with BoxDepth has seen drawn scenes only. Name one
that knows photographs with `--depth-model` (`depthgen models` lists them) wherever it can be
downloaded, or give depth that a sensor has measured, in files of the photographs' stems:

    python pipelines/ablate.py photographs --photos potholes --depth potholes/depth16 \
        --depth-kind height --weights mobilenetv2.safetensors --seeds 5 --out measured
"""

from pathlib import Path
from typing import Annotated

import typer

from study.photos import BACKBONES, FOUR_ROWS, MEASURED_ROWS, Depth, PhotosStudy
from study.photos import prepare as prepare_photos
from study.scenes import ScenesStudy
from study.scenes import prepare as prepare_scenes
from study.study import VARIANTS, begin, choose, run_all

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__.split("\n\n")[0])

OutOption = Annotated[Path, typer.Option("--out", help="Folder for everything.")]
SeedsOption = Annotated[int, typer.Option("--seeds", min=1, help="Runs of each variant.")]
OnlyOption = Annotated[list[str] | None, typer.Option("--only", help="Variants, by name.")]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda...")]
JobsOption = Annotated[int, typer.Option("--jobs", min=1, help="Runs at a time.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="Passed to every run; use another --out.")
]


@app.command()
def scenes(
    out: OutOption = Path("ablation"),
    seeds: SeedsOption = 3,
    train: Annotated[int, typer.Option(min=8, help="Scenes to learn from.")] = 512,
    val: Annotated[int, typer.Option(min=1, help="Scenes to be scored on.")] = 256,
    scale: Annotated[float, typer.Option(min=1e-3, help="Factor of the iterations.")] = 1.0,
    only: OnlyOption = None,
    device: DeviceOption = "auto",
    jobs: JobsOption = 1,
    scene_seed: Annotated[int, typer.Option(help="Seed of the scenes.")] = 0,
    camouflage: Annotated[
        float, typer.Option(min=0, max=1, help="Share of shapes coloured like what is behind them.")
    ] = 0.4,
    settings: SetOption = None,
) -> None:
    """Train every variant with every seed and tabulate mask AP."""
    names = choose(only, (name for name, variant in VARIANTS.items() if not variant.extra))
    study = ScenesStudy(out=out, scale=scale, device=device, settings=tuple(settings or ()))
    begin(study)
    exact = any(VARIANTS[name].exact_depth for name in names)
    counts = ("--train", str(train), "--val", str(val), "--seed", str(scene_seed))
    prepare_scenes(study, *counts, "--camouflage", str(camouflage), exact=exact)
    print(run_all(study, names, seeds=seeds, jobs=jobs))


@app.command()
def photographs(
    photos: Annotated[Path, typer.Option(help="Folder in COCO's layout.")],
    weights: Annotated[Path, typer.Option(help="Weights of the backbone.")],
    out: OutOption = Path("photos"),
    subset: Annotated[str, typer.Option(help="Annotation files begin so.")] = "instances",
    backbone: Annotated[
        str, typer.Option(help=f"One of {', '.join(BACKBONES)}.")
    ] = "mobilenetv2_100",
    depth_model: Annotated[str | None, typer.Option(help="See `depthgen models`.")] = None,
    depth: Annotated[
        Path | None, typer.Option(help="Depth that was measured: a folder, by file stem.")
    ] = None,
    depth_kind: Annotated[str, typer.Option(help="metric, inverse or height.")] = "metric",
    metres: Annotated[float | None, typer.Option(help="Of one step of metric depth.")] = None,
    seeds: SeedsOption = 3,
    only: OnlyOption = None,
    device: DeviceOption = "auto",
    jobs: JobsOption = 1,
    settings: SetOption = None,
) -> None:
    """Train the method's rows on photographs and tabulate mask AP."""
    names = choose(only, MEASURED_ROWS if depth else FOUR_ROWS)
    if backbone not in BACKBONES:
        raise typer.BadParameter(f"no backbone {backbone}; there are {', '.join(BACKBONES)}")
    if depth is not None and depth_model is not None:
        raise typer.BadParameter("--depth-model predicts depth, --depth has it: give one of them")
    study = PhotosStudy(
        out=out,
        device=device,
        settings=tuple(settings or ()),
        photos=photos,
        subset=subset,
        weights=weights.absolute(),
        backbone=backbone,
        depth=Depth(model=depth_model, measured=depth, kind=depth_kind, metres=metres),
    )
    begin(study)
    prepare_photos(study)
    print(run_all(study, names, seeds=seeds, jobs=jobs))


if __name__ == "__main__":
    app()
