"""Running Lightning: precision, logs, and resuming from the last finished epoch."""

import logging
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint, TQDMProgressBar
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from pytorch_lightning.plugins.io import TorchCheckpointIO
from torch.utils.data import DataLoader

from pipeline.config import UserError, digest
from pipeline.learn.devices import device, precision
from pipeline.learn.modules import VALIDATION_LOSS, VALIDATION_SCORE, NetworkModule
from pipeline.shell.atomic import atomic_path, remove_leftovers
from pipeline.shell.provenance import read_json, write_json

LOG_STEPS = 10
"""Steps between two entries in the logs, and two drawings of the progress bar: both wait for the device."""

log = logging.getLogger(__name__)


class WholeCheckpoints(TorchCheckpointIO):
    """Writes checkpoints beside their place and renames them: Lightning's own way goes through /tmp and may copy."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str, storage_options: Any = None) -> None:
        """Write a checkpoint, whole or not at all."""
        with atomic_path(Path(path)) as partial:
            torch.save(checkpoint, partial)


class FiniteWeights(pl.Callback):
    """Stops a training that has diverged, before its weights are kept: networks may well be wrong in silence."""

    def on_validation_start(self, trainer: pl.Trainer, pl_module: NetworkModule) -> None:
        """Raise UserError where a weight, or what normalisation keeps, is no number."""
        for name, values in pl_module.network.state_dict().items():
            if not torch.isfinite(values).all():
                rates = pl_module.learning_rates
                rate = rates[min(trainer.current_epoch, len(rates) - 1)]
                raise UserError(
                    f"the training diverged in epoch {trainer.current_epoch + 1}: {name} is no longer finite at a "
                    f"learning rate of {rate:g}; lower it"
                )


def fit(
    module: NetworkModule,
    train: DataLoader,
    validation: DataLoader,
    epochs: int,
    folder: Path,
    job: dict[str, Any],
    force: bool,
) -> dict[str, Any]:
    """Train to the last epoch and return what the record should say of it.

    `folder` keeps the checkpoint of the last finished epoch and the logs. Training goes on from there if `job` (all
    that decides the weights) is the same as when it was left; otherwise, or with `force`, it begins anew. Raises
    UserError where the training diverges.
    """
    checkpoint = _resumable(folder, job, force)
    _quieten()
    where = device()
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu" if where.type == "cpu" else "gpu",
        devices=1 if where.type == "cpu" else [where.index],
        precision=precision(),
        default_root_dir=folder,
        plugins=[WholeCheckpoints()],
        logger=[
            CSVLogger(folder, name="csv"),
            TensorBoardLogger(folder, name="tensorboard", version=""),
        ],
        callbacks=[
            ModelCheckpoint(
                dirpath=folder,
                filename="last",
                save_top_k=1,
                save_on_train_epoch_end=True,
                enable_version_counter=False,
            ),
            FiniteWeights(),
            *([TQDMProgressBar(refresh_rate=LOG_STEPS)] if sys.stderr.isatty() else []),
        ],
        enable_progress_bar=sys.stderr.isatty(),
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=LOG_STEPS,
    )
    if checkpoint is not None:
        # Lightning tells the sampler of the epoch only after the loader's processes have begun to follow it.
        finished = torch.load(checkpoint, map_location="cpu", mmap=True, weights_only=True)["epoch"]
        train.sampler.set_epoch(finished + 1)
    trainer.fit(module, train, validation, ckpt_path=checkpoint)
    # Absent where a finished training was asked for again: there was no epoch left to validate.
    scores = {name: trainer.callback_metrics.get(name) for name in (VALIDATION_SCORE, VALIDATION_LOSS)}
    outcome = {
        "epochs": trainer.current_epoch,
        "epochs_run": module.epochs_run,
        "precision": precision(),
        "resumed": checkpoint is not None,
    }
    for name, score in scores.items():
        if score is not None:
            log.info("epoch %d: %s %.4f", trainer.current_epoch, name.replace("_", " "), score)
            outcome[name] = float(score)
    return outcome


def _resumable(folder: Path, job: dict[str, Any], force: bool) -> str | None:
    """Return the checkpoint to go on from, or None with the folder emptied for a new job."""
    note, checkpoint = folder / "job.json", folder / "last.ckpt"
    remove_leftovers(folder)
    # By the digest: JSON gives back lists where settings hold tuples.
    wanted = {"digest": digest(job), **job}
    if not force and note.exists() and read_json(note)["digest"] == wanted["digest"]:
        if checkpoint.exists():
            log.info("going on from the last finished epoch in %s", checkpoint)
            return str(checkpoint)
        return None
    shutil.rmtree(folder, ignore_errors=True)
    write_json(note, wanted)
    return None


def _quieten() -> None:
    """Silence what Lightning says of itself; what it says of the training goes to the logs."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="pytorch_lightning")
