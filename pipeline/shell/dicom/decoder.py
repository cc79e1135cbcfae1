"""The decoder of compressed pixels as a process of its own: frames come in by standard input, and go back that way.

Decoders loop, take all memory and end the process on damaged codestreams. Here that hurts nobody: memory is limited,
an alarm ends what takes too long, and the process ends with the one that started it, at the end of its input.
Standard input is a socket; `decoder_messages` says what passes through it.
"""

import mmap
import resource
import signal
import socket
import warnings
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder
from pydicom.uid import JPEGBaseline8Bit, JPEGExtended12Bit

from pipeline.shell.dicom.codestream import declared_size
from pipeline.shell.dicom.decoder_messages import receive, send
from pipeline.shell.dicom.file import BROKEN_DICOM, DECODERS

MEMORY_BYTES = 384 << 20
"""What decoding may take beside the interpreter; a slice of 4096 x 4096 takes half of it."""

LONGEST_ERROR = 500
GDCM_FAILS = "'NoneType' object has no attribute 'encode'"
"""What pydicom makes of gdcm's silence."""

LEAKED_BYTES = 128 << 20
"""A process that has grown by this much is to be replaced: what leaks would be missing to the next frame."""

READ_AS = {JPEGExtended12Bit: JPEGBaseline8Bit}
"""pydicom hands no 12-bit samples of JPEG Extended to gdcm. But gdcm reads the process from the codestream, and decodes
the files that come with pydicom as libjpeg-turbo does, to the last bit."""

GRACE_SECONDS = 1.0
"""How long after the caller's limit the alarm ends a process whose caller did not: it was killed itself."""


def main() -> None:
    """Answer messages until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the caller ends us
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # decoders that abort leave no files
    began_with = _virtual_bytes()
    if began_with:
        _limit_memory(began_with + MEMORY_BYTES)
    with socket.socket(fileno=0) as channel:
        send(channel, {"ready": True})
        while (message := receive(channel)) is not None:
            asked, codestream = message
            signal.setitimer(signal.ITIMER_REAL, asked.pop("seconds") + GRACE_SECONDS)
            answer, array = _answer(asked, codestream)
            signal.setitimer(signal.ITIMER_REAL, 0)
            answer["last"] = _virtual_bytes() - began_with > LEAKED_BYTES
            send(channel, answer, array)
            del array, codestream, message


def decode(codestream: bytes, pixel_format: dict[str, Any]) -> np.ndarray:
    """Return the stored values (rows, columns) of one frame, bits above BitsStored as the decoder leaves them.

    Raises one of BROKEN_DICOM.
    """
    options = dict(pixel_format)
    syntax = options.pop("transfer_syntax")
    size, declared = (options["rows"], options["columns"]), declared_size(codestream)
    if declared not in (None, size):
        raise ValueError(f"the codestream holds {declared[0]} x {declared[1]} pixels, expected {size[0]} x {size[1]}")
    return get_decoder(READ_AS.get(syntax, syntax)).as_array(
        encapsulate([codestream], has_bot=False),
        index=0,
        raw=True,
        decoding_plugin=DECODERS[syntax],
        samples_per_pixel=1,
        number_of_frames=1,
        correct_unused_bits=False,  # padding may lie above the bits stored, and is to be found first
        **options,
    )[0]


def _answer(asked: dict[str, Any], codestream: bytes) -> tuple[dict[str, Any], bytes]:
    try:
        array = decode(codestream, asked)
        buffer = BytesIO()
        np.save(buffer, array, allow_pickle=False)
        return {}, buffer.getvalue()
    except BROKEN_DICOM as error:
        text = " ".join(str(error).split()).replace(GDCM_FAILS, "cannot decode the codestream")
        return {"error": text[:LONGEST_ERROR] or type(error).__name__}, b""


def _limit_memory(byte_count: int) -> None:
    """Limit this process's address space; only Linux keeps such a limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard == resource.RLIM_INFINITY or byte_count < hard:
        resource.setrlimit(resource.RLIMIT_AS, (byte_count, hard))


def _virtual_bytes() -> int:
    """Return the size of this process's address space, 0 where the system does not tell (all but Linux)."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[0]) * mmap.PAGESIZE if statm.exists() else 0


if __name__ == "__main__":
    main()
