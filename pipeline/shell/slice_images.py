"""From files of slices to their cached images, one file at a time.

A file of its own for the processes that do it: they need nothing of tables, whose imports would take them two seconds.
"""

import os
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from isal import isal_zlib

from pipeline.config import View
from pipeline.core.hounsfield import to_hu
from pipeline.core.windows import window_image
from pipeline.shell.dicom.bounded_file import open_regular
from pipeline.shell.dicom.file import BROKEN_DICOM, one_line
from pipeline.shell.dicom.pixels import PixelFile, stored_at
from pipeline.shell.png import write_png

WHOLE_BYTES = 1 << 26
"""Files up to this size are read at once; of larger ones, which hold many frames, a frame at a time."""
CHUNK_BYTES = 1 << 20


class Source(NamedTuple):
    """A slice: which frame of its file it is, how to read that, and the image to make of it."""

    frame: int
    rows: int
    columns: int
    bits: int
    signed: bool
    slope: float
    intercept: float
    padding: tuple[int, int] | None
    """The least and the greatest stored value that is padding."""
    png: str
    made_of: str = ""
    """CRC-32 of the file that the present image was made of, 8 hex digits; empty where that is not known."""
    png_crc: str = ""
    """CRC-32 of the present image; empty where that is not known."""
    pixel_offset: int | None = None
    """Where the slice begins in its file, in bytes; None where its header must be read to know."""


class SourceFile(NamedTuple):
    """A file, and its slices in order of their frames."""

    path: str
    bytes: int
    slices: list[Source]


class Made(NamedTuple):
    """What became of a slice: the CRC-32 of its file and of its image, or a reason and detail why there is none."""

    crc: str = ""
    png_crc: str = ""
    is_new: bool = False
    reason: str = ""
    detail: str = ""


def compile_kernels(view: View) -> None:
    """Compile the kernels, once: the processes then find the code in numba's cache."""
    window_image(np.zeros((1, 1), dtype=np.int16), view.windows, view.size)
    for stored_type in (np.int16, np.uint16):
        # As a file's bytes are, it may not be written to: that makes a type of its own.
        stored = np.frombuffer(bytes(8 * view.size**2), stored_type).reshape(2 * view.size, 2 * view.size)
        hu = to_hu(stored, slope=1.0, intercept=-1024.0, bits=16, signed=stored_type is np.int16)
        window_image(hu, view.windows, view.size)


def make_images(file: SourceFile, view: View, force: bool) -> list[Made]:
    """Write the images of a file's slices, but those that are done: they exist and their source did not change since.

    The file is opened once, and one frame is decoded at a time.
    """
    try:
        is_done = [not force and _is_done(source, file) for source in file.slices]
        if all(is_done) and all(source.made_of for source in file.slices):
            return [Made(source.made_of, source.png_crc) for source in file.slices]
        content, size, crc = _open(file.path)
    except OSError as error:
        return _rejects(file, "unreadable", f"{type(error).__name__}: {error.strerror or error}")
    with content:
        if all(is_done):
            return [Made(crc, _crc_of(source.png)) for source in file.slices]
        if size != file.bytes:
            return _rejects(file, "unreadable", f"has {size} bytes, had {file.bytes} when indexed")
        try:
            frame = _frames(file, content, size)
        except BROKEN_DICOM as error:
            return _rejects(file, "undecodable pixel data", one_line(error))
        return [
            Made(crc, _crc_of(source.png)) if done else _make_image(source, frame, crc, view)
            for source, done in zip(file.slices, is_done, strict=True)
        ]


def _frames(file: SourceFile, content: BinaryIO, size: int) -> Callable[[int], np.ndarray]:
    """Return what gives the stored values of a frame; raises one of BROKEN_DICOM."""
    first = file.slices[0]
    if first.pixel_offset is not None and isinstance(content, BytesIO):
        stored = stored_at(content.getvalue(), first.pixel_offset, first.rows, first.columns, first.signed)
        if stored is not None:
            return lambda _: stored  # the only frame
    return PixelFile(content, size).frame


def _make_image(source: Source, frame: Callable[[int], np.ndarray], crc: str, view: View) -> Made:
    try:
        stored = frame(source.frame)
        if stored.shape != (source.rows, source.columns):
            raise ValueError(f"{stored.shape} pixels, expected {source.rows} x {source.columns}")
    except BROKEN_DICOM as error:
        return Made(reason="undecodable pixel data", detail=one_line(error))
    hu = to_hu(stored, source.slope, source.intercept, source.bits, source.signed, source.padding)
    return Made(crc, write_png(source.png, window_image(hu, view.windows, view.size)), is_new=True)


def _crc_of(png: str) -> str:
    return f"{isal_zlib.crc32(Path(png).read_bytes()):08x}"


def _rejects(file: SourceFile, reason: str, detail: str) -> list[Made]:
    return [Made(reason=reason, detail=detail)] * len(file.slices)


def _open(path: str) -> tuple[BinaryIO, int, str]:
    """Return a file as its pixels are to be read, its size in bytes, and the CRC-32 of what it holds.

    Raises OSError.
    """
    file, size = open_regular(path)
    if size <= WHOLE_BYTES:
        with file:
            data = file.read()
        return BytesIO(data), len(data), f"{isal_zlib.crc32(data):08x}"
    crc = 0
    while chunk := file.read(CHUNK_BYTES):
        crc = isal_zlib.crc32(chunk, crc)
    file.seek(0)
    return file, size, f"{crc:08x}"


def _is_done(source: Source, file: SourceFile) -> bool:
    """Return whether the image is there, and its source has the size it had and did not change since."""
    status = os.stat(file.path)
    try:
        made_ns = os.stat(source.png).st_mtime_ns
    except FileNotFoundError:
        return False
    return status.st_mtime_ns <= made_ns and status.st_size == file.bytes
