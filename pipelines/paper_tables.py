"""The paper's tables: which run stands in which line, and what the papers report for it.

Numbers are mask AP, AP50 and AP75 in percent. `quoted` lines are other papers' systems that don't
run here; their numbers are copied from the sources named.
"""

from dataclasses import dataclass

THIS_PAPER = "arXiv:2403.01214"
VIA_PAPER = "via arXiv:2403.01214"


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of a table."""

    title: str
    paper: tuple[float | None, float | None, float | None] = (None, None, None)
    """AP, AP50, AP75."""
    row: str | None = None
    """Our run; None: quoted only."""
    backbone: str = "R-50"
    schedule: str = "1x"
    source: str = THIS_PAPER
    remark: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperTable:
    """One table."""

    number: str
    title: str
    split: str
    """What the paper's numbers were measured on."""
    lines: tuple[Line, ...]


def _ap(
    ap: float, ap50: float | None = None, ap75: float | None = None
) -> tuple[float, float | None, float | None]:
    return (ap, ap50, ap75)


NOT_AT_HAND = "number not at hand; see the paper"

TABLE_1 = PaperTable(
    number="1",
    title="COCO, comparison of systems",
    split="test-dev",
    lines=(
        Line(title="Mask R-CNN (masks)", backbone="", schedule="", remark=NOT_AT_HAND),
        Line(title="SOLOv2 (masks)", backbone="", schedule="", remark=NOT_AT_HAND),
        Line(
            title="CondInst (masks)",
            row="condinst-r50-3x",
            paper=_ap(37.8),
            schedule="3x",
            source=VIA_PAPER,
        ),
        Line(
            title="CondInst (masks)",
            row="condinst-r101-3x",
            paper=_ap(39.1),
            backbone="R-101",
            schedule="3x",
            source=VIA_PAPER,
        ),
        Line(title="BBTP", backbone="R-101", schedule="", remark=NOT_AT_HAND),
        Line(title="BoxCaseg", backbone="R-101", schedule="", remark=NOT_AT_HAND),
        Line(
            title="BoxInst",
            row="boxinst-r50-3x",
            paper=_ap(32.1),
            schedule="3x",
            source="AdelaiDet README",
        ),
        Line(
            title="BoxInst",
            row="boxinst-r101-3x",
            paper=_ap(33.2),
            backbone="R-101",
            schedule="3x",
            source="AdelaiDet README",
        ),
        Line(
            title="BoxInst",
            row="boxinst-r101-dcn-3x",
            paper=_ap(35.0),
            backbone="R-101-DCN",
            schedule="3x",
            source="AdelaiDet README",
            remark="theirs: BiFPN, DCN every third block",
        ),
        Line(title="DiscoBox", paper=_ap(32.0), schedule="3x", source="DiscoBox README"),
        Line(
            title="DiscoBox",
            paper=_ap(35.8),
            backbone="R-101-DCN",
            schedule="3x",
            source="DiscoBox README",
        ),
        Line(
            title="BoxLevelSet", paper=_ap(33.4), backbone="R-101", schedule="3x", source=VIA_PAPER
        ),
        Line(
            title="BoxLevelSet",
            paper=_ap(35.4),
            backbone="R-101-DCN",
            schedule="3x",
            source=VIA_PAPER,
        ),
        Line(
            title="BoxTeacher",
            row="boxteacher-r50-1x",
            paper=_ap(32.9),
            source="BoxTeacher README",
        ),
        Line(
            title="BoxTeacher",
            row="boxteacher-r50-3x",
            paper=_ap(35.0),
            schedule="3x",
            source="BoxTeacher README",
        ),
        Line(
            title="BoxTeacher",
            row="boxteacher-r101-3x",
            paper=_ap(36.5),
            backbone="R-101",
            schedule="3x",
            source="BoxTeacher README",
        ),
        Line(
            title="BoxTeacher",
            paper=_ap(37.6),
            backbone="R-101-DCN",
            schedule="3x",
            source="BoxTeacher README",
        ),
        Line(
            title="BoxTeacher",
            paper=_ap(40.5),
            backbone="Swin-B",
            schedule="3x",
            source="BoxTeacher README",
        ),
        Line(title="the method", row="ours-r50-3x", paper=_ap(34.6), schedule="3x"),
        Line(title="the method", row="ours-r101-1x", paper=_ap(34.3), backbone="R-101"),
        Line(
            title="the method", row="ours-r101-3x", paper=_ap(36.0), backbone="R-101", schedule="3x"
        ),
        Line(
            title="the method",
            row="ours-r101-dcn-3x",
            paper=_ap(37.6),
            backbone="R-101-DCN",
            schedule="3x",
        ),
        Line(title="the method", row="ours-swinb-1x", paper=_ap(39.5), backbone="Swin-B"),
        Line(
            title="the method, IoU quality",
            row="ours-iou-swinb-1x",
            paper=_ap(40.1),
            backbone="Swin-B",
        ),
        Line(
            title="the method",
            row="ours-swinb-3x",
            paper=_ap(40.4),
            backbone="Swin-B",
            schedule="3x",
        ),
        Line(
            title="the method, IoU quality",
            row="ours-iou-swinb-3x",
            paper=_ap(41.0),
            backbone="Swin-B",
            schedule="3x",
        ),
    ),
)

TABLE_2 = PaperTable(
    number="2",
    title="Cityscapes",
    split="val",
    lines=(
        *(
            Line(
                title=title,
                row=f"city-{kind}-r50{suffix}" if kind else None,
                paper=_ap(ap),
                schedule=start,
                source=VIA_PAPER,
            )
            for start, suffix, values in (
                ("24k, ImageNet", "", (33.0, 19.0, 20.7, 21.7)),
                ("24k, COCO", "-coco", (37.8, 24.2, 22.7, 26.8)),
            )
            for (title, kind), ap in zip(
                (
                    ("CondInst (masks)", "condinst"),
                    ("BoxInst", "boxinst"),
                    ("BoxLevelSet", None),
                    ("BoxTeacher", "boxteacher"),
                ),
                values,
                strict=True,
            )
        ),
        Line(
            title="BoxSnake",
            paper=_ap(26.3),
            schedule="24k",
            source="BoxSnake README",
            remark="not in the paper's table; initialisation not stated",
        ),
        Line(
            title="the method", row="city-ours-r50", paper=_ap(24.4, 52.1), schedule="24k, ImageNet"
        ),
        Line(
            title="the method",
            row="city-ours-r50-coco",
            paper=_ap(28.9, 58.0),
            schedule="24k, COCO",
        ),
        Line(
            title="the method",
            row="city-ours-swint",
            paper=_ap(27.6, 55.3),
            backbone="Swin-T",
            schedule="24k, ImageNet",
            remark="which initialisation the paper's Swin-T had is unsure",
        ),
        Line(
            title="the method",
            row="city-ours-swint-coco",
            backbone="Swin-T",
            schedule="24k, COCO",
            remark="not in the paper",
        ),
    ),
)

TABLE_3A = PaperTable(
    number="3a",
    title="Loss terms, without distillation",
    split="val2017",
    lines=(
        Line(title="BoxInst", row="boxinst-r50-1x", paper=_ap(30.7, 52.2, 31.1)),
        Line(title="+ L_cons", row="terms-cons", paper=_ap(31.1, 52.9, 31.6)),
        Line(title="+ L_depth", row="terms-depth", paper=_ap(31.0, 52.6, 31.6)),
        Line(title="+ both", row="terms-both", paper=_ap(31.5, 52.9, 32.2)),
    ),
)

TABLE_3B = PaperTable(
    number="3b",
    title="Depth threshold tau_d, without distillation",
    split="val2017",
    lines=(
        Line(title="-", row="boxinst-r50-1x", paper=_ap(30.7, 52.2, 31.1), remark="neither term"),
        Line(title="0.3", row="tau-0.3", paper=_ap(30.9, 52.5, 31.6)),
        Line(title="0.5", row="terms-both", paper=_ap(31.5, 52.9, 32.2)),
        Line(title="0.7", row="tau-0.7", paper=_ap(31.0, 52.6, 31.4)),
    ),
)

TABLE_3C = PaperTable(
    number="3c",
    title="Teacher's size and matching",
    split="val2017",
    lines=(
        Line(title="no distillation", row="terms-both", paper=_ap(31.5, 52.9, 32.2)),
        Line(title="student's size, IoU", row="teacher-same-iou", paper=_ap(31.6, 53.1, 32.3)),
        Line(title="800, IoU", row="teacher-800-iou", paper=_ap(32.4, 53.5, 33.7)),
        Line(title="800, S_match", row="ours-r50-1x", paper=_ap(32.7, 53.9, 33.9)),
    ),
)

TABLE_3D = PaperTable(
    number="3d",
    title="Weight gamma of the pseudo-mask loss",
    split="val2017",
    lines=(
        Line(title="0", row="terms-both", paper=_ap(31.5), remark="no distillation"),
        Line(title="1", row="gamma-1", paper=_ap(32.2)),
        Line(title="2", row="gamma-2", paper=_ap(32.5)),
        Line(title="4", row="ours-r50-1x", paper=_ap(32.7)),
    ),
)

TABLES = {t.number: t for t in (TABLE_1, TABLE_2, TABLE_3A, TABLE_3B, TABLE_3C, TABLE_3D)}
