"""`trainer import-weights`: weights of other makes, under our names."""

from pathlib import Path
from typing import Annotated

import typer
from safetensors.torch import save

from boxdepth.trainer.build import import_weights as read_foreign
from boxdepth.trainer.cli.app import AsJson, app, emit, say
from boxdepth.trainer.cli.options import expanded, refuse_unwritable
from boxdepth.trainer.config import presets
from boxdepth.trainer.config.overrides import apply_overrides, choose_preset
from boxdepth.trainer.engine.checkpoint import write_atomically

EXAMPLES = """
Examples:

  trainer import-weights BoxInst_MS_R_50_1x.pth boxinst.safetensors --preset boxinst_r50_1x

  trainer import-weights R-50.pkl r50.safetensors
"""


@app.command("import-weights", epilog=EXAMPLES)
def import_weights(
    file: Annotated[
        Path,
        typer.Argument(help="AdelaiDet, detectron2, torchvision or timm file.", parser=expanded),
    ],
    out: Annotated[Path, typer.Argument(help="Safetensors file to write.", parser=expanded)],
    preset: Annotated[
        str, typer.Option(help="The run whose network the weights are meant for.")
    ] = "coco_r50_1x",
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="path.to.field=value; repeatable.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check weights against our network, every tensor of them, without running their code."""
    refuse_unwritable(out, overwrite=overwrite)
    run = apply_overrides(choose_preset(presets.PRESETS, preset), settings or [])
    found = read_foreign(file, run.model)
    write_atomically(out, save({k: v.contiguous() for k, v in found.tensors.items()}))
    use = "--init" if found.kind == "model" else "--set model.backbone.weights"
    say(str(found.report))
    say(f"{len(found.tensors)} tensors written to {out}; start from them with {use}={out}")
    emit(
        {
            "out": str(out),
            "kind": found.kind,
            "tensors": len(found.tensors),
            "loaded": len(found.report.loaded),
            "not_used": list(found.report.not_used),
            "started_anew": list(found.report.started_anew),
        },
        as_json=as_json,
    )
