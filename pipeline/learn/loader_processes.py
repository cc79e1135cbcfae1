"""How every loader feeds a network: its processes, and what each of them does first."""

from typing import Any

import cv2
import torch
from torch.utils.data import DataLoader, Dataset, Sampler


def item_loader(items: Dataset, batch: int | None, sampler: Sampler, workers: int, **options: Any) -> DataLoader:
    """Return a loader of `batch` items each (None: an item as it is), in the sampler's order.

    workers: processes, 0 for none; options: further ones of DataLoader.
    """
    return DataLoader(
        items,
        batch_size=batch,
        sampler=sampler,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        # They keep no state, and starting sixteen of them at each epoch would let a GPU wait.
        persistent_workers=workers > 0,
        worker_init_fn=one_thread,
        **options,
    )


def one_thread(_worker: int) -> None:
    """Let cv2 use no threads of its own in a loader's process, of which there is one a core."""
    cv2.setNumThreads(0)
