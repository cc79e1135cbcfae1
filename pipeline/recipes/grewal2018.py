"""Grewal, Srivastava, Kumar, Varadarajan 2018: RADnet, a DenseNet taught by masks, with an LSTM over neighbours.

RADnet: Radiologist Level Accuracy using Deep Learning for Hemorrhage Detection in CT Scans. IEEE International
Symposium on Biomedical Imaging, 2018; arXiv 1710.04934.

    make submission RECIPE=grewal2018-small
    make submission DATASET=... RECIPE=grewal2018

Says of each slice whether it shows hemorrhage, and of a scan by three consecutive slices; it tells no kinds apart, so
there is no weighted log loss and no submission file. Learns from masks: without them `grewal2018-densenet` remains.

Cost in the paper: 40 hours on one GTX 1080 Ti for 60 epochs of 185 scans (section 2.2.3). `grewal2018-small` trains
its two folds of the phantom on two cores in minutes.
Expected score: accuracy 0.8182, recall 0.8864, precision 0.8125, F1 0.8478 on 77 scans (Table 1), of which 44 show
hemorrhage. Nothing of the kind is to be expected of `small`, or of a phantom.

Departs from the paper, or fills in what it leaves open:
- The paper cites DenseNet and says 40 layers and three blocks: growth 12, 16 filters in the stem, no bottleneck and no
  compression are those of Huang et al.'s DenseNet-40. Its stem has stride 2 here, as Fig. 1 upsamples the blocks'
  maps by 2, 4 and 8.
- Brain window 40/80 HU; the paper gives no numbers.
- A run is 5 slices, the LSTM has 128 cells a direction, a step takes 20 slices (4 runs): the paper chose by memory and
  validation score, and names none. Its scans had slices of 1 to 2 mm, RSNA's have 5.
- The masks' losses are binary cross entropy, each with the class's weight, and a pixel of blood weighs 20 times one
  without, for few are. The paper gives no weights.
- Weight decay 1e-4, as in Huang et al.; this paper does not speak of it.
- Deconvolutions begin as linear interpolation and the LSTM as torch has it; all else by He's initialisation.
- Positive runs are drawn as often as negative ones, each time rotated and flipped anew; the angle, 15 degrees, is ours.
- A slice is predicted from the run around it; the paper does not say which of a sequence's predictions count.
- Five patient-disjoint folds, where the paper held out 67 and 77 scans of 329.
- bfloat16 on a GPU that has it.

Its variants are the columns of Table 1, each at full size and `small`: fewer channels, pixels of 5 mm and nine epochs,
at thirty times the paper's rates, which are for sixty.
"""

from pipeline.config import BASE, Run, variant
from pipeline.published import FigureRow, FigureTable, Headline, PublishedReader, PublishedReaders
from pipeline.runs import Variant

FOLDS = (0, 1, 2, 3, 4)

RECIPE = Run(
    "grewal2018",
    variant(
        BASE,
        **{
            # Section 2.2.1: in-plane resampling to 1 mm x 1 mm, field of view 250 mm x 250 mm, nothing along z.
            "view.name": "hu",
            "view.kind": "hu",
            "view.pixel_mm": 1.0,
            "view.size": 250,
            "view.masks": True,
            # Section 2.2.1: thresholded to the brain window, then 0 to 1.
            "train.hu_range": (0.0, 80.0),
            "train.input_range": (0.0, 1.0),
            # Section 2.2.2: a 40-layer DenseNet with three blocks; widths of Huang et al. 2017, Table 2, k = 12.
            "train.network": "densenet",
            "dense.block_layers": 12,
            "dense.growth": 12,
            "dense.stem_filters": 16,
            # Section 2.2.2: three auxiliary tasks in a weighted sum.
            "dense.mask_weight": 1.0,
            "dense.blood_weight": 20.0,
            # Section 2.2.2: one bidirectional LSTM layer over sequences of neighbouring slices.
            "dense.run_slices": 5,
            "dense.hidden": 128,
            # Section 2.2.3: 60 epochs, 0.001 and a tenth of it after each third, momentum 0.9.
            "train.epochs": 60,
            "train.learning_rates": (1e-3,) * 20 + (1e-4,) * 20 + (1e-5,) * 20,
            "train.momentum": 0.9,
            "train.weight_decay": 1e-4,
            "train.batch": 20,
            # Section 2.2.3: rotation and horizontal flip, used to balance positive and negative.
            "train.flip": 0.5,
            "train.rotate_deg": 15.0,
            "train.affine_chance": 1.0,
            "train.balance": True,
            # Section 2.3: three consecutive slices make a scan positive; at 5 mm also fewer are worth a look.
            "predict.consecutive": (1, 2, 3),
        },
    ),
)

WITHOUT_LSTM = {"dense.run_slices": 1, "dense.hidden": 0}
WITHOUT_MASKS = {"dense.mask_weight": 0.0, "dense.blood_weight": 1.0, "view.masks": False}

VARIANTS = {
    "densenet": Variant(WITHOUT_MASKS, of="densenet-a"),
    "densenet-a": Variant(WITHOUT_LSTM),
    # For the phantom on two cores: the paper's thirds, each at thirty times its rate.
    "small": Variant(
        {
            "view.pixel_mm": 5.0,
            "view.size": 50,
            "dense.growth": 4,
            "dense.stem_filters": 8,
            "dense.hidden": 32,
            "train.epochs": 9,
            "train.learning_rates": (3e-2,) * 3 + (3e-3,) * 3 + (3e-4,) * 3,
        },
        folds=(0, 1),
    ),
    "small-densenet": Variant(WITHOUT_MASKS, of="small-densenet-a"),
    "small-densenet-a": Variant(WITHOUT_LSTM, of="small"),
}

TABLES = ()

HEADLINES = (
    Headline("accuracy of scans", "0.8182", "77 scans of the paper's two hospitals (Table 1)"),
    Headline("training", "40 h", "one GTX 1080 Ti, 60 epochs of 185 scans (section 2.2.3)"),
)

FIGURES = (
    FigureTable(
        "Table 1 of Grewal et al. 2018",
        "77 scans of the paper's two hospitals, 44 of them with hemorrhage; a scan is positive where three or more "
        "consecutive slices are",
        "scan",
        ("accuracy", "sensitivity", "ppv", "f1"),
        (
            FigureRow(
                "DenseNet",
                {"accuracy": 0.7273, "sensitivity": 0.8410, "ppv": 0.7255, "f1": 0.7790},
                "densenet",
                "cnn/consecutive-3",
            ),
            FigureRow(
                "DenseNet-A",
                {"accuracy": 0.8052, "sensitivity": 0.9091, "ppv": 0.7843, "f1": 0.8421},
                "densenet-a",
                "cnn/consecutive-3",
            ),
            FigureRow(
                "RADnet",
                {"accuracy": 0.8182, "sensitivity": 0.8864, "ppv": 0.8125, "f1": 0.8478},
                stage="sequence/consecutive-3",
            ),
        ),
        4,
        "The paper calls sensitivity recall, and the positive predictive value precision.",
    ),
)


def _of_scans(accuracy: float, recall: float, precision: float, f1: float) -> dict[str, tuple[float | None, ...]]:
    """Return figures of hemorrhage of any kind; the paper tells no kinds apart."""
    figures = {"accuracy": accuracy, "recall": recall, "precision": precision, "f1": f1}
    return {name: (None, None, None, None, None, figure) for name, figure in figures.items()}


READER_TABLE = PublishedReaders(
    "Table 2 of Grewal et al. 2018",
    "77 scans, 44 with hemorrhage and 33 without, by the reports of the patients' own radiologists",
    ("accuracy", "recall", "precision", "f1"),
    (
        PublishedReader("senior radiologist 1", "", _of_scans(0.8182, 0.8182, 0.8571, 0.8372)),
        PublishedReader("senior radiologist 2", "", _of_scans(0.8571, 0.8864, 0.8667, 0.8764)),
        PublishedReader("senior radiologist 3", "", _of_scans(0.8310, 0.8684, 0.8250, 0.8462)),
        PublishedReader("RADnet", "sequence", _of_scans(0.8182, 0.8864, 0.8125, 0.8478)),
    ),
    4,
    # 33/38, 33/40 and 59/71 are the only such shares of at most 77 scans.
    "The paper's RADnet calls a scan by three consecutive slices. The figures of its third radiologist are shares of "
    "71 scans, 38 with hemorrhage, though its caption says 77.",
)
