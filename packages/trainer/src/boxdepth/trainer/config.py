"""Everything a run can be told: one frozen, validated value, saved with the run and its weights.

Defaults are the COCO R-50 1x values of CondInst/BoxInst (arXiv 2003.05664, 2012.02310) and of the
method (arXiv 2403.01214); what differs by run is set in ``presets``.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(gt=0)]
NonNegative = Annotated[int, Field(ge=0)]
Weight = Annotated[float, Field(ge=0)]


class Settings(BaseModel):
    """Base of every section: immutable, and an unknown key is an error."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False
    )


class Augmentation(Settings):
    """Resize of the shorter side and horizontal flip, of image, boxes and depth together."""

    short_sides: tuple[Positive, ...] = (640, 672, 704, 736, 768, 800)
    max_size: Positive = 1333
    flip: Fraction = 0.5
    color: Literal["none", "strong", "strong_blur"] = "none"
    """Colour jitter and greyscale, with blur or without, for the student's eyes only: the teacher
    and the colour pairs see the image as it is (BoxTeacher)."""


class Data(Settings):
    train: Path | None = None
    """Store to learn from; the command's --train, else the preset's default store."""
    val: Path | None = None
    """Store to evaluate on; None: no evaluation."""
    val_annotations: Path | None = None
    """COCO annotation file of the val store's images, for scoring the predictions."""
    supervision: Literal["boxes", "masks", "mixed"] = "boxes"
    """`boxes`: masks are never read. `mixed`: a mask where the annotation has one."""
    batch_size: Positive = 16
    """Images a step, over all ranks and accumulation steps together."""
    accumulate: Positive = 1
    """Forward passes that make one step; divides the batch size of a rank."""
    workers: NonNegative = 4
    """Threads that decode and augment ahead of the model; 0: in the main thread."""
    timeout_seconds: Positive = 300
    """A batch that takes longer to load is an error that names its images."""
    augmentation: Augmentation = Augmentation()
    group_aspect: bool = True
    """Batches hold only landscape or only portrait images: less padding."""
    keep_empty: bool = False
    """Keep images without a (non-crowd) box in training."""
    bottom_rows_removed: NonNegative = 10
    """Rows at the bottom of the original image in which no pair is trusted (BoxInst on COCO)."""
    mask_fraction: Fraction = 1.0
    """With `mixed`: share of the annotations whose mask may be used, chosen by annotation id."""


class Backbone(Settings):
    """A timm model, features at strides 8, 16 and 32."""

    name: str = "resnet50"
    weights: Path | Literal["timm"] | None = None
    """Weights file; `timm`: ImageNet weights that timm downloads; None: random initialisation."""
    frozen_stages: NonNegative = 2
    """Stem and the first stages that do not learn (2: stem and stage 1, i.e. res2)."""
    frozen_norm: bool = True
    stride_in_1x1: bool = False
    """ResNet only: stride 2 in the first 1x1 of a stage (MSRA/Caffe) instead of the 3x3."""
    deformable_stages: tuple[int, ...] = ()
    """ResNet only: stages (2..5) whose 3x3 are modulated deformable convolutions."""
    bgr: bool = False
    """The weights expect BGR."""
    pixel_mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    """RGB, 0..255."""
    pixel_std: tuple[float, float, float] = (58.395, 57.12, 57.375)
    extra: dict[str, bool | int | float | str | tuple[int, ...]] = Field(default_factory=dict)
    """Further keyword arguments of timm.create_model."""


class FcosHead(Settings):
    convs: Positive = 4
    prior: Fraction = 0.01
    quality: Literal["centerness", "iou"] = "centerness"
    center_radius: float = 1.5
    """In strides; the sampling region's half side."""
    level_ranges: tuple[Positive, ...] = (64, 128, 256, 512)
    """Borders in pixels between the sizes that p3..p7 regress."""


class MaskBranch(Settings):
    channels: Positive = 128
    convs: Positive = 4
    out_channels: Positive = 16
    semantic_loss: bool = False


class MaskHead(Settings):
    layers: Annotated[int, Field(ge=2)] = 3
    channels: Positive = 8
    relative_coordinates: bool = True
    depth: Literal["off", "product", "sum"] = "product"
    """How the depth layer joins the mask logit (arXiv 2403.01214, Eq. 1)."""


class Model(Settings):
    num_classes: NonNegative = 0
    """0: as many as the training store has categories."""
    backbone: Backbone = Backbone()
    fpn_channels: Positive = 256
    fcos: FcosHead = FcosHead()
    mask_branch: MaskBranch = MaskBranch()
    mask_head: MaskHead = MaskHead()


class Sampling(Settings):
    """Which positive locations get a mask loss; both limits null: all (condinst.md 4.1)."""

    per_image: Positive | None = 64
    """BoxInst: best locations of every box, this many an image at most."""
    per_batch: Positive | None = None
    """CondInst: random positives of the rank, this many at most."""

    @model_validator(mode="after")
    def _one_limit(self) -> "Sampling":
        if self.per_image is not None and self.per_batch is not None:
            raise ValueError(
                f"per_image ({self.per_image}) and per_batch ({self.per_batch}) exclude each "
                "other: set the one that is not wanted to null"
            )
        return self


class Pairs(Settings):
    """Neighbour pairs on the mask grid that are believed to share a label."""

    kernel_size: Positive = 3
    dilation: Positive = 2
    color_threshold: Fraction = 0.3
    depth_threshold: Fraction = 0.5
    """tau_d of arXiv 2403.01214."""
    theta: Annotated[float, Field(gt=0)] = 2.0
    """Similarity = exp(-difference / theta), colour in LAB, depth in 0..255 units."""


class Losses(Settings):
    """Weights and warm-ups; a weight of 0 switches a term off."""

    classification: Weight = 1.0
    box: Weight = 1.0
    quality: Weight = 1.0
    semantic: Weight = 1.0
    mask: Weight = 1.0
    """Dice with the ground-truth mask, where masks are supervised."""
    projection: Weight = 1.0
    color: Weight = 1.0
    depth: Weight = 1.0
    """L_depth: the depth layer against the pseudo depth, inside the box."""
    consistency: Weight = 1.0
    """L_cons: the pairwise term over depth-trusted pairs."""
    box_loss: Literal["giou", "iou", "linear_iou"] = "giou"
    class_normalizer: Literal["positives", "locations"] = "positives"
    warmup_iterations: NonNegative = 10_000
    """W: colour ramps up over 0..W, consistency over W..2W."""
    consistency_warmup: Literal["after_color", "none"] = "after_color"
    consistency_region: Literal["box", "image"] = "box"
    depth_reduction: Literal["pixels", "instances"] = "pixels"
    """Mean over all in-box pixels of the batch, or of each instance first."""
    sampling: Sampling = Sampling()
    pairs: Pairs = Pairs()


class Matching(Settings):
    """S_match = alpha f_iou + beta S_dep + (1 - alpha - beta) S_pred (arXiv 2403.01214, Eq. 9)."""

    alpha: Fraction = 0.8
    beta: Fraction = 0.2
    beta_schedule: Literal["constant", "linear"] = "constant"
    """`linear`: beta falls to 0 over the run, the freed weight goes to the predicted score."""
    iou: Literal["iou", "giou"] = "iou"
    depth_score: Literal["eq8", "ratio", "ratio_and_edges"] = "eq8"

    @model_validator(mode="after")
    def _weights_leave_no_debt(self) -> "Matching":
        if self.alpha + self.beta > 1 + 1e-9:
            raise ValueError(f"alpha + beta must not exceed 1, got {self.alpha + self.beta}")
        return self


class Distillation(Settings):
    """Self-distillation by an EMA teacher."""

    method: Literal["off", "depth_matching", "box_teacher"] = "off"
    start: NonNegative = 65_000
    """t0: first step (0-based) with a teacher."""
    momentum: Fraction = 0.999
    teacher_short_side: Positive | None = 800
    """None: the teacher sees the student's size."""
    teacher_max_size: Positive = 1333
    matching: Matching = Matching()
    reliability: Fraction = 0.8
    """tau_m: boxes whose matching score is not above it get no mask loss."""
    gamma: Weight = 4.0
    """Weight of the dice loss with the pseudo masks."""
    mask_affinity: Weight = 0.0
    """Weight of BoxTeacher's mask affinity term."""
    binarize: bool = True
    mask_threshold: Fraction = 0.5
    teacher_batch_stats: bool = True
    """BatchNorm of the teacher in training mode, as the authors and BoxTeacher do."""


class Optimizer(Settings):
    name: Literal["sgd", "adamw"] = "sgd"
    learning_rate: Annotated[float, Field(gt=0)] = 0.01
    """For `reference_batch_size` images a step; scaled linearly with the batch size."""
    reference_batch_size: Positive = 16
    momentum: Fraction = 0.9
    weight_decay: Weight = 1e-4
    norm_weight_decay: Weight = 0.0
    clip_norm: Annotated[float, Field(gt=0)] | None = None


class Schedule(Settings):
    iterations: Positive = 90_000
    steps: tuple[NonNegative, ...] = (60_000, 80_000)
    """Iterations after which the learning rate is multiplied by `gamma`."""
    gamma: Fraction = 0.1
    warmup_iterations: NonNegative = 1000
    warmup_factor: Fraction = 0.001


class Inference(Settings):
    short_side: Positive = 800
    max_size: Positive = 1333
    score_threshold: Fraction = 0.05
    """On class score x quality, before the square root."""
    threshold_with_quality: bool = True
    """False: the threshold looks at the class score alone."""
    pre_nms: Positive = 1000
    nms_iou: Fraction = 0.6
    max_detections: Positive = 100
    mask_threshold: Fraction = 0.5
    rescore: bool = False
    """Scores become sqrt(score x mask quality), as BoxTeacher's."""
    batch_size: Positive = 1
    """Images at hand together; those that are padded alike share a forward pass."""


class Checkpoints(Settings):
    every: Positive = 5000
    """Iterations between two checkpoints."""
    keep: Positive = 2
    """Newest checkpoints to keep; the best one stays as well."""
    evaluate_every: NonNegative = 0
    """Iterations between two evaluations on the val store; 0: only at the end."""
    log_every: Positive = 20


class RunConfig(Settings):
    """One run, resolved."""

    name: str
    seed: NonNegative = 0
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    channels_last: bool = True
    compile: bool = False
    data: Data = Data()
    model: Model = Model()
    losses: Losses = Losses()
    distillation: Distillation = Distillation()
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    inference: Inference = Inference()
    checkpoints: Checkpoints = Checkpoints()
