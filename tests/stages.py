"""Running stages in this process, in the present folder: a test pays for imports once."""

import importlib

from pipeline.__main__ import make_job, parser
from pipeline.job import Job

ALL = ("phantom", "index", "split", "window", "train", "embed", "reduce", "sequence", "predict", "score", "submit")
PER_FOLD = ("train", "embed", "reduce", "sequence", "endtoend", "predict")
TINY = ("--recipe", "tiny", "--phantom-scans", "10", "--threads", "1", "--n-jobs", "1", "--folds", "0")


def job_of(stage: str, *arguments: str) -> Job:
    """Return the job that the command line would make of these arguments."""
    return make_job(parser().parse_args([stage, *arguments]))


def run_stage(stage: str, *arguments: str) -> Job:
    """Run one stage and return its job."""
    job = job_of(stage, *arguments)
    importlib.import_module(f"pipeline.{stage}").main(job)
    return job


def run_stages(stages: tuple[str, ...], *arguments: str) -> Job:
    """Run stages one after the other, each over the folds at hand, and return the last job."""
    for stage in stages:
        for fold in job_of(stage, *arguments).folds if stage in PER_FOLD else (None,):
            job = run_stage(stage, *arguments, *(() if fold is None else ("--fold", str(fold))))
    return job
