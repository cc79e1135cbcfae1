"""Fixtures that several test files share."""

import os
from pathlib import Path

import pytest

# The tests run side by side: more threads than this only wait for one another, and results depend on the number.
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[variable] = "1"
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of tests/test_kills.py."""
    parser.addoption("--kills", type=int, default=3, help="how often each stage is killed")
    parser.addoption("--kills-seed", type=int, default=0, help="seeds the moments of the kills")


def pytest_configure(config: pytest.Config) -> None:
    """Make an error of a warning; in pyproject.toml it would import numpy before the number of its threads is set."""
    config.addinivalue_line("filterwarnings", "error::numpy.exceptions.VisibleDeprecationWarning")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what only `make torture` has the time for."""
    if not config.getoption("-m"):
        for item in items:
            if "torture" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="make torture runs it"))


ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def project_root() -> Path:
    """The folder that holds Makefile and pipeline/."""
    return ROOT
