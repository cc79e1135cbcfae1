"""Smooth random fields that repeat in space: the folds of the cortex and the lumps of everything else."""

import numpy as np

PERIOD_NODES = 64
"""Nodes of a side of a texture cube: a power of two, so that wrapping round is a bit mask."""

TEXTURE_STEP_MM = 3.0
"""Distance of two nodes: the cube repeats after 192 mm, more than a cavity is wide."""


def band_noise(rng: np.random.Generator, wavelength_mm: float, bandwidth: float = 0.25) -> np.ndarray:
    """Return a periodic random field with waves of one length.

    Result: float32 (PERIOD_NODES, PERIOD_NODES, PERIOD_NODES), axes z, y, x; mean 0, standard deviation 1. `bandwidth`
    is the relative width of the band of wave numbers. The zero level of such a field is a labyrinth of sheets half a
    wavelength apart: as sulci are.
    """
    white = rng.standard_normal((PERIOD_NODES,) * 3, dtype=np.float32)
    spectrum = np.fft.rfftn(white)
    full = np.fft.fftfreq(PERIOD_NODES, TEXTURE_STEP_MM)
    half = np.fft.rfftfreq(PERIOD_NODES, TEXTURE_STEP_MM)
    wave_number = np.sqrt(full[:, None, None] ** 2 + full[None, :, None] ** 2 + half[None, None, :] ** 2)
    centre = 1.0 / wavelength_mm
    spectrum *= np.exp(-(((wave_number - centre) / (bandwidth * centre)) ** 2))
    field = np.fft.irfftn(spectrum, s=white.shape, axes=(0, 1, 2))
    field -= field.mean()
    return (field / field.std()).astype(np.float32)
