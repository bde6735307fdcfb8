"""Train and measure ``dpt-scenes-tiny``, the depth model that depthgen embeds.

    python pipelines/scenes_model.py fit --out runs/dpt-scenes-tiny
    python pipelines/scenes_model.py measure packages/.../weights/dpt-scenes-tiny

A DPT-Hybrid (arXiv:2103.13413) in small: convolutions down to 1/16, six transformer layers, the
usual neck and head. It learns per-image min-max normalised inverse depth from scenes that no
user's seed draws.
"""

import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn, track
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, IterableDataset
from transformers import DPTConfig, DPTForDepthEstimation, DPTImageProcessor

from boxdepth.depthgen.datasets.sample import Scene, render_scene, scene_seed
from boxdepth.depthgen.datasets.sample.pairs import NO_PAIRS
from study.scene_pairs import alike_in_depth, counted

SIDE = 128
SCENE_SIZES = ((192, 256),) * 6 + ((256, 320), (224, 224))
_console = Console(stderr=True)
app = typer.Typer(add_completion=False, help=__doc__, no_args_is_help=True)


def tiny_config() -> DPTConfig:
    """DPT-Hybrid with 2 million parameters and a square input of 128 pixels."""
    return DPTConfig(
        hidden_size=128,
        num_hidden_layers=6,
        num_attention_heads=4,
        intermediate_size=384,
        image_size=SIDE,
        patch_size=16,
        is_hybrid=True,
        backbone_config={
            "model_type": "bit",
            "embedding_size": 32,
            "hidden_sizes": [64, 128, 192, 192],
            "depths": [2, 2, 2, 1],
            "num_groups": 8,
            "layer_type": "bottleneck",
            "global_padding": "same",
            "embedding_dynamic_padding": True,
            "out_features": ["stage1", "stage2", "stage3"],
        },
        backbone_featmap_shape=[1, 192, SIDE // 16, SIDE // 16],
        backbone_out_indices=[0, 1, 2, 5],
        readout_type="project",
        neck_hidden_sizes=[64, 128, 128, 128],
        fusion_hidden_size=48,
        use_auxiliary_head=False,
    )


def processor() -> DPTImageProcessor:
    """Every step of the preparation spelt out: defaults differ between versions."""
    return DPTImageProcessor(
        do_resize=True,
        size={"height": SIDE, "width": SIDE},
        keep_aspect_ratio=False,
        ensure_multiple_of=1,
        resample=3,
        do_rescale=True,
        rescale_factor=1 / 255,
        do_normalize=True,
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.5, 0.5, 0.5],
        do_pad=False,
    )


def new_model() -> DPTForDepthEstimation:
    """An untrained model through which signals keep their size.

    Transformers' own start (deviation 0.02 everywhere) suits wide pretrained models; here it would
    leave the transformer's features at a twentieth of the convolutions', and depth without its
    global half.
    """
    model: DPTForDepthEstimation = DPTForDepthEstimation(tiny_config())
    model.set_attn_implementation("eager")  # the faster one for 64 tokens
    parts = (model.dpt.encoder, model.dpt.embeddings.projection, model.neck, model.head)
    for part in parts:
        for name, module in part.named_modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
                if name.endswith(("convolution2", "output.dense")):  # residual branches
                    module.weight.data.mul_(0.2)
    nn.init.normal_(model.dpt.embeddings.position_embeddings, std=0.3)
    last = model.head.head[-2]
    assert isinstance(last, nn.Conv2d)
    assert last.bias is not None
    nn.init.normal_(last.weight, std=0.01)
    nn.init.constant_(last.bias, 0.35)  # the mean of normalised inverse depth
    return model


def model_input(image: np.ndarray) -> Tensor:
    """[h w 3] bytes -> [3 128 128] as :func:`processor` prepares it."""
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    resized = functional.interpolate(
        pixels, (SIDE, SIDE), mode="bicubic", antialias=True, align_corners=False
    )
    return (resized[0].clamp(0, 1) - 0.5) / 0.5


def normalised(inverse_depth: np.ndarray) -> np.ndarray:
    """Per-image min-max normalisation to [0, 1]."""
    low, high = inverse_depth.min(), inverse_depth.max()
    units: np.ndarray = (inverse_depth - low) / (high - low)
    return units


class Scenes(IterableDataset):
    """An endless stream of (input, normalised inverse depth), a fresh scene each."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        torch.set_num_threads(1)
        index = 0
        while True:
            size = SCENE_SIZES[index % len(SCENE_SIZES)]
            scene = render_scene(scene_seed(self._seed, "depth-train", index), size)
            target = torch.from_numpy(normalised(scene.inverse_depth))[None, None]
            target = functional.interpolate(target, (SIDE, SIDE), mode="nearest-exact")
            yield model_input(scene.image), target[0, 0]
            index += 1


def _steps(values: Tensor, reach: int) -> tuple[Tensor, Tensor]:
    across = values[:, :, reach:] - values[:, :, :-reach]
    down = values[:, reach:] - values[:, :-reach]
    return across, down


def depth_loss(predicted: Tensor, target: Tensor, flat: float) -> Tensor:
    """L1 of inverse depth and of its differences over 1 to 8 pixels.

    ``flat`` in [0, 1] adds ``0.004 * log(1 + error / 0.004)`` of the differences, so that errors of
    one 8-bit unit are still worth removing: pairs are trusted up to 1.4 units (arXiv:2403.01214,
    Eq. 3). From the start it would hold the model at a blurred ramp (tried), so it comes late.
    """
    loss = (predicted - target).abs().mean()
    for reach in (1, 2, 4, 8):
        pairs = zip(_steps(predicted, reach), _steps(target, reach), strict=True)
        for mine, true in pairs:
            error = (mine - true).abs()
            loss = loss + 0.5 * error.mean()
            if flat > 0:
                loss = loss + flat * 0.004 * torch.log1p(error / 0.004).mean()
    return loss


def learning_rate(done: float, peak: float) -> float:
    """Linear warm-up over 3 % of the run, then a cosine to 1 % of the peak; ``done`` in [0, 1]."""
    if done < 0.03:
        return peak * (done + 0.001) / 0.031
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (done - 0.03) / 0.97)))


def save(model: DPTForDepthEstimation, folder: Path) -> None:
    """Write config, preprocessor and half-precision weights; the config asks for float32."""
    folder.mkdir(parents=True, exist_ok=True)
    config = model.config.to_dict() | {
        "dtype": "float32",
        "architectures": [type(model).__name__],
        "depth_estimation_type": "relative",
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    processor().save_pretrained(folder)
    state = {name: value.detach().half().contiguous() for name, value in model.state_dict().items()}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def train(
    model: DPTForDepthEstimation,
    *,
    out: Path,
    seed: int,
    steps: int,
    batch: int,
    minutes: float | None,
    peak: float,
) -> None:
    """Fit the model in bfloat16, for so many steps or until the clock says so."""
    loader = DataLoader(Scenes(seed), batch_size=batch, num_workers=1, prefetch_factor=4)
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak, weight_decay=0.02)
    model.train().to(memory_format=torch.channels_last)
    # The last ReLU would pass no gradient wherever the output once fell below 0 (tried: the whole
    # output dies within 50 steps). It has no weights and is there again when the model is loaded.
    model.head.head[-1] = nn.Identity()
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=_console) as bar:
        task = bar.add_task("fit", total=steps)
        recent, begin = 0.0, time.monotonic()
        for step, (images, target) in zip(range(steps), loader, strict=False):
            done = step / steps
            if minutes is not None:
                done = max(done, (time.monotonic() - begin) / (60 * minutes))
            if done >= 1:
                break
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(done, peak)
            with torch.autocast("cpu", torch.bfloat16):
                predicted = model(
                    images.contiguous(memory_format=torch.channels_last)
                ).predicted_depth
            loss = depth_loss(predicted.float(), target, flat=min(max(4 * done - 2, 0.0), 1.0))
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            recent = loss.item() if step == 0 else 0.95 * recent + 0.05 * loss.item()
            bar.update(task, completed=done * steps, description=f"fit: loss {recent:.4f}")
            if step % 25 == 0 and not _console.is_terminal:
                _console.print(f"step {step}/{steps} loss {recent:.4f}")
            if step % 250 == 249:
                save(model, out)
    save(model, out)


@torch.no_grad()
def predict(model: DPTForDepthEstimation, image: np.ndarray) -> np.ndarray:
    """Relative inverse depth at the image's own size, larger is nearer."""
    predicted = model(model_input(image)[None]).predicted_depth
    size = image.shape[:2]
    resized = functional.interpolate(predicted[:, None], size, mode="bilinear", align_corners=False)
    return resized[0, 0].numpy()


def abs_rel(predicted: np.ndarray, true: np.ndarray) -> float:
    """Mean relative error of depth after the best scale and shift of inverse depth.

    The sky, which has no depth, is left out; aligned inverse depth is held above half of the least
    true one.
    """
    seen = true > 0
    design = np.stack([predicted[seen], np.ones(int(seen.sum()))], axis=1)
    scale, shift = np.linalg.lstsq(design, true[seen].astype(np.float64), rcond=None)[0]
    aligned = np.maximum(scale * predicted[seen] + shift, 0.5 * true[seen].min())
    return float(np.mean(np.abs(true[seen] / aligned - 1)))


def mean_map(count: int, size: tuple[int, int]) -> np.ndarray:
    """The trivial baseline: the mean normalised inverse depth of training scenes."""
    maps = [
        normalised(render_scene(scene_seed(0, "depth-train", index), size).inverse_depth)
        for index in range(count)
    ]
    mean: np.ndarray = np.mean(maps, axis=0)
    return mean


def quality(
    model: DPTForDepthEstimation | None, scenes: list[Scene], fallback: np.ndarray
) -> dict[str, float]:
    """AbsRel and pair shares of a model's depth, or of ``fallback`` without one."""
    errors, counts = [], NO_PAIRS
    for scene in scenes:
        predicted = fallback if model is None else predict(model, scene.image)
        errors.append(abs_rel(predicted, scene.inverse_depth))
        counts += counted(alike_in_depth(predicted.astype(np.float32)), scene.masks)
    return {
        "abs_rel": round(float(np.mean(errors)), 4),
        "within": round(counts.within_share, 4),
        "across": round(counts.across_share, 4),
    }


def measured(model: DPTForDepthEstimation, count: int) -> dict[str, Any]:
    """Figures on scenes that neither training nor any user saw, beside baseline and truth."""
    size = (192, 256)
    scenes = [
        render_scene(scene_seed(0, "depth-test", index), size)
        for index in track(range(count), description="scenes", console=_console)
    ]
    exact = NO_PAIRS
    for scene in scenes:
        exact += counted(alike_in_depth(scene.inverse_depth), scene.masks)
    fallback = mean_map(200, size)
    return {
        "scenes": count,
        "model": quality(model.train(False), scenes, fallback),
        "mean_map": quality(None, scenes, fallback),
        "exact": {"within": round(exact.within_share, 4), "across": round(exact.across_share, 4)},
    }


@app.command()
def fit(
    out: Annotated[Path, typer.Option(help="Folder of the trained model.")],
    init: Annotated[Path | None, typer.Option(help="Model folder to go on from.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the scenes and of the weights.")] = 0,
    steps: Annotated[int, typer.Option(min=1)] = 2400,
    batch: Annotated[int, typer.Option(min=1)] = 16,
    peak: Annotated[float, typer.Option(help="Highest learning rate.")] = 3e-4,
    minutes: Annotated[
        float | None, typer.Option(help="Stop after so long, with the schedule fitted to it.")
    ] = None,
    threads: Annotated[int, typer.Option(min=1)] = 2,
    scenes: Annotated[int, typer.Option(help="Unseen scenes to measure on.")] = 200,
) -> None:
    """Train from scratch, or go on from a model; then measure. About 20 minutes on 2 cores."""
    torch.manual_seed(seed)
    torch.set_num_threads(threads)
    model = load(init) if init is not None else new_model()
    train(model, out=out, seed=seed, steps=steps, batch=batch, minutes=minutes, peak=peak)
    typer.echo(json.dumps(measured(load(out), scenes), indent=2))


def load(folder: Path) -> DPTForDepthEstimation:
    """Load a model in float32."""
    model: DPTForDepthEstimation = DPTForDepthEstimation.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    )
    return model


@app.command()
def measure(
    folder: Annotated[Path, typer.Argument(help="Folder of a model.")],
    scenes: Annotated[int, typer.Option(help="Unseen scenes to measure on.")] = 200,
) -> None:
    """Print a model's quality on unseen scenes as JSON."""
    typer.echo(json.dumps(measured(load(folder), scenes), indent=2))


if __name__ == "__main__":
    app()
