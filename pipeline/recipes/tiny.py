"""For tests: quickstart's stages in seconds; its scores mean nothing.

make submission RECIPE=tiny PHANTOM_SCANS=10
"""

from pipeline.config import Run, variant
from pipeline.recipes import burduja2020, quickstart

FOLDS = (0, 1)

RECIPE = Run(
    "tiny",
    variant(
        quickstart.RECIPE.settings,
        **{
            "view.size": 32,
            "train.encoder": "resnet10t",
            "train.epochs": 2,
            "train.batch": 32,
            "reduce.count": 12,
            "sequence.layers": 1,
            "sequence.hidden": 8,
            "sequence.epochs": 2,
            "predict.resamples": 50,
        },
    ),
    (quickstart.RECIPE,),
)

VARIANTS = {name: burduja2020.VARIANTS[name] for name in ("cnn", "preds", "pca120")}

TABLES = burduja2020.TABLES
FIGURES = burduja2020.FIGURES
READER_TABLE = burduja2020.READER_TABLE
