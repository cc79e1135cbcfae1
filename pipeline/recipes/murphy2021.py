"""Murphy, Satyamoorthi 2021: ResNet-18 and DenseNet-121 on single slices, six labels, no context.

Intracranial Hemorrhage Detection with Deep Convolutional Neural Networks. New York University, 2021.

    make submission DATASET=rsna RECIPE=murphy2021

Cost in the paper: not given. DenseNet-121 is the recipe itself, ResNet-18 the variant `resnet18`.
Expected score: log loss 0.067, ROC AUC of `any` 0.977, PR AUC of `any` 0.917 on their own held-out patients (Figs. 3 to
6). That log loss is the plain mean of six labels; weighted as the challenge weighs, the same figures give 0.075.

Departs from the paper:
- The three windows' numbers are left to their code, which is not public; here the field's usual ones: bone 600/2800,
  subdural 80/200, soft tissue 40/380 (centre/width, HU).
- Vertical flips and rotations each with a chance of one half; section 5.1 names the kinds and the 10 degrees only.
- All of the train part's patients are divided 65/15/20; the paper took 753,803 slices of 18,938 patients.
- Rates and epochs as in section 5.3; the weights kept are those of the last epoch, and the validation part chooses
  nothing.
- Weights: timm's copies of torchvision's first ImageNet weights, which the paper's years of PyTorch brought.

`murphy2021-folds` trains five folds instead of one model on the holdout division, to stand beside the other recipes.
`murphy2021-small` is DenseNet-121 with a quarter of the channels, at 96 px, trained from scratch in minutes, at twenty
times the paper's rates: those are for weights that ImageNet taught.
"""

from pipeline.config import BASE, Run, variant
from pipeline.published import FigureRow, FigureTable, Headline
from pipeline.runs import Variant

FOLDS = (0,)

RECIPE = Run(
    "murphy2021",
    variant(
        BASE,
        **{
            # Section 5.1: bone, subdural and soft-tissue window as three channels, at the networks' usual size.
            "view.name": "bone3",
            "view.windows": "600/2800,80/200,40/380",
            "view.size": 224,
            # Section 5.1: 65/15/20 by patient.
            "split.kind": "holdout",
            "split.holdout": (0.65, 0.15, 0.20),
            # Section 5.1: normalised; with ImageNet's weights, as ImageNet is.
            "train.mean": (0.485, 0.456, 0.406),
            "train.std": (0.229, 0.224, 0.225),
            "train.flip": 0.5,
            "train.flip_vertical": 0.5,
            "train.rotate_deg": 10.0,
            "train.affine_chance": 0.5,
            # Section 5.2.2; stopped after ten epochs (section 5.3).
            "train.encoder": "densenet121.tv_in1k",
            "train.weights": "hub",
            "train.epochs": 10,
            # Section 5.3: 1e-4 times 0.5 to the power of the epoch, Adam, batches of 32.
            "train.learning_rates": tuple(1e-4 * 0.5**epoch for epoch in range(20)),
            "train.batch": 32,
        },
    ),
)

RESNET18 = {"train.encoder": "resnet18.tv_in1k", "train.epochs": 20}
"""Sections 5.2.1 and 5.3."""

SMALL = {
    "view.size": 96,
    "split.kind": "folds",
    "train.encoder": "densenet121",
    "train.growth": 8,
    "train.weights": "none",
    "train.epochs": 5,
    # Twenty times the paper's, which are made for weights of ImageNet's.
    "train.learning_rates": tuple(2e-3 * 0.5**epoch for epoch in range(5)),
}

VARIANTS = {
    "resnet18": Variant(RESNET18),
    "folds": Variant({"split.kind": "folds"}, folds=(0, 1, 2, 3, 4)),
    "small": Variant(SMALL, folds=(0, 1)),
    "small-resnet18": Variant({"train.encoder": "resnet18", "train.growth": 0}, of="small"),
}

TABLES = ()

FIGURE_3 = {
    "resnet18": {
        "epidural": (0.930, 0.010),
        "intraparenchymal": (0.967, 0.077),
        "intraventricular": (0.975, 0.062),
        "subarachnoid": (0.929, 0.111),
        "subdural": (0.935, 0.120),
        "any": (0.949, 0.176),
        "": (0.948, 0.090),
    },
    "": {
        "epidural": (0.996, 0.016),
        "intraparenchymal": (0.981, 0.054),
        "intraventricular": (0.988, 0.034),
        "subarachnoid": (0.969, 0.081),
        "subdural": (0.964, 0.096),
        "any": (0.954, 0.123),
        "": (0.975, 0.067),
    },
}
"""Accuracy and log loss by variant and label; the empty label is the plain mean of the six."""

AREAS = {
    ("resnet18", "any"): {"roc_auc": 0.949, "pr_auc": 0.842},
    ("resnet18", "epidural"): {"pr_auc": 0.066},
    ("resnet18", "intraventricular"): {"roc_auc": 0.975},
    ("", "any"): {"roc_auc": 0.977, "pr_auc": 0.917},
    ("", "epidural"): {"pr_auc": 0.159},
    ("", "intraventricular"): {"roc_auc": 0.992},
}
"""Figures 4 and 5, as far as section 6 gives them in numbers."""

NAMES = {"resnet18": "ResNet-18", "": "DenseNet-121"}

HEADLINES = (
    Headline("mean log loss of the six labels", "0.067", "held-out patients of RSNA's training part (Fig. 3)"),
    Headline("weighted log loss, from the six of its Fig. 3", "0.075", "the same; this one compares with 0.04989"),
)

FIGURES = (
    FigureTable(
        "Figures 3 to 6 of Murphy, Satyamoorthi 2021",
        "slices of held-out patients of RSNA's training part, a label at a time; `all labels` is the plain mean of six",
        "slice",
        ("accuracy", "log_loss", "roc_auc", "pr_auc"),
        tuple(
            FigureRow(
                f"{NAMES[name]}, {label or 'all labels'}",
                {"accuracy": accuracy, "log_loss": loss, **AREAS.get((name, label), {})},
                name,
                subset=label,
            )
            for name, labels in FIGURE_3.items()
            for label, (accuracy, loss) in labels.items()
        ),
        3,
        "The paper's log loss weighs all six labels alike; the challenge's, in which 0.04989 was reached, `any` twice.",
    ),
)
