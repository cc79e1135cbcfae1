"""Draw docs/phantom.png from the phantom data set: `.venv/bin/python -m docs.draw_phantom` (after `make index`)."""

from pathlib import Path

import cv2
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from pipeline.config import BASE, LABELS
from pipeline.core.hounsfield import to_hu
from pipeline.core.windows import window_image
from pipeline.shell.dicom.pixels import decode_pixels

ROOT = Path(__file__).resolve().parents[1]
WINDOWS = ("brain 40/80", "subdural 80/200", "soft tissue 40/380")
OUTLINE = (255, 40, 40)


def main() -> None:
    """Draw, for each subtype, the training slice with most blood of it: three windows, and the mask's outline."""
    slices = pd.read_parquet(ROOT / "data" / "phantom" / "slices.parquet")
    slices = slices[(slices["split"] == "train") & (slices["columns"] == 512)]
    figure, axes = plt.subplots(4, 5, figsize=(13, 10.6))
    for column, label in enumerate(LABELS[:-1]):
        bit = 1 << column
        alone = slices[(slices[label] == 1) & (slices[list(LABELS[:-1])].sum(axis=1) == 1)]
        masks = {
            row.slice_id: cv2.imread(str(ROOT / row.mask), cv2.IMREAD_UNCHANGED) & bit for row in alone.itertuples()
        }
        chosen = max(masks, key=lambda slice_id: int((masks[slice_id] > 0).sum()))
        row = alone.set_index("slice_id").loc[chosen]
        stored = decode_pixels((ROOT / row["path"]).read_bytes())
        hu = to_hu(stored, row["slope"], row["intercept"], row["bits"], row["signed"])
        image = window_image(hu, BASE.view.windows, 512)
        outlined = np.repeat(image[:, :, :1], 3, axis=2)
        contours, _ = cv2.findContours((masks[chosen] > 0).astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(outlined, contours, -1, OUTLINE, 1)
        for line, picture in enumerate((*np.moveaxis(image, 2, 0), outlined)):
            axes[line, column].imshow(picture, cmap="gray", vmin=0, vmax=255)
            axes[line, column].set(xticks=[], yticks=[])
        axes[0, column].set_title(label)
    for line, name in enumerate((*WINDOWS, "mask on brain window")):
        axes[line, 0].set_ylabel(name)
    figure.tight_layout()
    figure.savefig(ROOT / "docs" / "phantom.png", dpi=70)


if __name__ == "__main__":
    main()
