"""Burduja, Ionescu, Verga 2020: ResNeXt-101 on three windows, embeddings reduced to 120, BiLSTM over the scan.

Accurate and Efficient Intracranial Hemorrhage Detection and Subtype Classification in 3D CT Scans with Convolutional
and Long Short-Term Memory Neural Networks. Sensors 20(19), 5611, 2020.

    make submission DATASET=rsna RECIPE=burduja2020

Cost in the paper: 36 ms an image in training on one P100, 7 h an epoch over 728,513 slices (section 4).
Expected score: weighted log loss 0.04989 on the challenge's private test set (Table 2, last row).

Departs from the paper:
- The LSTM's two directions are concatenated, so that the classifier sees 512 features and 6 probabilities; the paper's
  Fig. 3 speaks of 256-dimensional outputs, which a 3 x 256 bidirectional LSTM does not give without a sum.
- Six independent sigmoids, as equation 1 asks for; the paper's text calls the layer a Softmax.
- Five patient-disjoint folds, where the paper held out one validation part of 24,290 slices (section 4.1).
- The sizes of shifts, rotations, scalings and brightness changes are ours; section 3.1 names the kinds only.
- bfloat16 on a GPU that has it, where the paper used Apex' float16 (section 4.2.1).
- Weights: timm's copy of the weakly supervised weights, fine-tuned on ImageNet-1k by the same authors.
- EfficientNet-B4 has 1792 features, not the 2048 that Table 2 says; its weights are timm's `aa_in1k`.

Its variants are the rows of Table 2, `burduja2020-pca192` and so on; `make ablation` runs them all.
"""

from pipeline.config import BASE, Run, variant
from pipeline.published import (
    FigureRow,
    FigureTable,
    Headline,
    PublishedReader,
    PublishedReaders,
    PublishedRow,
    PublishedTable,
)
from pipeline.runs import Variant

FOLDS = (0, 1, 2, 3, 4)

RECIPE = Run(
    "burduja2020",
    variant(
        BASE,
        **{
            # Section 3.1: brain, subdural and soft-tissue window; 512 px reduced to 256 by linear interpolation.
            "view.name": "brain3",
            "view.windows": "40/80,80/200,40/380",
            "view.size": 256,
            # Section 3.1: mean and standard deviation of each channel, images in 0 to 1.
            "train.mean": (0.1738, 0.1433, 0.1970),
            "train.std": (0.3161, 0.2850, 0.3111),
            # Section 3.1: horizontal flip, shift, rotation, scaling, brightness.
            "train.flip": 0.5,
            "train.shift": 0.0625,
            "train.rotate_deg": 15.0,
            "train.scale": 0.1,
            "train.affine_chance": 0.75,
            "train.brightness": 0.1,
            "train.brightness_chance": 0.5,
            # Section 3.2: ResNeXt-101 32x8d of Xie et al., pre-trained on 940 million public images.
            "train.encoder": "resnext101_32x8d.fb_wsl_ig1b_ft_in1k",
            "train.weights": "hub",
            # Sections 3.3 and 4.2.1.
            "train.epochs": 3,
            "train.learning_rates": (1e-4, 1e-4, 2e-5),
            "train.batch": 32,
            # Section 3.2: PCA fitted on 30,000 vectors; Table 2: 120 components.
            "reduce.method": "pca",
            "reduce.count": 120,
            "reduce.fit_rows": 30000,
            # Section 3.2: three bidirectional layers of 256 cells, dropout 0.3, CNN probabilities concatenated.
            "sequence.kind": "bilstm",
            "sequence.layers": 3,
            "sequence.hidden": 256,
            "sequence.dropout": 0.3,
            "sequence.probabilities": True,
            # Sections 3.3 and 4.2.1: one scan a step.
            "sequence.epochs": 4,
            "sequence.learning_rates": (1e-4,),
            "sequence.batch_scans": 1,
        },
    ),
)

WITHOUT_PROBABILITIES = {"sequence.probabilities": False}
"""Only the last row of Table 2 shows the CNN's probabilities to the classifier (section 4.3)."""

VARIANTS = {
    "effnetb4": Variant({"train.encoder": "tf_efficientnet_b4.aa_in1k", "sequence.kind": "none"}),
    "cnn": Variant({"sequence.kind": "none"}),
    "preds": Variant({"reduce.method": "predictions_only", **WITHOUT_PROBABILITIES}),
    "std192": Variant({"reduce.method": "largest_std", "reduce.count": 192, **WITHOUT_PROBABILITIES}),
    "largest192": Variant({"reduce.method": "largest_weights", "reduce.count": 192, **WITHOUT_PROBABILITIES}),
    "smallest192": Variant({"reduce.method": "smallest_weights", "reduce.count": 192, **WITHOUT_PROBABILITIES}),
    "smallest120": Variant({"reduce.method": "smallest_weights", "reduce.count": 120, **WITHOUT_PROBABILITIES}),
    "pca192-2x128": Variant({"sequence.layers": 2, "sequence.hidden": 128}, of="pca192"),
    "pca192-3x128": Variant({"sequence.layers": 3, "sequence.hidden": 128}, of="pca192"),
    "pca192": Variant({"reduce.count": 192, **WITHOUT_PROBABILITIES}),
    "pca120": Variant(WITHOUT_PROBABILITIES),
}

TABLES = (
    PublishedTable(
        "Table 2 of Burduja et al. 2020",
        "weighted log loss on the challenge's private test set",
        (
            PublishedRow("EfficientNet-B4", "effnetb4", 0.07212),
            PublishedRow("ResNeXt-101 32x8d", "cnn", 0.06259),
            PublishedRow("+ BiLSTM 3x256 on its predictions", "preds", 0.05540),
            PublishedRow("+ BiLSTM 3x256, largest deviations 192", "std192", 0.05212),
            PublishedRow("+ BiLSTM 3x256, largest weights 192", "largest192", 0.05365),
            PublishedRow("+ BiLSTM 3x256, smallest weights 192", "smallest192", 0.05136),
            PublishedRow("+ BiLSTM 3x256, smallest weights 120", "smallest120", 0.05035),
            PublishedRow("+ BiLSTM 2x128, PCA 192", "pca192-2x128", 0.05207),
            PublishedRow("+ BiLSTM 3x128, PCA 192", "pca192-3x128", 0.05198),
            PublishedRow("+ BiLSTM 3x256, PCA 192", "pca192", 0.05096),
            PublishedRow("+ BiLSTM 3x256, PCA 120", "pca120", 0.05022),
            PublishedRow("+ BiLSTM 3x256, PCA 120 and predictions", "", 0.04989),
        ),
    ),
)

TABLE_3 = {
    "slice": {
        "cnn": {
            "epidural": (0.9967, 0.9703, 0.2405, 0.9992),
            "intraparenchymal": (0.9809, 0.9883, 0.6865, 0.9974),
            "intraventricular": (0.9905, 0.9953, 0.8325, 0.9960),
            "subarachnoid": (0.9697, 0.9644, 0.5024, 0.9949),
            "subdural": (0.9604, 0.9576, 0.5993, 0.9873),
            "any": (0.9543, 0.9752, 0.7866, 0.9848),
        },
        "sequence": {
            "epidural": (0.9970, 0.9851, 0.4430, 0.9988),
            "intraparenchymal": (0.9832, 0.9927, 0.8142, 0.9927),
            "intraventricular": (0.9920, 0.9970, 0.9102, 0.9948),
            "subarachnoid": (0.9752, 0.9821, 0.6624, 0.9921),
            "subdural": (0.9627, 0.9682, 0.6817, 0.9837),
            "any": (0.9600, 0.9843, 0.8605, 0.9781),
        },
    },
    "scan": {
        "cnn": {
            "epidural": (0.9879, 0.9479, 0.4000, 0.9959),
            "intraparenchymal": (0.9449, 0.9806, 0.8377, 0.9819),
            "intraventricular": (0.9570, 0.9889, 0.9127, 0.9660),
            "subarachnoid": (0.9126, 0.9582, 0.7222, 0.9583),
            "subdural": (0.9086, 0.9408, 0.8182, 0.9301),
            "any": (0.9409, 0.9782, 0.9436, 0.9388),
        },
        "sequence": {
            "epidural": (0.9892, 0.9414, 0.4000, 0.9973),
            "intraparenchymal": (0.9368, 0.9834, 0.8639, 0.9620),
            "intraventricular": (0.9651, 0.9866, 0.9127, 0.9757),
            "subarachnoid": (0.9220, 0.9609, 0.6944, 0.9767),
            "subdural": (0.9140, 0.9451, 0.7203, 0.9601),
            "any": (0.9516, 0.9792, 0.9436, 0.9576),
        },
    },
}
"""Accuracy, ROC AUC, sensitivity and specificity by what is counted, stage and label."""

STAGE_NAMES = {"cnn": "ResNeXt-101 32x8d", "sequence": "ResNeXt-101 32x8d + BiLSTM"}

HEADLINES = (
    Headline("weighted log loss", "0.04989", "private test part of RSNA 2019, 27th of 1345 (section 4)"),
    Headline("training of the CNN, an image of 256 px", "36 ms", "one P100; 7 h an epoch of 728,513 slices"),
    Headline("training of the CNN, an image of 512 px", "128 ms", "one P100"),
)

FIGURES = tuple(
    FigureTable(
        f"Table 3 of Burduja et al. 2020, {unit}s",
        "their validation part, 24,290 slices of RSNA's training part",
        unit,
        ("accuracy", "roc_auc", "sensitivity", "specificity"),
        tuple(
            FigureRow(
                f"{STAGE_NAMES[stage]}, {label}",
                dict(zip(("accuracy", "roc_auc", "sensitivity", "specificity"), figures, strict=True)),
                stage=stage,
                subset=label,
            )
            for stage, labels in stages.items()
            for label, figures in labels.items()
        ),
        4,
    )
    for unit, stages in TABLE_3.items()
)

READER_TABLE = PublishedReaders(
    "Table 5 of Burduja et al. 2020",
    "100 scans held out of RSNA's training part, 52 of them positive, none with an epidural hemorrhage (Table 4)",
    ("accuracy", "roc_auc", "sensitivity", "specificity"),
    (
        PublishedReader(
            "doctor 1 (radiation therapy)",
            "",
            {
                "accuracy": (0.92, 0.70, 0.87, 0.71, 0.71, 0.81),
                "roc_auc": (None, 0.79, 0.72, 0.49, 0.69, 0.80),
                "sensitivity": (None, 1.00, 0.50, 0.04, 0.62, 0.98),
                "specificity": (0.92, 0.58, 0.94, 0.93, 0.75, 0.62),
            },
        ),
        PublishedReader(
            "doctor 2",
            "",
            {
                "accuracy": (0.97, 0.89, 0.95, 0.91, 0.94, 0.95),
                "roc_auc": (None, 0.89, 0.92, 0.82, 0.91, 0.95),
                "sensitivity": (None, 0.90, 0.88, 0.64, 0.81, 0.94),
                "specificity": (0.97, 0.89, 0.96, 1.00, 1.00, 0.94),
            },
        ),
        PublishedReader(
            "doctor 3",
            "",
            {
                "accuracy": (0.96, 0.91, 0.97, 0.83, 0.91, 0.96),
                "roc_auc": (None, 0.90, 0.95, 0.68, 0.88, 0.96),
                "sensitivity": (None, 0.90, 0.94, 0.40, 0.81, 0.96),
                "specificity": (0.96, 0.92, 0.98, 0.97, 0.96, 0.96),
            },
        ),
        PublishedReader(
            "ResNeXt-101 32x8d",
            "cnn",
            {
                "accuracy": (1.00, 0.90, 0.94, 0.86, 0.90, 0.98),
                "roc_auc": (None, 0.90, 0.94, 0.81, 0.87, 0.98),
                "sensitivity": (None, 0.90, 0.94, 0.72, 0.78, 0.98),
                "specificity": (1.00, 0.90, 0.94, 0.91, 0.96, 0.98),
            },
        ),
        PublishedReader(
            "ResNeXt-101 32x8d + BiLSTM",
            "sequence",
            {
                "accuracy": (1.00, 0.92, 0.95, 0.83, 0.93, 0.97),
                "roc_auc": (None, 0.91, 0.94, 0.71, 0.89, 0.97),
                "sensitivity": (None, 0.90, 0.94, 0.48, 0.78, 0.96),
                "specificity": (1.00, 0.93, 0.95, 0.95, 1.00, 0.98),
            },
        ),
    ),
    2,
    # Not said in the paper, but each area is so, within the rounding of three figures.
    "The ROC AUC of the paper's models is, as its doctors', that of calls: (sensitivity + specificity) / 2. That of "
    "our models is of scores.",
)
