"""One scan from DICOM files to six probabilities a slice, models loaded: `python -m benchmarks.scan`.

The pipeline's own functions one after the other in memory, checked against its stages on the same scan. Two minutes.
"""

import contextlib
import importlib
import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from benchmarks.comparison import NO_GPU, Comparison, Target, median_seconds
from benchmarks.parts import THREADS, run_part
from benchmarks.phantom_pngs import phantom_images
from benchmarks.untrained import as_batch, settled_classifier
from pipeline.__main__ import make_job, parser
from pipeline.config import P_LABELS, View
from pipeline.core.acquisitions import order_series
from pipeline.core.hounsfield import to_hu
from pipeline.core.reduction import Reducer
from pipeline.core.windows import window_image
from pipeline.job import Job
from pipeline.learn.devices import choose_gpu, device
from pipeline.learn.inference import embed_batches, inference_network
from pipeline.nets.build import build_sequence
from pipeline.nets.scan_bilstm import ScanBiLSTM
from pipeline.nets.slice_classifier import SliceClassifier
from pipeline.reduce import fit_reducer
from pipeline.shell.dicom.headers import Header, read_headers
from pipeline.shell.dicom.pixels import PixelFile
from pipeline.shell.network_files import save_network
from pipeline.shell.tables import read_table

SLICES = 35
DATA_SET = ("--phantom-scans", "12", "--phantom-seed", "3")
"""A phantom with a test scan of so many slices."""

FOLD = 0
SETTLING_IMAGES = 48
CPU_SECONDS, GPU_SECONDS = 0.5, 0.12
TOLERANCE = 1e-3
DECIDEDNESS = 4.0
"""By which an untrained sequence model's weights are multiplied: else it says much the same of every slice, and a
mistake would stay below the tolerance."""
LEAST_SPREAD = 0.03
"""Standard deviation over slices."""
ROUNDS = 9

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class System:
    """One fold of a recipe, ready to run: what a service would keep in memory."""

    view: View
    classifier: SliceClassifier
    """As `inference_network` returns it."""
    reducer: Reducer
    sequence: ScanBiLSTM


def rows() -> list[Comparison]:
    """Measure quickstart's system, and burduja2020's where there is a GPU."""
    torch.set_num_threads(THREADS)
    choose_gpu(FOLD)
    name = f"one scan of {SLICES} slices, DICOM to probabilities, {{}}"
    found = []
    with tempfile.TemporaryDirectory(prefix="scan-") as folder, contextlib.chdir(folder):
        found.append(scan_row(name.format("quickstart"), "quickstart", Target("most", CPU_SECONDS)))
        target = Target("most", GPU_SECONDS)
        if torch.cuda.is_available():
            found.append(scan_row(name.format("burduja2020"), "burduja2020", target))
        else:
            found.append(Comparison(name.format("burduja2020"), "s", None, target, note=NO_GPU))
    return found


def scan_row(name: str, recipe: str, target: Target) -> Comparison:
    """Return the row of a recipe's system with untrained networks, after checking it; works in the present folder."""
    log.info("%s: the stages", recipe)
    system, staged = staged_scan(recipe)
    check_alike(predict_scan(system, staged["path"].tolist()), staged)
    paths = staged["path"].sample(frac=1, random_state=0).tolist()
    seconds = median_seconds(lambda: predict_scan(system, paths), ROUNDS)
    return Comparison(name, "s", seconds, target, note="one fold, models loaded, files in memory's cache")


def predict_scan(system: System, paths: Sequence[str]) -> pd.DataFrame:
    """Return slice_id and the six probabilities of the slices of a scan, one a file, from the most caudal one up."""
    headers = [read_headers(path)[0] for path in paths]
    slice_ids = [Path(path).stem for path in paths]
    positions, orientations = (np.array([getattr(h, key) for h in headers]) for key in ("position_mm", "orientation"))
    upwards = np.argsort(order_series(slice_ids, positions, orientations).position)
    images = as_batch([_image(paths[i], headers[i], system.view) for i in upwards])
    where = device()
    ((embeddings, probabilities),) = embed_batches(system.classifier, [(images, torch.empty(0))], where)
    reduced = system.reducer.apply(embeddings, probabilities)
    with torch.inference_mode():
        logits = system.sequence(
            [torch.from_numpy(reduced).to(where)], [torch.from_numpy(probabilities.astype(np.float32)).to(where)]
        )
    found = pd.DataFrame(logits.double().sigmoid().cpu().numpy(), columns=list(P_LABELS))
    return found.assign(slice_id=[slice_ids[i] for i in upwards])


def _image(path: str, header: Header, view: View) -> np.ndarray:
    """Return the image (y, x, windows) uint8 of a file's one slice."""
    data = Path(path).read_bytes()
    stored = PixelFile(BytesIO(data), len(data)).frame(1)
    padding = None if header.padding_low is None else (header.padding_low, header.padding_high)
    hu = to_hu(stored, header.slope, header.intercept, header.bits, header.signed, padding)
    return window_image(hu, view.windows, view.size)


def staged_scan(recipe: str) -> tuple[System, pd.DataFrame]:
    """Run the stages over a phantom with untrained networks; return the system, and what they say of one scan.

    The frame has path, slice_id and the six probabilities of the sequence model, from the most caudal slice up. Works
    in the present folder. Raises ValueError where the phantom has no scan of SLICES slices.
    """
    for stage in ("phantom", "index", "split", "window"):
        job = run_stage(stage, recipe)
    paths, settings = job.paths, job.run.settings
    images = as_batch(phantom_images(settings.view, SETTLING_IMAGES))
    classifier = settled_classifier(settings, images, device(), spread=1.0).cpu()
    save_network(_made(paths.cnn(FOLD)), classifier)
    for stage in ("embed", "reduce"):
        run_stage(stage, recipe)
    torch.manual_seed(1)
    reducer, _ = fit_reducer(settings.reduce, paths.embeddings(FOLD), paths.cnn(FOLD), FOLD)
    sequence = build_sequence(settings, reducer.width)
    with torch.no_grad():
        for weights in sequence.parameters():
            weights.mul_(DECIDEDNESS)
    save_network(_made(paths.sequence(FOLD)), sequence)
    run_stage("predict", recipe)
    predicted = read_table(paths.predictions(FOLD))
    slices = read_table(paths.slices, ["slice_id", "scan_id", "position", "split", "path"])
    of_scan = slices[slices["split"] == "test"].groupby("scan_id").filter(lambda scan: len(scan) == SLICES)
    if of_scan["scan_id"].nunique() != 1:
        raise ValueError(f"the phantom has {of_scan['scan_id'].nunique()} test scans of {SLICES} slices, expected one")
    predicted = predicted.loc[predicted["stage"] == "sequence", ["slice_id", *P_LABELS]]
    staged = of_scan.sort_values("position").merge(predicted, on="slice_id", validate="one_to_one")
    where = device()
    quick = inference_network(classifier, where)
    return System(settings.view, quick, reducer, sequence.to(where).eval()), staged.reset_index(drop=True)


def run_stage(stage: str, recipe: str) -> Job:
    """Run a stage in this process on the phantom of DATA_SET, and return its job."""
    words = [stage, "--recipe", recipe, "--fold", str(FOLD), "--threads", str(THREADS), *DATA_SET]
    job = make_job(parser().parse_args(words))
    importlib.import_module(f"pipeline.{stage}").main(job)
    return job


def check_alike(found: pd.DataFrame, staged: pd.DataFrame) -> None:
    """Check that both have the same slices in the same order, and the same probabilities; raises ValueError.

    So it does where the slices' probabilities differ too little for that to mean anything.
    """
    spread = staged[list(P_LABELS)].std().min()
    if not spread >= LEAST_SPREAD:
        raise ValueError(f"the stages' probabilities spread by {spread:.2g} only, at least {LEAST_SPREAD:g} are needed")
    if found["slice_id"].tolist() != staged["slice_id"].tolist():
        raise ValueError("in memory the slices come in another order than from the stages")
    worst = np.abs(found[list(P_LABELS)].to_numpy() - staged[list(P_LABELS)].to_numpy()).max()
    if not worst <= TOLERANCE:
        raise ValueError(f"probabilities in memory differ from the stages' by {worst:.2g}, at most {TOLERANCE:g}")


def _made(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


if __name__ == "__main__":
    run_part("scan", rows, __doc__.splitlines()[0])
