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
    from boxdepth.trainer.build import import_weights as read_foreign
    from boxdepth.trainer.config.overrides import apply_overrides
    from boxdepth.trainer.engine.run_folder import require_writable
    from boxdepth.trainer.runs.settings import chosen_config

    require_writable(out, overwrite=overwrite)
    run = apply_overrides(chosen_config(preset), settings or [])
    found = read_foreign(file, run.model)
    found.save(out)
    use = "--init" if found.kind == "model" else "--set model.backbone.weights"
    say(str(found.report))
    say(f"{len(found.tensors)} tensors written to {out}; start from them with {use}={out}")
    emit({"out": str(out), **found.to_json()}, as_json=as_json)
