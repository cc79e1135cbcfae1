"""Running the network that draws: boxes, classes, scores and masks of slices."""

import numpy as np
import pandas as pd
import torch

from pipeline.config import Settings
from pipeline.core.lesions import CLASSES
from pipeline.core.rows import scan_bounds
from pipeline.core.run_lengths import mask_text
from pipeline.learn.devices import device
from pipeline.learn.sampler import EpochSampler
from pipeline.learn.slab_data import Slabs, slab_loader, slab_rows
from pipeline.nets.mask_rcnn import SlabDetector
from pipeline.shell.progress import tracked

COLUMNS = {
    "slice_id": "str",
    "scan_id": "str",
    "detection": "int32",
    "x0_px": "float32",
    "y0_px": "float32",
    "x1_px": "float32",
    "y1_px": "float32",
    "type": "str",
    "score": "float64",
    "mask": "str",
}


def detect(network: SlabDetector, rows: pd.DataFrame, settings: Settings, workers: int) -> pd.DataFrame:
    """Return one row a detection: COLUMNS, of all slices whose detections score `boxes.least_score` or more.

    rows: one a slice, whole scans in anatomical order: scan_id, slice_id, png. `detection` numbers a slice's detections
    from 1, the most certain first; boxes are in pixels of the view, `type` is one of CLASSES, `mask` the run lengths
    (core/run_lengths.py) of the pixels that reach `boxes.mask_threshold`.
    """
    where = device()
    network = network.to(where).eval()
    slabs = slab_rows(scan_bounds(rows["scan_id"].to_numpy()), settings.boxes.slab_slices)
    images = Slabs(rows["png"].tolist(), slabs, [None] * len(rows))
    loader = slab_loader(images, settings.train.batch, workers, EpochSampler(len(images)))
    ids = iter(zip(rows["slice_id"], rows["scan_id"], strict=True))
    found = []
    for batch, _targets in tracked(loader, "batches"):
        with torch.inference_mode():
            results = network(batch.to(where, non_blocking=True))
        for result in results:
            slice_id, scan_id = next(ids)
            masks = (result["masks"][:, 0] >= settings.boxes.mask_threshold).cpu().numpy()
            boxes, classes, scores = (result[name].cpu().numpy() for name in ("boxes", "labels", "scores"))
            # torchvision sorts by score; equal ones keep its order.
            for number, place in enumerate(np.argsort(-scores, kind="stable"), start=1):
                type_name = CLASSES[classes[place] - 1]
                found.append(
                    (slice_id, scan_id, number, *boxes[place], type_name, scores[place], mask_text(masks[place]))
                )
    return pd.DataFrame(found, columns=list(COLUMNS)).astype(COLUMNS)
