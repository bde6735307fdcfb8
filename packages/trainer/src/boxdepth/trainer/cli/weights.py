"""`trainer import-weights`: weights of other makes, under our names."""

from boxdepth.trainer.cli import options
from boxdepth.trainer.cli.app import AsJson, app, emit, say

EXAMPLES = """
Examples:

  trainer import-weights BoxInst_MS_R_50_1x.pth boxinst.safetensors --preset boxinst_r50_1x

  trainer import-weights R-50.pkl r50.safetensors
"""


@app.command("import-weights", epilog=EXAMPLES)
def import_weights(
    file: options.ForeignWeights,
    out: options.WeightsOut,
    preset: options.MeantFor = "coco_r50_1x",
    settings: options.Settings = None,
    overwrite: options.Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Check weights against our network, every tensor of them, without running their code."""
    from safetensors.torch import save

    from boxdepth.trainer.build import import_weights as read_foreign
    from boxdepth.trainer.config import presets
    from boxdepth.trainer.config.overrides import apply_overrides, choose_preset
    from boxdepth.trainer.engine.checkpoint import write_atomically

    options.refuse_unwritable(out, overwrite=overwrite)
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
