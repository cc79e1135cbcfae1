"""Fixtures that several test files share."""

import os
from pathlib import Path

import pytest

# The tests run side by side: more threads than this only wait for one another, and results depend on the number.
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[variable] = "1"
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def project_root() -> Path:
    """The folder that holds Makefile and pipeline/."""
    return ROOT
