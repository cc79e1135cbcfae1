"""Chang et al. 2018: a hybrid 3D/2D Mask R-CNN on slabs of five slices draws hemorrhage and tells its volume.

Hybrid 3D/2D Convolutional Neural Network for Hemorrhage Evaluation on Head CT. AJNR Am J Neuroradiol 39(9), 1609-1616,
2018.

    make submission DATASET=<one with masks> RECIPE=chang2018

Cost in the paper: 6 to 12 h a fold on up to four Titan X, 0.121 s a scan in use (Network Statistics).
Expected score: ROC AUC of hemorrhage in a scan 0.983 in cross-validation; Dice 0.931 (IPH), 0.863 (EDH/SDH) and 0.772
(SAH).

Departs from the paper:
- Blood in the ventricles, of which the paper says nothing, is drawn as IPH; as a case's type it counts as none.
- The paper gives neither the filters nor the blocks of its pyramid, nor the strides of its maps: here four levels, one
  for each size of anchor, of two bottlenecks with 64 to 512 filters, at strides of 4 to 32 pixels. A subsampling
  convolution is as wide as its stride; a level takes one slice away, so that 5 become 4, 3, 2, 1.
- Sizes of the heads, samplers of the region proposals and both thresholds of overlap are torchvision's, which follow
  Faster and Mask R-CNN; its losses are summed without weights. The heads' last layers are drawn as torchvision does.
- 256 proposals are kept of each level, pruned together, and the best 256 of what is left are judged; the paper prunes
  256 in all.
- Parts of a mask that touch at a corner are one box; those below 4 pixels (0.8 mm2 of a usual slice) are not trained
  on, where a larger one is beside them.
- An epoch shows each slice with hemorrhage once, and a quarter as many without, drawn anew; batches of 4. The paper
  says neither; of the regions of a slice with hemorrhage, too, three are without for each with it. 38 epochs of the
  paper's slices are about its 100,000 iterations.
- Half of the slabs are shown flipped from left to right, as Fast R-CNN is trained (Girshick 2015, section 2.3); the
  paper does not speak of augmentation.
- L2 of 1e-4 and division of the rate by ten after two epochs without a lower loss: the paper gives no figures.
- Folds are disjoint in patients; the paper's are drawn by examination. Its prospective test cohort is our test part.
- Weights are those after the last epoch; the paper does not say how many epochs it took them after.
- The soft-tissue series is what the data set gives; the paper finds it by a network of its own.
- A detection counts in volumes and overlaps from a score of 0.5; the paper does not say.

`chang2018-small` fits two cores and the phantom data set: smaller images, anchors, filters and heads, fewer proposals
and samples of them, few epochs at five times the paper's rate. One thing besides is not the paper's: it sees -20 to 120
HU. With the paper's range and 22 epochs its mean Dice was 0.270, below that of a plain threshold, 0.281 (48 scans of
the phantom, out of fold); its ROC AUC of scans was 0.755.
"""

from pipeline.config import BASE, Run, variant
from pipeline.published import FigureRow, FigureTable, Headline
from pipeline.runs import Variant

FOLDS = (0, 1, 2, 3, 4)

RECIPE = Run(
    "chang2018",
    variant(
        BASE,
        **{
            # Image Preprocessing: resized to 512 px, clipped to -240 to 240 HU, rescaled to -3 to 3.
            "view.name": "slabs",
            "view.kind": "hu",
            "view.size": 512,
            "view.masks": True,
            "train.network": "mask_rcnn",
            "train.hu_range": (-240.0, 240.0),
            "train.input_range": (-3.0, 3.0),
            # Implementation: Adam, 2e-4, annealed on a plateau of the training loss, L2.
            "train.learning_rates": (2e-4,),
            "train.plateau_epochs": 2,
            "train.weight_decay": 1e-4,
            "train.epochs": 38,
            "train.batch": 4,
            "train.flip": 0.5,
            # Convolutional Neural Network, and Fig. 2: 5 slices, 128 channels.
            "boxes.slab_slices": 5,
            "boxes.channels": 128,
            # Implementation: 128 regions at 1:3, 256 proposals, anchors of 4 scales and 3 ratios.
            "boxes.rois": 128,
            "boxes.positive_share": 0.25,
            "boxes.proposals": 256,
            "boxes.anchors_px": (16.0, 32.0, 64.0, 128.0),
            "boxes.ratios": (1.0, 0.5, 2.0),
            "boxes.least_px": 4,
            "boxes.negatives": 0.25,
            # Statistical Analysis: any detection on any slice makes a scan positive.
            "predict.consecutive": (1,),
        },
    ),
)

VARIANTS = {
    "small": Variant(
        {
            "view.size": 64,
            # Brain and blood further apart than in the paper's range: there are few steps to learn it in.
            "train.hu_range": (-20.0, 120.0),
            # Five times the paper's, and lower in the last four epochs: there is no time to wait for plateaus.
            "train.learning_rates": (*(1e-3,) * 10, 3e-4, 3e-4, 1e-4),
            "train.plateau_epochs": 0,
            "train.epochs": 14,
            "boxes.filters": 16,
            "boxes.blocks": 1,
            "boxes.channels": 32,
            "boxes.stride_px": 2,
            "boxes.anchors_px": (4.0, 8.0, 16.0, 32.0),
            "boxes.box_head": 128,
            "boxes.mask_head": 32,
            "boxes.anchors_sampled": 32,
            "boxes.rois": 16,
            "boxes.training_proposals": 200,
            "boxes.proposals": 64,
        },
        folds=(0, 1),
    ),
}

TABLES = ()

CASES = ("accuracy", "roc_auc", "sensitivity", "specificity", "ppv", "npv")

# Table 2: accuracy, AUC, sensitivity, specificity, PPV, NPV, of the cross-validation and of the test cohort.
TABLE_2 = (
    ("All ICHs", "", (0.984, 0.991, 0.971, 0.975, 0.975, 0.971), (0.972, 0.989, 0.951, 0.973, 0.972, 0.952)),
    ("Large", "large", (0.999, 0.999, 1.000, 0.975, 0.975, 1.000), (0.997, 0.999, 1.000, 0.973, 0.973, 1.000)),
    ("Medium", "medium", (0.992, 0.995, 0.986, 0.975, 0.975, 0.986), (0.977, 0.982, 0.962, 0.973, 0.972, 0.962)),
    ("Small", "small", (0.965, 0.972, 0.933, 0.975, 0.974, 0.936), (0.906, 0.987, 0.818, 0.973, 0.968, 0.843)),
    ("Punctate", "punctate", (0.883, 0.895, 0.769, 0.975, 0.968, 0.809), (0.872, 0.903, 0.750, 0.973, 0.965, 0.796)),
    ("IPH", "IPH", (0.992, 0.996, 0.986, 0.975, 0.975, 0.986), (0.997, 0.999, 1.000, 0.973, 0.973, 1.000)),
    ("IPH, large", "large IPH", (0.999, 0.999, 1.000, 0.975, 0.975, 1.000), (0.997, 0.999, 1.000, 0.973, 0.973, 1.000)),
    ("IPH, medium", "medium IPH", (0.999, 0.999, 1.000, 0.975, 0.975, 1.000),
     (0.997, 0.999, 1.000, 0.973, 0.973, 1.000)),
    ("IPH, small", "small IPH", (0.983, 0.999, 0.968, 0.975, 0.974, 0.968), (0.997, 0.999, 1.000, 0.973, 0.973, 1.000)),
    ("IPH, punctate", "punctate IPH", (0.899, 0.921, 0.800, 0.975, 0.969, 0.830),
     (0.997, 0.999, 1.000, 0.973, 0.973, 1.000)),
    ("EDH/SDH", "EDH/SDH", (0.986, 0.989, 0.975, 0.975, 0.975, 0.975), (0.970, 0.974, 0.947, 0.973, 0.972, 0.949)),
    ("EDH/SDH, large", "large EDH/SDH", (0.999, 0.999, 1.000, 0.975, 0.975, 1.000),
     (0.997, 0.999, 1.000, 0.973, 0.973, 1.000)),
    ("EDH/SDH, medium", "medium EDH/SDH", (0.980, 0.983, 0.962, 0.975, 0.974, 0.963),
     (0.963, 0.971, 0.933, 0.973, 0.971, 0.936)),
    ("EDH/SDH, small", "small EDH/SDH", (0.958, 0.968, 0.918, 0.975, 0.973, 0.923),
     (0.872, 0.882, 0.750, 0.973, 0.965, 0.796)),
    ("EDH/SDH, punctate", "punctate EDH/SDH", (0.832, 0.857, 0.667, 0.975, 0.963, 0.745),
     (None, None, None, 0.973, None, None)),
    ("SAH", "SAH", (0.970, 0.972, 0.942, 0.975, 0.974, 0.944), (0.949, 0.953, 0.905, 0.973, 0.971, 0.911)),
    ("SAH, large", "large SAH", (0.999, 0.999, 1.000, 0.975, 0.975, 1.000), (0.997, 0.999, 1.000, 0.973, 0.973, 1.000)),
    ("SAH, medium", "medium SAH", (0.999, 0.999, 1.000, 0.975, 0.975, 1.000),
     (0.997, 0.999, 1.000, 0.973, 0.973, 1.000)),
    ("SAH, small", "small SAH", (0.950, 0.960, 0.904, 0.975, 0.973, 0.910), (0.913, 0.928, 0.833, 0.973, 0.971, 0.854)),
    ("SAH, punctate", "punctate SAH", (0.881, 0.891, 0.765, 0.975, 0.968, 0.806),
     (0.830, 0.833, 0.667, 0.973, 0.961, 0.745)),
)  # fmt: skip


def _cases(text: str, subset: str, values: tuple[float | None, ...]) -> FigureRow:
    figures = {name: value for name, value in zip(CASES, values, strict=True) if value is not None}
    return FigureRow(text, figures, subset=subset)


VALIDATION = "cross-validation of 10,159 examinations, 901 with hemorrhage; counted on examinations"
TEST = "682 prospective examinations, 82 with hemorrhage (the abstract says 862); counted on examinations"

BALANCED_NOTE = (
    "Balanced: as many examinations with hemorrhage as without; large > 25 mL, medium 5 to 25, small 0.01 to 5, "
    "punctate < 0.01. A type's or size's examinations with hemorrhage are set against those without any. PPV and NPV "
    "follow from sensitivity and specificity at equal numbers; accuracy would be their mean, and is given higher."
)

HEADLINES = (
    Headline(
        "ROC AUC of scans", "0.983 and 0.981", "cross-validation of 10,159 examinations, and 682 prospective ones"
    ),
    Headline("Dice", "0.931, 0.863, 0.772", "IPH, EDH/SDH and SAH of its own hospital"),
    Headline("a scan in use", "0.121 s", "one Titan X (Network Statistics)"),
)

FIGURES = (
    FigureTable(
        "ICH Detection in Chang et al. 2018, cross-validation",
        VALIDATION,
        "scan",
        CASES,
        (
            _cases("hybrid 3D/2D mask R-CNN", "", (0.975, 0.983, 0.971, 0.975, 0.793, 0.997)),
            FigureRow("IPH (353/358)", {"sensitivity": 0.986}, subset="IPH"),
            FigureRow("EDH/SDH (311/319)", {"sensitivity": 0.974}, subset="EDH/SDH"),
            FigureRow("SAH (211/224)", {"sensitivity": 0.942}, subset="SAH"),
        ),
        3,
    ),
    FigureTable(
        "ICH Detection in Chang et al. 2018, test cohort",
        TEST,
        "scan",
        CASES,
        (
            _cases("hybrid 3D/2D mask R-CNN", "", (0.970, 0.981, 0.951, 0.973, 0.829, 0.993)),
            FigureRow("IPH (23/23)", {"sensitivity": 1.000}, subset="IPH"),
            FigureRow("EDH/SDH (36/38)", {"sensitivity": 0.947}, subset="EDH/SDH"),
            FigureRow("SAH (19/21)", {"sensitivity": 0.905}, subset="SAH"),
        ),
        3,
    ),
    *(
        FigureTable(
            f"Table 2 of Chang et al. 2018, {name}",
            of,
            "scan",
            CASES,
            tuple(_cases(row[0], f"balanced {row[1]}".strip(), row[place]) for row in TABLE_2),
            3,
            BALANCED_NOTE,
        )
        for name, of, place in (("cross-validation", VALIDATION, 2), ("test cohort", TEST, 3))
    ),
    FigureTable(
        "ICH Quantification in Chang et al. 2018",
        "masks and volumes of hemorrhage against those drawn by hand; the paper does not say in which cohort",
        "lesion",
        ("dice", "volume_r", "volume_bias_percent"),
        (
            FigureRow("IPH", {"dice": 0.931, "volume_r": 0.999, "volume_bias_percent": -2.1}, subset="IPH"),
            FigureRow("EDH/SDH", {"dice": 0.863, "volume_r": 0.987}, subset="EDH/SDH"),
            FigureRow("SAH", {"dice": 0.772, "volume_r": 0.953}, subset="SAH"),
            FigureRow("IPH by ABC/2", {"volume_r": 0.954, "volume_bias_percent": 20.2}, stage="abc2", subset="IPH"),
        ),
        3,
        "The bias of -2.1 % is said of hemorrhage volumes by the network, beside that of ABC/2 for IPH.",
    ),
)
