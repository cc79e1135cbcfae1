"""Which device a fold runs on, and in which precision."""

import torch


def choose_gpu(fold: int) -> None:
    """Let all that follows on a GPU use the one that falls to a fold: side by side, folds take turns with the GPUs.

    Convolutions are timed at their first use there and the fastest way is kept: images are all of one size.
    """
    if torch.cuda.is_available():
        torch.cuda.set_device(fold % torch.cuda.device_count())
        torch.backends.cudnn.benchmark = True


def device() -> torch.device:
    """Return the chosen GPU where there is one, else the CPU."""
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def precision() -> str:
    """Return Lightning's precision: bfloat16 on a GPU that has it, float16 on one that has not, 32 bits on a CPU."""
    if not torch.cuda.is_available():
        return "32-true"
    return "bf16-mixed" if torch.cuda.is_bf16_supported() else "16-mixed"
