"""The decoder in its own process: what it survives, how it ends, and that nothing of it is left."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.encaps import get_frame
from pydicom.uid import JPEG2000Lossless, JPEGExtended12Bit, JPEGLSLossless, RLELossless

from pipeline.config import UserError
from pipeline.shell.dicom import decoder_process
from pipeline.shell.dicom.codestream import declared_size
from pipeline.shell.dicom.decoder_process import decode_codestream, end_decoder
from tests.test_compressed import STORED, by_pydicom

ENDLESS = b"\x00\x00\x00\x0cjP  \r\n\x87\n" + bytes(64)
"""A JP2 box that says it has no length: who looks for the next one never gets there."""


def pixel_format(stored: np.ndarray, syntax: str) -> dict:
    return {
        "transfer_syntax": syntax,
        "rows": stored.shape[0],
        "columns": stored.shape[1],
        "bits_allocated": 8 * stored.itemsize,
        "bits_stored": 8 * stored.itemsize,
        "pixel_representation": int(stored.dtype.kind == "i"),
        "photometric_interpretation": "MONOCHROME2",
    }


GOOD = by_pydicom(STORED, RLELossless)
GOOD_FORMAT = pixel_format(STORED, RLELossless)


def child_pid() -> int:
    (child,) = decoder_process._idle
    return child._process.pid


def is_running(pid: int) -> bool:
    """Return whether a process runs; one that has ended and was not yet waited for does not."""
    status = Path(f"/proc/{pid}/stat")
    try:
        return status.read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def check_good() -> None:
    assert np.array_equal(decode_codestream(GOOD, GOOD_FORMAT, 4.0), STORED)


def test_one_child_decodes_frame_after_frame():
    check_good()
    pid = child_pid()
    with pytest.raises(RuntimeError, match="doesn't match the expected amount"):
        decode_codestream(b"\x02" + bytes(70), GOOD_FORMAT, 4.0)
    check_good()
    assert child_pid() == pid
    end_decoder()
    assert not Path(f"/proc/{pid}").exists()


def test_what_takes_too_long_is_ended_and_the_next_frame_is_not_harmed():
    check_good()
    pid = child_pid()
    began = time.monotonic()
    with pytest.raises(TimeoutError, match=r"decoding took more than 0.4 s"):
        decode_codestream(ENDLESS, pixel_format(STORED, JPEG2000Lossless), 0.4)
    assert time.monotonic() - began < 1.5
    assert not Path(f"/proc/{pid}").exists()
    check_good()


def test_a_codestream_that_ends_the_decoder():
    """Without its own process this file would end the stage: gdcm calls abort()."""
    dataset = pydicom.dcmread(get_testdata_file("JPGExtended.dcm", read=False))
    damaged = bytearray(get_frame(dataset.PixelData, 0, number_of_frames=1))
    damaged[84] = 62
    stored = np.empty((dataset.Rows, dataset.Columns), np.uint16)
    with pytest.raises(ChildProcessError, match="the decoder died: SIGABRT"):
        decode_codestream(bytes(damaged), pixel_format(stored, JPEGExtended12Bit), 4.0)
    check_good()


def test_a_child_that_is_killed_while_it_works_or_waits():
    check_good()
    timer = threading.Timer(0.3, os.kill, (child_pid(), signal.SIGKILL))
    timer.start()
    with pytest.raises(ChildProcessError, match="the decoder died: SIGKILL"):
        decode_codestream(ENDLESS, pixel_format(STORED, JPEG2000Lossless), 4.0)
    timer.join()
    check_good()
    os.kill(child_pid(), signal.SIGKILL)
    time.sleep(0.1)
    check_good()  # no fault of the frame


def test_memory_is_limited():
    # 30,000 x 30,000 pixels declared, in one tile: 3.6 GB as OpenJPEG holds them.
    codestream = bytearray(by_pydicom(STORED, JPEG2000Lossless))
    side = (30_000).to_bytes(4, "big")
    size = codestream.index(b"\xff\x51")
    for position in (6, 10, 22, 26):
        codestream[size + position : size + position + 4] = side
    check_good()
    declared = pixel_format(STORED, JPEG2000Lossless) | {"rows": 30_000, "columns": 30_000}
    with pytest.raises((RuntimeError, ChildProcessError)):
        decode_codestream(bytes(codestream), declared, 4.0)
    check_good()
    limits = Path(f"/proc/{child_pid()}/limits").read_text()
    (line,) = [line for line in limits.splitlines() if line.startswith("Max address space")]
    assert int(line.split()[3]) < 1 << 30


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless])
def test_a_codestream_of_another_size_is_not_decoded(syntax):
    codestream = by_pydicom(STORED, syntax)
    assert declared_size(codestream) == STORED.shape
    with pytest.raises(RuntimeError, match="the codestream holds 48 x 40 pixels, expected 24 x 80"):
        decode_codestream(codestream, pixel_format(STORED.reshape(24, 80), syntax), 4.0)


def test_sizes_that_are_not_declared():
    assert declared_size(GOOD) is None
    assert declared_size(ENDLESS) is None
    assert declared_size(b"\xff\xd8" + b"\xff\xe0\0\0" * 9) is None
    assert declared_size(b"\xff\xd8\xff") is None


def test_a_forked_process_has_its_own_child():
    check_good()
    pid = child_pid()
    forked = os.fork()
    if forked == 0:
        end = 1
        try:
            check_good()
            end = 0 if child_pid() != pid else 2
            end_decoder()
        finally:
            os._exit(end)
    assert os.waitpid(forked, 0)[1] == 0
    check_good()
    assert child_pid() == pid


def test_a_decoder_that_does_not_start_is_said_in_words(monkeypatch):
    end_decoder()
    monkeypatch.setattr(decoder_process, "PROGRAM", "pipeline.shell.absent")
    with pytest.raises(UserError, match="does not start; .*pipeline.shell.absent < /dev/null` says why"):
        check_good()


PARENT = """
import os, sys, threading, time
from tests.test_decoder_process import *
check_good()
pid = child_pid()
print(pid, flush=True)
if sys.argv[1] == "idle":
    time.sleep(60)
decode_codestream(ENDLESS, pixel_format(STORED, JPEG2000Lossless), 0.5 if sys.argv[1] == "busy" else 60)
"""


@pytest.mark.parametrize("at_work", ["idle", "busy"])
def test_a_child_ends_after_its_parent_was_killed(at_work, project_root):
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, at_work], stdout=subprocess.PIPE, text=True, cwd=project_root
    ) as parent:
        pid = int(parent.stdout.readline())
        assert is_running(pid)
        time.sleep(0.2)
        parent.kill()
    deadline = time.monotonic() + 4
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_running(pid)
