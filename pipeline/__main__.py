"""The one command line: `python -m pipeline STAGE --dataset D --recipe R [--fold K] [--set key=value ...]`."""

import argparse
import gc
import importlib
import logging
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from pipeline import plan
from pipeline.config import Run, UserError, fold_count
from pipeline.job import Job, PhantomSettings
from pipeline.paths import Paths
from pipeline.runs import (
    base_recipe,
    figure_recipes,
    figure_tables,
    make_run,
    published_readers,
    published_tables,
    recipe_folds,
    system_recipes,
    variant_names,
)
from pipeline.shell import lock
from pipeline.shell.atomic import remove_leftovers

STAGES = {
    "phantom": "make the phantom data set",
    "index": "read headers and labels, order scans",
    "split": "divide patients into folds",
    "window": "cache the view's images",
    "train": "fine-tune the slice classifier of a fold",
    "embed": "compute embeddings and probabilities of every slice",
    "reduce": "reduce the embeddings",
    "sequence": "train the model over whole scans",
    "endtoend": "train slice network and sequence model together on scans, for recipes that do",
    "predict": "predict out-of-fold and test slices",
    "score": "score a fold, or without --fold all folds together and the test part",
    "submit": "write the submission",
    "ablation": "print the paper's tables of the recipe's variants with our figures beside them",
    "systems": "print all published systems, at a size that two cores manage, in one table",
    "tables": "print the paper's tables of figures with ours beside them",
    "readers": "compare human readers (--readers) and the run's models on the same scans",
    "leaderboard": "rebuild submissions/leaderboard.csv and print it, best first",
    "status": "say of each artefact whether it is fresh, stale or missing",
    "verify": "compute all digests again and name what was changed behind the pipeline's back",
}
MAKE_ONLY = {
    "plan": "print the Make variables that name the run's files",
    "settings": "write the settings file --file of a stage",
}
READERS = ("rsna",)
"""Names that choose their own reader; other data sets are read as RSNA's layout unless --reader says otherwise."""

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
SPIN_COUNT = ("GOMP_SPINCOUNT", "1000")
"""How long a waiting thread spins before it sleeps. At libgomp's default, folds that run side by side keep each other
from working: two trainings at once on two cores took seven times as long."""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    stages = "\n".join(f"  {name:12} {what}" for name, what in {**STAGES, **MAKE_ONLY}.items())
    result = argparse.ArgumentParser(
        prog="python -m pipeline",
        description="Intracranial hemorrhage on head CT, from DICOM slices to a scored submission.",
        epilog=f"stages:\n{stages}\n\nUsually `make` calls these; see `make help`.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    result.add_argument("stage", choices=[*STAGES, *MAKE_ONLY], metavar="STAGE", help="what to do; listed below")
    result.add_argument("--dataset", default="phantom", metavar="D", help="folder below data/ (default: phantom)")
    result.add_argument("--recipe", metavar="R", help="default: quickstart for the phantom, burduja2020 otherwise")
    result.add_argument("--reader", metavar="NAME", help="how raw/ is read (default: the reader named D, else rsna)")
    result.add_argument("--readers", metavar="PATH", help="for `readers`: a CSV of what human readers said of scans")
    result.add_argument("--fold", type=int, metavar="K", help="the fold that is validated on")
    result.add_argument("--folds", metavar='"K ..."', help="folds that are averaged (default: the recipe's)")
    result.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="settings, as in train.epochs=1")
    result.add_argument("--name", metavar="NAME", help="the run's name (default: made from recipe and settings)")
    result.add_argument("--seed", type=int, default=0, metavar="N", help="seed of training (default: 0)")
    result.add_argument("--n-jobs", type=int, metavar="N", help="processes (default: all cores)")
    result.add_argument("--threads", type=int, default=2, metavar="N", help="threads a process (default: 2)")
    result.add_argument("--max-rejected", type=float, default=0.05, metavar="SHARE", help="of files (default: 0.05)")
    scans, seed = PhantomSettings.scans, PhantomSettings.seed
    result.add_argument(
        "--phantom-scans", type=int, default=scans, metavar="N", help=f"test scans included (default: {scans})"
    )
    result.add_argument(
        "--phantom-seed", type=int, default=seed, metavar="N", help=f"seed of the phantom (default: {seed})"
    )
    result.add_argument("--force", action="store_true", help="leave nothing of an earlier try")
    result.add_argument("--make-pid", type=int, metavar="N", help="for `plan`: the make that will work on the data set")
    result.add_argument("--file", metavar="PATH", help="for `settings`: one of the run's settings files")
    return result


def recipe_of(arguments: argparse.Namespace) -> str:
    """Return the recipe asked for, or the data set's usual one."""
    return arguments.recipe or ("quickstart" if arguments.dataset == "phantom" else "burduja2020")


def make_job(arguments: argparse.Namespace) -> Job:
    """Return what a stage is told; raises UserError for unknown recipes, settings, folds and impossible numbers."""
    recipe_name = recipe_of(arguments)
    run = make_run(recipe_name, _changes(arguments.set), arguments.name, arguments.seed)
    folds = _folds(arguments.folds, run, recipe_name)
    if arguments.fold is not None and not 0 <= arguments.fold < fold_count(run.settings):
        raise UserError(f"FOLD={arguments.fold}: {_known_folds(run)}")
    for name, value in (("N_JOBS", arguments.n_jobs), ("THREADS", arguments.threads)):
        if value is not None and value < 1:
            raise UserError(f"{name}={value}: give at least 1")
    if not 0 <= arguments.max_rejected <= 1:
        raise UserError(f"MAX_REJECTED={arguments.max_rejected}: give a share between 0 and 1")
    if not arguments.dataset or arguments.dataset in (".", "..") or set(arguments.dataset) & set("/\\ \t\n"):
        raise UserError(f"DATASET={arguments.dataset!r}: give the name of a folder below data/")
    reader = arguments.reader or (arguments.dataset if arguments.dataset in READERS else "rsna")
    return Job(
        run=run,
        paths=Paths(arguments.dataset, run, reader),
        fold=arguments.fold,
        folds=folds,
        phantom=PhantomSettings(arguments.phantom_scans, arguments.phantom_seed),
        n_jobs=arguments.n_jobs or len(os.sched_getaffinity(0)),
        threads=arguments.threads,
        max_rejected=arguments.max_rejected,
        force=arguments.force,
        **(_tables(arguments, recipe_name) if arguments.stage == "ablation" else {}),
        **(_systems(arguments) if arguments.stage == "systems" else {}),
        **(_figures(arguments, recipe_name) if arguments.stage == "tables" else {}),
        **(_reader_study(arguments, recipe_name) if arguments.stage == "readers" else {}),
    )


def _tables(arguments: argparse.Namespace, recipe_name: str) -> dict[str, Any]:
    """Return the tables of the paper of a recipe, or of a variant's recipe, and the run of each of their rows."""
    if arguments.name:
        raise UserError(f"NAME={arguments.name}: names one run, a table has many; leave it out")
    recipe_name = base_recipe(recipe_name)
    names = dict(zip(("", *variant_names(recipe_name)), table_recipes(recipe_name), strict=True))
    runs = {key: make_run(name, _changes(arguments.set), None, arguments.seed) for key, name in names.items()}
    return {"tables": published_tables(recipe_name), "table_runs": runs}


def _systems(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the run of each system that two cores can train."""
    if arguments.name:
        raise UserError(f"NAME={arguments.name}: names one run, `systems` has many; leave it out")
    names = system_recipes()
    return {"system_runs": tuple(make_run(name, _changes(arguments.set), None, arguments.seed) for name in names)}


def _figures(arguments: argparse.Namespace, recipe_name: str) -> dict[str, Any]:
    """Return the tables of figures of a recipe's paper, and the run of each variant that they name."""
    if arguments.name:
        raise UserError(f"NAME={arguments.name}: names one run, a table has many; leave it out")
    names = figure_recipes(recipe_name)
    runs = {key: make_run(name, _changes(arguments.set), None, arguments.seed) for key, name in names.items()}
    return {"figure_tables": figure_tables(recipe_name), "figure_runs": runs}


def _reader_study(arguments: argparse.Namespace, recipe_name: str) -> dict[str, Any]:
    """Return the CSV of human readers, and the reader study of the recipe's paper."""
    readers = Path(arguments.readers) if arguments.readers else None
    return {"readers": readers, "reader_table": published_readers(recipe_name)}


def table_recipes(recipe_name: str) -> list[str]:
    """Return a recipe's name, and `<recipe>-<variant>` for each of its variants."""
    return [recipe_name, *(f"{recipe_name}-{variant}" for variant in variant_names(recipe_name))]


def _changes(words: list[str]) -> dict[str, str]:
    changes = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not value:
            raise UserError(f"SET={word!r}: write section.field=value, as in train.epochs=1")
        changes[key] = value
    return changes


def _folds(text: str | None, run: Run, recipe_name: str) -> tuple[int, ...]:
    if not text or not text.strip():
        return recipe_folds(recipe_name)[: fold_count(run.settings)]
    known = range(fold_count(run.settings))
    words = text.replace(",", " ").split()
    if any(not word.isdigit() or int(word) not in known for word in words) or len(set(words)) != len(words):
        raise UserError(f"FOLDS={text!r}: give different numbers; {_known_folds(run)}")
    return tuple(sorted(int(word) for word in words))


def _known_folds(run: Run) -> str:
    if run.settings.split.kind == "holdout":
        return "the one model of split.kind=holdout is fold 0"
    return f"folds are 0 to {fold_count(run.settings) - 1}"


def main() -> int:
    """Run one stage; return 0, or 2 after a mistake of the user's. A fault of ours leaves a traceback and status 1."""
    arguments = parser().parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s", datefmt="%H:%M:%S")
    log = logging.getLogger("pipeline")
    try:
        job = make_job(arguments)
        if arguments.stage == "plan":
            if arguments.make_pid is not None:
                _hold(job.paths, arguments.make_pid)
            recipes = table_recipes(base_recipe(recipe_of(arguments)))
            variables = plan.make_variables(job.paths, job.folds, job.phantom, recipes, system_recipes())
            sys.stdout.write(" ".join(f"{name}={value}" for name, value in variables.items()) + "\n")
        elif arguments.stage == "settings":
            _write_settings(job, arguments.file)
        else:
            fold = "" if job.fold is None else f", fold {job.fold}"
            log.info("%s: data set %s, run %s%s", arguments.stage, job.paths.dataset, job.run.name, fold)
            if arguments.stage in plan.SETTINGS_STAGES:
                lock.share(job.paths.data)
                for folder in job.paths.folders():
                    remove_leftovers(folder)
            for variable in THREAD_VARIABLES:
                os.environ[variable] = str(job.threads)
            os.environ.setdefault(*SPIN_COUNT)
            _import_stage(arguments.stage).main(job)
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


def _import_stage(stage: str) -> ModuleType:
    """Return a stage's module, its imports exempt from garbage collection.

    They are a million objects, none of which is garbage: looking for some took a second here and another at the end.
    """
    gc.disable()
    module = importlib.import_module(f"pipeline.{stage}")
    gc.freeze()
    gc.enable()
    return module


def _hold(paths: Paths, make_pid: int) -> None:
    """Let no other make work on the data set; one whose folder is not there has nothing to be kept from."""
    if paths.dataset == "phantom":
        paths.data.mkdir(parents=True, exist_ok=True)
    if paths.data.is_dir():
        lock.hold(paths.data, make_pid)


def _write_settings(job: Job, file: str | None) -> None:
    files = dict(plan.settings_files(job.paths, job.folds, job.phantom).values())
    if file is None or Path(file) not in files:
        raise UserError(f"--file {file}: not a settings file of this run; they are {', '.join(map(str, files))}")
    plan.write_settings_file(Path(file), files[Path(file)])


if __name__ == "__main__":
    sys.exit(main())
