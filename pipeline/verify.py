"""Stage `verify`: compute every digest again, and name what was changed behind the pipeline's back."""

import json
import logging
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from pipeline.config import UserError
from pipeline.job import Job
from pipeline.paths import Paths
from pipeline.plan import file_digest, records, settings_files
from pipeline.shell.parallel import parallel_map
from pipeline.shell.progress import progress
from pipeline.shell.provenance import read_json, score_digest
from pipeline.shell.tables import read_table

log = logging.getLogger(__name__)


class Image(NamedTuple):
    """A cached image and its source, with the CRC-32 that IMAGES knows of both, 8 hex digits; its masks likewise."""

    png: str
    png_crc: str
    source: str
    source_crc: str
    mask: str | None = None
    mask_crc: str | None = None
    mask_source: str | None = None
    mask_source_crc: str | None = None


def main(job: Job) -> None:
    """Print a line for each file that is not what its record says; raises UserError for any, and without files."""
    if not any(record.exists() for record in records(job.paths, job.folds)):
        raise UserError(f"{job.paths.data}: nothing of {job.run.name} to verify; make it with `make submission`")
    found = list(findings(job))
    for line in found:
        sys.stdout.write(line + "\n")
    if found:
        raise UserError(f"{len(found)} findings, above; FORCE=1 redoes a stage, which makes all behind it stale")
    log.info("all files of %s on %s are what their records say", job.run.name, job.paths.dataset)


def findings(job: Job) -> Iterator[str]:
    """Yield what is wrong with the run's files, one line each."""
    paths = job.paths
    for path, contents in settings_files(paths, job.folds, job.phantom).values():
        if path.exists() and not _holds(path, contents):
            yield f"{path} was changed: it is not what its name says; remove it"
    known = {record: read_json(record) for record in records(paths, job.folds) if record.exists()}
    scores = {path: read_json(path) for path in _score_files(paths, job.folds)}
    made = {record: facts["inputs"] for record, facts in known.items()}
    made |= {path: score["provenance"]["inputs"] for path, score in scores.items()}
    files = {Path(name) for facts in known.values() for name in facts["outputs"]}
    files |= {Path(name) for inputs in made.values() for name in inputs}
    with progress(sum(path.stat().st_size for path in files if path.exists()), "B", scaled=True) as bar:

        @cache
        def digest_of(path: Path) -> str:
            bar.update(path.stat().st_size)
            return file_digest(path)

        yield from _digest_findings(known, scores, made, digest_of)
    if paths.images.exists() and paths.slices.exists():
        slices = read_table(paths.slices, ["slice_id", "path", "mask"])
        yield from image_findings(read_table(paths.images), slices, job.n_jobs)


def _digest_findings(
    known: Mapping[Path, Mapping[str, Any]],
    scores: Mapping[Path, Mapping[str, Any]],
    made: Mapping[Path, Mapping[str, str]],
    digest_of: Callable[[Path], str],
) -> Iterator[str]:
    """Yield what is another file than a record or a score file says.

    known, scores: what these files hold; made: what each of them was made of, digests by name.
    """
    changed: set[str] = set()
    for record, facts in known.items():
        for output, recorded in facts["outputs"].items():
            if not Path(output).exists():
                yield f"{output} is missing: {facts['stage']} left it, says {record}"
            elif digest_of(Path(output)) != recorded:
                changed.add(output)
                yield f"{output} was changed: it is not what {facts['stage']} left at {facts['finished']}"
    for path, score in scores.items():
        if score.get("digest") != score_digest(score):
            changed.add(str(path))
            yield f"{path} was changed: its figures are not what score wrote"
    for made_file, inputs in made.items():
        yield from _input_findings(made_file, inputs, changed, digest_of)


def _holds(path: Path, contents: Mapping) -> bool:
    try:
        return read_json(path) == json.loads(json.dumps(contents))
    except ValueError:
        return False


def _score_files(paths: Paths, folds: tuple[int, ...]) -> list[Path]:
    return [path for path in map(paths.score, (*folds, "oof", "test")) if path.exists()]


def _input_findings(
    made: Path, inputs: Mapping[str, str], changed: set[str], digest_of: Callable[[Path], str]
) -> Iterator[str]:
    """Yield the inputs that are gone or others; those that were found changed themselves are not told twice."""
    for name, recorded in inputs.items():
        if not Path(name).exists():
            yield f"{name} is missing, of which {made} speaks"
        elif name not in changed and digest_of(Path(name)) != recorded:
            yield f"{name} is another one than the one of which {made} speaks"


def image_findings(images: pd.DataFrame, slices: pd.DataFrame, n_jobs: int) -> Iterator[str]:
    """Yield cached images and masks that are not what `window` left, and sources that they were not made of.

    images: IMAGES; slices: slice_id, path and mask of SLICES.
    """
    sources = slices.rename(columns={"path": "source", "mask": "mask_source"})
    rows = images.merge(sources, on="slice_id", how="left", validate="one_to_one")
    gone = rows[rows["source"].isna()]
    yield from (f"{row.path} shows slice {row.slice_id}, of which SLICES does not know" for row in gone.itertuples())
    rows = rows.dropna(subset="source").reindex(columns=rows.columns.union(["mask", "mask_source"]))
    lost = rows[rows["mask"].notna() & rows["mask_source"].isna()]
    yield from (f"{row.mask} is a mask of slice {row.slice_id}; SLICES knows of none" for row in lost.itertuples())
    # A source mask belongs to views with masks alone.
    rows["mask_source"] = rows["mask_source"].where(rows["mask"].notna())
    facts = rows.assign(png=rows["path"], source_crc=rows["digest"].str.rpartition("-")[2])
    facts = facts.reindex(columns=Image._fields).astype(object)
    items = [Image(*values) for values in facts.where(facts.notna(), None).itertuples(index=False, name=None)]
    for lines in parallel_map(check_image, items, n_jobs, "images"):
        yield from lines


def check_image(image: Image) -> list[str]:
    """Return what is wrong with one cached image and its source."""
    found = []
    for path, recorded, change in (
        (image.png, image.png_crc, "was changed: it is not what window left"),
        (image.source, image.source_crc, "is another file than the one that its image was made of"),
        (image.mask, image.mask_crc, "was changed: it is not what window left"),
        (image.mask_source, image.mask_source_crc, "is another file than the one that its cached mask was made of"),
    ):
        if path is None:
            continue
        try:
            crc = f"{zlib.crc32(Path(path).read_bytes()):08x}"
        except OSError as error:
            found.append(f"{path} cannot be read: {error.strerror}")
            continue
        if crc != recorded:
            found.append(f"{path} {change}")
    return found
