"""What every process that feeds a network does first."""

import cv2


def one_thread(_worker: int) -> None:
    """Let cv2 use no threads of its own in a loader's process, of which there is one a core."""
    cv2.setNumThreads(0)
