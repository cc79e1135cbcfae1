"""Decode compressed frames in a child process, so that no codestream can end, stall or fill the calling one."""

import atexit
import os
import signal
import socket
import subprocess
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config import UserError
from pipeline.shell.dicom.decoder_messages import receive, send

PROGRAM = "pipeline.shell.dicom.decoder"
ROOT = Path(__file__).resolve().parents[3]
"""The folder that holds the package, where `python -m` finds the program."""

START_SECONDS = 60.0
"""How long the child may take to import its decoders, on a busy machine."""

END_SECONDS = 1.0
"""How long the child may take to end when its input has ended."""


class DecoderProcess:
    """A child process that decodes frames. It ends when this process does, however that ends."""

    def __init__(self) -> None:
        """Start it; raises UserError where it does not start."""
        self._channel, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", PROGRAM],
                cwd=ROOT,
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
                stdin=theirs,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        self._channel.settimeout(START_SECONDS)
        try:
            ready = receive(self._channel)
        except OSError:
            ready = None
        if ready is None:
            self.kill()
            command = f"cd {ROOT} && {sys.executable} -m {PROGRAM} < /dev/null"
            raise UserError(f"the decoder of compressed DICOM does not start; `{command}` says why")

    @property
    def is_alive(self) -> bool:
        """Whether the child runs."""
        return self._process.poll() is None

    def ask(self, pixel_format: dict[str, Any], codestream: bytes, seconds: float) -> tuple[dict[str, Any], bytes]:
        """Return the child's answer; raises TimeoutError after `seconds`, ChildProcessError where it dies."""
        self._channel.settimeout(seconds)
        try:
            send(self._channel, {**pixel_format, "seconds": seconds}, codestream)
            answer = receive(self._channel)
        except TimeoutError as error:
            raise TimeoutError(f"decoding took more than {seconds:.3g} s") from error
        except OSError:  # it died before it had read all
            answer = None
        if answer is None:
            raise ChildProcessError(f"the decoder died: {self._end()}")
        return answer

    def close(self) -> None:
        """End the child by ending its input."""
        self._channel.close()
        self._end()

    def kill(self) -> None:
        """End the child at once."""
        self._channel.close()
        self._process.kill()
        self._process.wait()

    def _end(self) -> str:
        """Wait for the child's end, and return the signal or status that it ended with."""
        try:
            status = self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait()
        return signal.Signals(-status).name if status < 0 else f"exit status {status}"


_idle: list[DecoderProcess] = []
"""The child of this process, while it decodes nothing: none before the first compressed frame."""


def decode_codestream(codestream: bytes, pixel_format: dict[str, Any], seconds: float) -> np.ndarray:
    """Return the stored values (rows, columns) of one compressed frame.

    `pixel_format`: transfer_syntax, rows, columns, bits_allocated, bits_stored, pixel_representation and
    photometric_interpretation. Raises TimeoutError after `seconds`, ChildProcessError where the decoder dies, both of
    which are OSError, and RuntimeError with the decoder's own complaint.
    """
    child = _idle.pop() if _idle else DecoderProcess()
    if not child.is_alive:
        child.kill()
        child = DecoderProcess()
    is_fit = False
    try:
        facts, data = child.ask(pixel_format, codestream, seconds)
        is_fit = not facts["last"]
    finally:
        # An interrupt may leave half a message in the channel: such a child answers no other frame.
        if is_fit:
            _idle.append(child)
        else:
            child.kill()
    if "error" in facts:
        raise RuntimeError(facts["error"])
    return np.load(BytesIO(data), allow_pickle=False)


def end_decoder() -> None:
    """End the child, if there is one; the next compressed frame starts another."""
    while _idle:
        _idle.pop().close()


atexit.register(end_decoder)
os.register_at_fork(after_in_child=_idle.clear)  # a forked process starts its own
