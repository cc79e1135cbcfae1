"""Patel et al. 2019: a VGG-like network over all slices of a scan, a summed BiLSTM over their vectors, end to end.

Image Level Training and Prediction: Intracranial Hemorrhage Identification in 3D Non-Contrast CT. IEEE Access,
2019, doi 10.1109/ACCESS.2019.2927792.

    make submission DATASET=rsna RECIPE=patel2019
    make submission RECIPE=patel2019-small

Three steps: the slice network on slice labels (`train`), the BiLSTM on scan labels with the slice network as it is
(`sequence`), both together on scan labels (`endtoend`). The result is a probability of hemorrhage for each scan.

Expected: ROC AUC 0.96 (95 % CI 0.93-0.97) on 386 scans of one scanner with slices of 0.5 mm (section IV-B).
Cost in the paper: about 0.5 s a scan on one Titan X; steps 2 and 3 took about 13,000 and 14,000 samples. Memory for
backward at full size, from the shapes (`pipeline.nets.vgg.activation_bytes`): 20.2 MB a slice behind the filter, so
0.32 GB a chunk of 16, and 3.2 GB for all 160 slices of a scan of 512 x 512 x 320 at once: one GPU of 80 GB holds both.
`patel2019-small` takes about two minutes of one core a fold, on 96 scans of the phantom.

Departs from the paper:
- Slices of 5 mm: the maximum filter is 1 x 2 x 2, not 2 x 2 x 2. At 0.5 mm: SET="volume.maximum_filter=2,2,2".
- The number of filters is not in the text: 16, doubled from unit to unit. Both dense layers have 512 units and ReLU.
- Convolutions are not padded, which the text does not say: only so 256 px end at 1 x 1 after six poolings.
- HU are clipped to 0 to 100 and scaled to -1 to 1; the paper does not say how its input was scaled.
- The slice network begins with He's weights; the paper says how the LSTM begins, not how this one does.
- One logit and a sigmoid, where the paper has a softmax over two classes: the same model.
- Negative slices are shown where bone encloses soft tissue of 2 % of the image (`core/cranial_cavity.py`); the paper
  segmented the cranial cavity by registration. Slices through an open skull base or craniectomy are so left out.
  Positive slices show the cavity by what they are.
- Validation in step 1 is the loss over all such slices, not the accuracy of 500 patches. All three steps keep the last
  epoch's weights, the paper the best epoch's on its validation set.
- Step 2 learns from vectors that were computed once, of scans as they are: it is augmented by nothing. With the slice
  network fixed, each change of a scan would cost a pass of all its slices, as much as step 3; that step is augmented.
- Changes are made behind the maximum filter, where the text leaves the order open in 3D; shifts are up to 15 of 256
  pixels in the plane and the same length along z; scans turn in mm, about their centre.
- Dropout is before the first dense layer and before step 1's own last one; step 3 has the former alone.
- RMSprop is Keras' (running average 0.9); its rate, which the paper calls initial, stays as it is.
- The paper does not say for how long step 1 was trained; ours is 10 epochs. An epoch shows all items of the rarer class
  and as many of the other: 2 x 666 scans in the paper's data, so steps 2 and 3 take 10 and 11 of them. RSNA 2019 has
  some ten times as many scans: one epoch shows as many there.
- Bounding boxes gave the paper's slice labels, of 170 scans; here all scans have slice labels.
- 75, 5 and 20 % of patients, as in Table 2 of the paper, alike in all labels, where the paper drew at random.
"""

from pipeline.config import BASE, Run, variant
from pipeline.published import FigureRow, FigureTable, Headline
from pipeline.runs import Variant

FOLDS = (0,)

RECIPE = Run(
    "patel2019",
    variant(
        BASE,
        **{
            # Section II-A: 512 x 512 px, Hounsfield units.
            "view.name": "hu512",
            "view.kind": "hu",
            "view.size": 512,
            # Table 2.
            "split.kind": "holdout",
            "split.holdout": (0.75, 0.05, 0.20),
            # Section III-B.
            "train.network": "vgg",
            "volume.filters": 16,
            "volume.units": 5,
            "volume.features": 512,
            "train.hu_range": (0.0, 100.0),
            "train.input_range": (-1.0, 1.0),
            # Section III-C.1; in the plane alone, where slices are thick.
            "volume.maximum_filter": (1, 2, 2),
            "volume.drop": 0.5,
            "train.balance": True,
            "train.batch": 25,
            "train.epochs": 10,
            "train.learning_rates": (1e-4,),
            "train.one_of": True,
            "train.rotate_deg": 25.0,
            "train.shift": 15 / 256,
            # Sections III-B and III-C.2.
            "reduce.method": "none",
            "sequence.kind": "bilstm_sum",
            "sequence.layers": 2,
            "sequence.hidden": 512,
            "sequence.batch_scans": 1,
            "sequence.epochs": 10,
            "sequence.learning_rates": (1e-3,),
            # Section III-C.3.
            "endtoend.epochs": 11,
            "endtoend.learning_rates": (1e-4,),
            "endtoend.chunk_slices": 16,
        },
    ),
)

FROZEN = {"endtoend.epochs": 0}
FROM_SCRATCH = {"endtoend.pretrained_cnn": False, "endtoend.pretrained_sequence": False}
SMALL = {
    "view.name": "hu128",
    "view.size": 128,
    "split.kind": "folds",
    "volume.filters": 8,
    "volume.units": 3,
    "volume.features": 64,
    # An epoch of the phantom has 41 steps, one of RSNA 2019 thousands; ten times the paper's rate.
    "train.epochs": 50,
    "train.learning_rates": (1e-3,),
    "sequence.hidden": 32,
    "sequence.epochs": 4,
    "endtoend.epochs": 3,
}
"""For two cores and the phantom: 64 px behind the filter, three units, eight filters in the first."""

VARIANTS = {
    "one-layer": Variant({"sequence.layers": 1}),
    "frozen": Variant(FROZEN),
    "frozen-one-layer": Variant(FROZEN, of="one-layer"),
    "from-scratch": Variant(FROM_SCRATCH),
    "small": Variant(SMALL, folds=(0, 1)),
    "small-one-layer": Variant({"sequence.layers": 1}, of="small"),
    "small-from-scratch": Variant(FROM_SCRATCH, of="small"),
}

TABLES = ()


def _area(area: float, low: float, high: float) -> dict[str, float]:
    """Return a ROC AUC with its limits."""
    return {"roc_auc": area, "roc_auc_low": low, "roc_auc_high": high}


BETTER = {"p_value": 0.0001}
"""Less than that."""

HEADLINES = (
    Headline("ROC AUC of scans", "0.96", "386 scans of the paper's own hospital"),
    Headline("a scan in use", "0.5 s", "one Titan X (sections III-E and IV)"),
)

FIGURES = (
    FigureTable(
        "Sections IV-A and IV-B of Patel et al. 2019",
        "386 scans of the paper's own hospital, 177 of them positive",
        "scan",
        ("roc_auc", "roc_auc_low", "roc_auc_high", "p_value", "sensitivity", "specificity", "accuracy"),
        (
            FigureRow("slice maximum", _area(0.60, 0.54, 0.65), stage="cnn"),
            FigureRow("95th percentile of slices", _area(0.65, 0.59, 0.70), stage="cnn/percentile-95"),
            FigureRow("linear SVM on the slices' vectors", _area(0.90, 0.87, 0.93), stage="cnn/svm"),
            FigureRow("one LSTM layer, slice network fixed", _area(0.87, 0.83, 0.90), "one-layer", stage="sequence"),
            FigureRow("two LSTM layers, slice network fixed", _area(0.87, 0.84, 0.91), stage="sequence"),
            FigureRow(
                "one LSTM layer, end to end",
                _area(0.94, 0.91, 0.96) | BETTER,
                "one-layer",
                stage="endtoend",
                against="sequence",
            ),
            FigureRow(
                "two LSTM layers, end to end",
                _area(0.96, 0.93, 0.97) | BETTER | {"sensitivity": 0.98, "specificity": 0.78, "accuracy": 0.87},
                stage="endtoend",
                against="sequence",
                sensitivity=0.98,
            ),
            FigureRow("the same without pre-training", {}, "from-scratch", stage="endtoend"),
        ),
        2,
        "Limits are those of the 95 % confidence interval (ours DeLong's); the paper's Table 1 has 0.95 to 0.97 for "
        "two layers end to end. p is DeLong's, end to end against the fixed slice network; the paper says P < 0.0001. "
        "Two layers end to end are called at an operating point chosen for a sensitivity of 0.98. "
        "Without pre-training there is a curve in its Fig. 4, without a figure.",
    ),
)
