"""Who has what: patients, studies, lesions and the traps of real data, dealt out evenly over the scans.

Everything that a person would want to be told about the data set is decided here, without drawing a picture.
"""

from dataclasses import dataclass

import numpy as np

from pipeline.core.phantom.geometry import MAX_TILT_DEG
from pipeline.core.phantom.hemorrhage import (
    EPIDURAL,
    INTRAPARENCHYMAL,
    INTRAVENTRICULAR,
    SUBARACHNOID,
    SUBDURAL,
    LesionPlan,
)
from pipeline.core.phantom.storage import STORAGES

MIN_SCANS = 8
"""Fewer could not hold the traps, and one scan of each kind of pixel."""

TEST_SHARE = 1 / 6
POSITIVE_SHARE = 0.4
"""Share of scans with blood, as in RSNA 2019."""

LESIONS_PER_POSITIVE = 1.6
TILTED_SHARE = 2 / 3
IMPLICIT_EVERY = 5
"""One scan in five has implicit VR."""

SIDE_PX = 512
SMALL_SIDE_PX = 404
"""The smallest matrix among RSNA's odd series."""

LEAST_SLICES, MOST_SLICES = 20, 38

FREQUENCY = {EPIDURAL: 1.0, INTRAPARENCHYMAL: 1.5, INTRAVENTRICULAR: 1.25, SUBARACHNOID: 1.4, SUBDURAL: 1.4}
"""How often each kind is dealt, relative. Epidural blood is far more common here than in life (0.4 % of slices):
with a few dozen scans it could not be learned otherwise."""

VOLUMES_ML = {
    EPIDURAL: (22.0, 14.0, 36.0, 5.0, 28.0, 18.0),
    INTRAPARENCHYMAL: (18.0, 28.0, 10.0, 0.008, 22.0, 4.0, 42.0, 14.0),
    INTRAVENTRICULAR: (12.0, 18.0, 5.0, 22.0, 8.0, 15.0),
    SUBARACHNOID: (20.0, 14.0, 28.0, 6.0, 20.0, 3.0),
    SUBDURAL: (40.0, 28.0, 52.0, 12.0, 34.0, 4.0),
}
"""Volumes in the order in which they are dealt: from punctate (a microbleed of 0.008 mL) to well over 25 mL.
Most are large enough to be seen by a small network that is trained on four dozen scans."""

CLEAR_HU = (60.0, 84.0)
FAINT_HU = (43.0, 47.0)
"""Blood a little denser than grey matter: anaemia, or a week old."""

FAINT_EVERY = 9
"""One lesion in nine is almost isodense."""

COMMON_STORAGES = (
    "unsigned 12",
    "signed 16, -2000 outside",
    "unsigned 12",
    "signed 16, -1024 outside",
    "unsigned 12, decimals",
)
"""What scans have once every kind of storage has been dealt to one."""

WINDOWS = (
    (("40",), ("80",)),
    (("00040", "00040"), ("00080", "00080")),
    (("40",), ("150",)),
    (("00036", "00600"), ("00080", "03000")),
)
"""WindowCenter and WindowWidth as files give them: single, twice the same, two different ones."""


@dataclass(frozen=True)
class ScanPlan:
    """One scan: whose it is, what it shows, how it was taken and stored, and which trap it holds."""

    number: int
    split: str
    patient: int
    lesions: tuple[LesionPlan, ...]
    slices: int
    side_px: int
    tilt_deg: float
    uneven: bool
    scalp_haematoma: bool
    storage: str
    implicit_vr: bool
    windows: tuple[tuple[str, ...], tuple[str, ...]]
    second_run: bool
    missing_slice: bool
    truncated: bool
    repeated_rows: bool


def make_plan(scans: int, seed: int) -> tuple[ScanPlan, ...]:
    """Return the plan of a data set: train scans first, then test scans, which share no patient.

    Raises ValueError for fewer than MIN_SCANS scans.
    """
    if scans < MIN_SCANS:
        raise ValueError(f"{scans} scans: at least {MIN_SCANS}, to hold every kind of file")
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, 0])))
    tests = max(2, round(scans * TEST_SHARE))
    trains = scans - tests
    lesions = _deal_lesions(rng, trains, least=2) + _deal_lesions(rng, tests, least=1)
    train_patients = _deal_patients(rng, trains)
    patients = train_patients + [max(train_patients) + 1 + p for p in _deal_patients(rng, tests)]
    common = [COMMON_STORAGES[i % len(COMMON_STORAGES)] for i in range(scans - len(STORAGES))]
    storages = _shuffled(rng, [*STORAGES, *common])
    implicit = _shuffled(rng, [i % IMPLICIT_EVERY == 0 for i in range(scans)])
    windows = _shuffled(rng, [WINDOWS[i % len(WINDOWS)] for i in range(scans)])
    slices = _shuffled(rng, [round(n) for n in np.linspace(LEAST_SLICES, MOST_SLICES, scans)])
    tilts = [rng.uniform(5.0, MAX_TILT_DEG) if i < scans * TILTED_SHARE else 0.0 for i in range(scans)]
    tilts = _shuffled(rng, [round(tilt, 1) for tilt in tilts])
    uneven = _shuffled(rng, [i % 8 == 0 for i in range(scans)])
    haematomas = _shuffled(rng, [i % 6 == 0 for i in range(scans)])
    second_run, missing, small, truncated = (int(i) for i in rng.permutation(trains)[:4])
    repeated = {int(i) for i in rng.permutation(trains)[:4]}
    return tuple(
        ScanPlan(
            number=i,
            split="train" if i < trains else "test",
            patient=patients[i],
            lesions=lesions[i],
            slices=slices[i],
            side_px=SMALL_SIDE_PX if i == small else SIDE_PX,
            tilt_deg=tilts[i],
            uneven=uneven[i] and i not in (second_run, missing),
            scalp_haematoma=haematomas[i],
            storage=storages[i],
            implicit_vr=implicit[i],
            windows=windows[i],
            second_run=i == second_run,
            missing_slice=i == missing,
            truncated=i in (truncated, trains),
            repeated_rows=i in repeated,
        )
        for i in range(scans)
    )


def _shuffled(rng: np.random.Generator, items: list) -> list:
    return [items[i] for i in rng.permutation(len(items))]


def _deal_patients(rng: np.random.Generator, scans: int) -> list[int]:
    """Return a patient's number for each scan; about one patient in seven has two studies, one has three."""
    returning = scans // 8
    patients = [p for p in range(returning) for _ in range(3 if p == 0 and scans >= 12 else 2)]
    if not returning and scans > 2:
        patients = [0, 0]
    single = range(len(set(patients)), len(set(patients)) + scans - len(patients))
    return _shuffled(rng, [*patients, *single])


def _deal_lesions(rng: np.random.Generator, scans: int, least: int) -> list[tuple[LesionPlan, ...]]:
    """Return each scan's lesions. Every kind is dealt; scans with few lesions get the next one."""
    positives = min(max(least, round(scans * POSITIVE_SHARE)), scans)
    chosen = [int(i) for i in rng.permutation(scans)[:positives]]
    share = positives * LESIONS_PER_POSITIVE / sum(FREQUENCY.values())
    lesions: list[list[LesionPlan]] = [[] for _ in range(scans)]
    dealt = 0
    for kind, frequency in FREQUENCY.items():
        count = min(max(1, round(frequency * share)), positives)
        order = sorted(chosen, key=lambda scan: (len(lesions[scan]), rng.random()))
        for number, scan in enumerate(order[:count]):
            dealt += 1
            volumes = VOLUMES_ML[kind]
            volume = volumes[number % len(volumes)] * rng.uniform(0.85, 1.15)
            faint = dealt % FAINT_EVERY == FAINT_EVERY - 1
            lesions[scan].append(LesionPlan(kind, volume, rng.uniform(*(FAINT_HU if faint else CLEAR_HU))))
    return [tuple(found) for found in lesions]
