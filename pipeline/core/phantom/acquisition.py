"""What the scanner adds: headholder, cupping and streaks, noise, the edge of the field of view."""

import math

import cv2
import numpy as np

from pipeline.core.phantom.geometry import Geometry, pixel_to_head
from pipeline.core.phantom.head import Head
from pipeline.core.phantom.render import AIR_HU

PETROUS_HEIGHT_MM = -10.0
"""Where the petrous bones lie over the sella, and the darkest band between them."""

STREAK_GRID = 4
"""Streaks are smooth: they are computed on every fourth pixel and interpolated."""


def headholder(geometry: Geometry) -> np.ndarray:
    """Return the scene without the patient, HU float32 (rows, columns): air and the shell that holds the head."""
    axis = (np.arange(geometry.side_px) - 0.5 * (geometry.side_px - 1)) * geometry.pixel_mm
    x, y = axis[None, :], axis[:, None]
    # A U: a half circle below, straight cheeks above it.
    distance = np.where(y > 4.0, np.hypot(x, y - 4.0), np.abs(x)) - 106.0
    shell = np.clip(1.2 - np.abs(distance) / 0.8, 0.0, 1.0) * (y > -25.0)
    foam = ((distance < 0.0) & (distance > -9.0) & (y > 15.0)) * 45.0
    return (AIR_HU + foam + shell * (90.0 - AIR_HU)).astype(np.float32)


def streaks(geometry: Geometry, index: int, head: Head, strength_hu: float) -> np.ndarray | None:
    """Return beam hardening between the petrous bones, HU float32 (rows, columns), or None far from them.

    A dark band joins the two bones; fainter bright and dark rays fan out from each.
    """
    first, to_column, to_row, through = pixel_to_head(geometry, index)
    up = through / np.linalg.norm(through)
    tips = np.array([[side * 40.0 * head.scale_x, 14.0 * head.scale_y, PETROUS_HEIGHT_MM] for side in (-1.0, 1.0)])
    distance = float(np.mean((tips - first) @ up))
    weight = strength_hu * math.exp(-((distance / 9.0) ** 2))
    if weight < 0.4:
        return None
    centres = np.stack(
        [(tips - first) @ to_column / geometry.pixel_mm**2, (tips - first) @ to_row / geometry.pixel_mm**2], axis=1
    )
    coarse = np.arange(0, geometry.side_px, STREAK_GRID, dtype=np.float32)
    col, row = coarse[None, :], coarse[:, None]
    line = centres[1] - centres[0]
    length = float(np.hypot(*line))
    along = ((col - centres[0, 0]) * line[0] + (row - centres[0, 1]) * line[1]) / length**2
    across = ((col - centres[0, 0]) * line[1] - (row - centres[0, 1]) * line[0]) / length * geometry.pixel_mm
    between = np.clip(1.0 - np.abs(along - 0.5) ** 4 * 12.0, 0.0, 1.0)
    field = -weight * np.exp(-((across / 5.0) ** 2)) * between
    for number, (centre_col, centre_row) in enumerate(centres):
        angle = np.arctan2(row - centre_row, col - centre_col)
        away = np.hypot(row - centre_row, col - centre_col) * geometry.pixel_mm
        rays = np.sin(angle * 14.0 + 1.7 * number) * np.sin(angle * 5.0 + 0.6)
        field = field + 0.55 * weight * rays * np.exp(-away / 38.0) * np.clip(away / 12.0, 0.0, 1.0)
    size = (geometry.side_px, geometry.side_px)
    return cv2.resize(field.astype(np.float32), size, interpolation=cv2.INTER_LINEAR)


def noise(rng: np.random.Generator, side_px: int, sigma_hu: float) -> np.ndarray:
    """Return quantum noise, HU float32 (side, side): a little correlated, as reconstruction leaves it."""
    white = rng.standard_normal((side_px, side_px), dtype=np.float32)
    kernel = np.array([0.25, 0.5, 0.25])  # its norm over both axes is 0.375
    return cv2.sepFilter2D(white, cv2.CV_32F, kernel, kernel) * np.float32(sigma_hu / 0.375)


def outside_view(side_px: int) -> np.ndarray:
    """Return which pixels lie outside the circular field of view: bool (side, side)."""
    axis = np.arange(side_px) - 0.5 * (side_px - 1)
    return np.hypot(axis[None, :], axis[:, None]) > 0.5 * side_px
