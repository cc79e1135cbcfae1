"""What differs from head to head: sizes, widths of the fluid spaces, densities, calcifications."""

from typing import NamedTuple

import numpy as np


class Head(NamedTuple):
    """One person's measures. Lengths in mm, densities in HU; scales relative to a nominal adult head.

    A named tuple of floats, so that compiled code reads it by name.
    """

    scale_x: float
    scale_y: float
    scale_z: float
    flatness: float  # lop-sidedness of the back of the head, mm
    skull_mm: float
    table_mm: float  # thickness of the skull's outer and inner tables
    scalp_mm: float
    rim_mm: float  # fluid between brain and skull
    sulcus_mm: float  # half width of a sulcus at its mouth
    sulcus_depth_mm: float
    ventricle: float  # scale of the ventricles' radii
    ventricle_skew: float  # left minus right, relative
    cistern: float
    grey_hu: float
    white_hu: float
    fluid_hu: float
    falx_hu: float
    lucency_hu: float  # darker white matter round the ventricles of the old
    sinus_hu: float
    cells: float  # how far the mastoids are pneumatised, 0 to 1
    frontal_sinus: float
    haematoma_x: float  # scalp haematoma: centre and radius; no haematoma where the radius is 0
    haematoma_y: float
    haematoma_z: float
    haematoma_mm: float


def draw_head(rng: np.random.Generator) -> Head:
    """Draw one person's measures.

    Age drives what goes together in life: sulci, rim, ventricles and lucency grow with it, grey and white matter grow
    alike. Fluid has 0 to 12 HU, grey matter 37 to 41, white matter 26 to 31, as on unenhanced CT.
    """
    age = rng.uniform(0.0, 1.0)
    ventricle = 0.75 + 0.55 * age + rng.uniform(-0.1, 0.15)
    angle = rng.uniform(0.1, 0.9) * np.pi * rng.choice([-1.0, 1.0])  # from the front over either side
    height = rng.uniform(0.05, 0.7)  # angle over the horizon of the skull's dome
    grey = rng.uniform(37.5, 40.5)
    return Head(
        scale_x=rng.uniform(0.94, 1.04),
        scale_y=rng.uniform(0.93, 1.03),
        scale_z=rng.uniform(0.95, 1.04),
        flatness=rng.uniform(-5.0, 5.0),
        skull_mm=rng.uniform(5.5, 8.0),
        table_mm=rng.uniform(1.5, 2.1),
        scalp_mm=rng.uniform(4.0, 7.0),
        rim_mm=0.4 + 1.6 * age**1.5 + rng.uniform(0.0, 0.4),
        sulcus_mm=0.35 + 1.0 * age + rng.uniform(-0.1, 0.2),
        sulcus_depth_mm=rng.uniform(13.0, 19.0),
        ventricle=ventricle,
        ventricle_skew=rng.uniform(-0.15, 0.15),
        cistern=0.8 + 0.4 * age + rng.uniform(-0.1, 0.1),
        grey_hu=grey,
        white_hu=grey - rng.uniform(8.0, 10.5),
        fluid_hu=rng.uniform(3.0, 9.0),
        falx_hu=rng.uniform(46.0, 62.0) if rng.random() < 0.7 else rng.uniform(70.0, 110.0),
        lucency_hu=5.0 * max(age - 0.4, 0.0) * rng.uniform(0.5, 2.0),
        sinus_hu=rng.uniform(48.0, 60.0),
        cells=rng.uniform(0.4, 1.0),
        frontal_sinus=rng.uniform(0.5, 1.15),
        haematoma_x=76.0 * np.sin(angle) * np.cos(height),
        haematoma_y=-91.0 * np.cos(angle) * np.cos(height),
        haematoma_z=20.0 + 79.0 * np.sin(height),
        haematoma_mm=rng.uniform(18.0, 34.0),
    )


def at_study(head: Head, swollen_ventricles: bool, scalp_haematoma: bool) -> Head:
    """Return the same person on the day of a study: with swollen ventricles, with or without the scalp haematoma."""
    return head._replace(
        ventricle=head.ventricle + (0.2 if swollen_ventricles else 0.0),
        haematoma_mm=head.haematoma_mm if scalp_haematoma else 0.0,
    )


def draw_inclusions(rng: np.random.Generator, head: Head) -> np.ndarray:
    """Draw the small things of a head: eyes, vessels, calcified pineal and choroid plexus.

    Result: float64 (n, 7): centre x, y, z, radii x, y, z (head coordinates, mm), HU. Later rows lie over earlier ones.
    """
    items: list[tuple[float, ...]] = []
    for side in (-1.0, 1.0):
        x = side * rng.uniform(30.0, 32.0)
        y = rng.uniform(-73.0, -70.0)
        items += [
            (x, y, -10.0, 12.2, 12.2, 12.2, 38.0),  # sclera
            (x, y, -10.0, 11.0, 11.0, 11.0, 14.0),  # vitreous body
            (x, y - 8.5, -10.0, 4.6, 2.2, 4.6, 75.0),  # lens
            (side * 25.0, -52.0, -9.0, 2.2, 17.0, 2.2, 36.0),  # optic nerve
            (side * 17.5, -60.0, -10.0, 2.2, 17.0, 4.0, 52.0),  # medial rectus
            (side * 36.0, -56.0, -10.0, 2.2, 17.0, 4.5, 52.0),  # lateral rectus
            (side * 28.0, -58.0, 0.5, 4.5, 16.0, 2.0, 50.0),  # superior rectus
            (side * 28.0, -58.0, -20.0, 4.5, 16.0, 2.0, 50.0),  # inferior rectus
            (side * 12.0, -10.0, 0.0, 2.3, 2.3, 6.0, 46.0),  # internal carotid
            (side * 20.0, -9.0, 5.0, 10.0, 1.4, 1.4, 46.0),  # middle cerebral artery
        ]
        if rng.random() < 0.75:
            for _ in range(rng.integers(1, 4)):  # glomus of the choroid plexus, in the atrium
                centre = np.array([side * 24.0, 31.0, 33.0]) + rng.normal(0.0, 2.2, 3)
                items.append((*centre, *rng.uniform(1.0, 3.2, 3), rng.uniform(90.0, 320.0)))
    items.append((0.0, 1.0, -8.0, 1.8, 1.8, 9.0, 47.0))  # basilar artery
    if rng.random() < 0.7:
        radius = rng.uniform(1.2, 3.2)
        items.append((rng.normal(0.0, 0.8), 21.0, 19.0, radius, radius, radius, rng.uniform(90.0, 350.0)))  # pineal
    table = np.array(items)
    scale = np.array([head.scale_x, head.scale_y, head.scale_z])
    table[:, :3] *= scale
    return table
