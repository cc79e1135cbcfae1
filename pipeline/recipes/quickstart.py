"""The default: burduja2020's stages, small enough for two cores and the phantom data set.

    make submission

Trains from scratch in minutes, so that every stage can be seen to work; no score of the paper's is to be expected.

Differs from burduja2020:
- a ResNet-14-T without pre-trained weights (its embedding has 2048 features too), at 96 px;
- learning rates and epochs for training from scratch on some 2,800 slices; batches of 16;
- folds 0 and 1; the PCA is fitted on all training rows; the BiLSTM takes eight scans a step;
- in the place of EfficientNet-B4, `quickstart-effnetb4` has the smallest EfficientNet that timm knows.
"""

from pipeline.config import Run, variant
from pipeline.recipes import burduja2020
from pipeline.runs import Variant

FOLDS = (0, 1)

RECIPE = Run(
    "quickstart",
    variant(
        burduja2020.RECIPE.settings,
        **{
            "view.size": 96,
            "train.encoder": "resnet14t",
            "train.weights": "none",
            "train.epochs": 2,
            "train.learning_rates": (6e-4, 1e-4),
            "train.batch": 16,
            "reduce.fit_rows": 0,
            "sequence.epochs": 8,
            "sequence.learning_rates": (1e-3,),
            "sequence.batch_scans": 8,
        },
    ),
    (burduja2020.RECIPE,),
)

VARIANTS = burduja2020.VARIANTS | {"effnetb4": Variant({"train.encoder": "test_efficientnet", "sequence.kind": "none"})}

TABLES = burduja2020.TABLES
FIGURES = burduja2020.FIGURES
HEADLINES = burduja2020.HEADLINES
READER_TABLE = burduja2020.READER_TABLE
