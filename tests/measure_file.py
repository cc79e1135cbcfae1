"""Reads files as the stages do, each in a forked process, and prints what that took; a program for test_bad_input."""

import json
import os
import resource
import sys
import time

import numpy as np

from pipeline.config import BASE
from pipeline.core.windows import window_image
from pipeline.shell.dicom.decoder_process import decode_codestream, end_decoder
from pipeline.shell.dicom.headers import read_headers
from pipeline.shell.slice_images import Source, SourceFile, make_images


def main(png: str, paths: list[str]) -> None:
    """Print a line of JSON for each file: seconds, megabytes of this process and its decoder together, what became."""
    window_image(np.zeros((1, 1), dtype=np.int16), BASE.view.windows, BASE.view.size)
    decoder_mb = idle_decoder_mb()
    for path in paths:
        if os.fork() == 0:
            sys.stdout.write(json.dumps(measure(png, path, decoder_mb)) + "\n")
            sys.stdout.flush()
            os._exit(0)
        os.wait()


def measure(png: str, path: str, decoder_mb: float) -> dict:
    """Return what reading one file took; `decoder_mb` are the decoder's own, before it decodes."""
    before, began = peak_mb("self"), time.monotonic()
    headers = read_headers(path)
    rejected = [header.reason for header in headers if header.reason]
    sources = [
        Source(h.frame, h.rows, h.columns, h.bits, h.signed, h.slope, h.intercept, None, png, "")
        for h in headers
        if not h.reason
    ]
    made = make_images(SourceFile(path, headers[0].bytes, sources), BASE.view, force=True) if sources else []
    seconds = time.monotonic() - began
    end_decoder()
    megabytes = peak_mb("self") - before + max(peak_mb("children") - decoder_mb, 0)
    reasons = rejected + [m.reason for m in made if m.reason]
    return {"seconds": seconds, "megabytes": megabytes, "reasons": sorted(set(reasons)), "images": len(made)}


def idle_decoder_mb() -> float:
    """Return the memory of a decoder that has done next to nothing, which the interpreter itself needs."""
    asked = {"transfer_syntax": "1.2.840.10008.1.2.5", "rows": 1, "columns": 1, "bits_allocated": 8, "bits_stored": 8}
    asked |= {"pixel_representation": 0, "photometric_interpretation": "MONOCHROME2"}
    rle = bytes([1, 0, 0, 0, 64]) + bytes(59) + b"\0\7"
    assert decode_codestream(rle, asked, 60.0).tolist() == [[7]]
    end_decoder()
    return peak_mb("children")


def peak_mb(whose: str) -> float:
    """Return the greatest resident memory so far."""
    if whose == "children":
        return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
