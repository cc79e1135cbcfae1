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
from pipeline.core.resampling import resample_hu, resample_mask, stored_hu
from pipeline.core.windows import window_image
from pipeline.shell.dicom.bounded_file import open_regular
from pipeline.shell.dicom.file import BROKEN_DICOM, one_line
from pipeline.shell.dicom.pixels import PixelFile, stored_at
from pipeline.shell.png import crc_of, write_png
from pipeline.shell.source_masks import MaskError, decode_source, read_source

WHOLE_BYTES = 1 << 26
"""Files up to this size are read at once; of larger ones, which hold many frames, a frame at a time."""
CHUNK_BYTES = 1 << 20

MASK_SUFFIX = ".mask"
"""What a cached mask's name has behind the slice's."""


class MadeMask(NamedTuple):
    """What a cached mask was made of, and what became of it."""

    source_bytes: int
    source_crc: str
    """CRC-32 of the source mask, 8 hex digits."""
    crc: str
    """CRC-32 of the cached mask."""


class SourceMask(NamedTuple):
    """A slice's mask as it comes with the data set."""

    path: str
    last: MadeMask | None = None
    """What is known of the present cached mask."""


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
    row_mm: float = 0.0
    """Distance of its rows; this and the next are used where a view resamples to a spacing."""
    column_mm: float = 0.0
    mask: SourceMask | None = None
    """Its mask, where the view takes masks along and the slice has one."""


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
    mask: MadeMask | None = None


def mask_path(png: str) -> str:
    """Return the path of the cached mask that belongs to an image."""
    return f"{png.removesuffix('.png')}{MASK_SUFFIX}.png"


def compile_kernels(view: View) -> None:
    """Compile the kernels, once: the processes then find the code in numba's cache."""
    view_image(np.zeros((1, 1), dtype=np.int16), view, 1.0, 1.0)
    for stored_type in (np.int16, np.uint16):
        # As a file's bytes are, it may not be written to: that makes a type of its own.
        stored = np.frombuffer(bytes(8 * view.size**2), stored_type).reshape(2 * view.size, 2 * view.size)
        hu = to_hu(stored, slope=1.0, intercept=-1024.0, bits=16, signed=stored_type is np.int16)
        view_image(hu, view, 1.0, 1.0)


def view_image(hu: np.ndarray, view: View, row_mm: float, column_mm: float) -> np.ndarray:
    """Return a slice's image (size, size, channels): uint8 windows, or of kind `hu` one channel, uint16.

    `hu` is (rows, columns), int16 or float32, in HU; its rows lie row_mm apart, its columns column_mm.
    """
    if view.kind == "windows":
        return window_image(hu, view.windows, view.size)
    return stored_hu(resample_hu(hu, row_mm, column_mm, view.pixel_mm, view.size))[:, :, np.newaxis]


def make_images(file: SourceFile, view: View, force: bool) -> list[Made]:
    """Write the images of a file's slices, but those that are done: they exist and their source did not change since.

    The file is opened once, and one frame is decoded at a time.
    """
    try:
        is_done = [not force and _is_done(source, file) for source in file.slices]
        if all(is_done) and all(map(_is_known, file.slices)):
            return [_known(source) for source in file.slices]
        content, size, crc = _open(file.path)
    except OSError as error:
        return _rejects(file, "unreadable", f"{type(error).__name__}: {error.strerror or error}")
    with content:
        if all(is_done):
            return [_kept(source, crc) for source in file.slices]
        if size != file.bytes:
            return _rejects(file, "unreadable", f"has {size} bytes, had {file.bytes} when indexed")
        try:
            frame = _frames(file, content, size)
        except BROKEN_DICOM as error:
            return _rejects(file, "undecodable pixel data", one_line(error))
        return [
            _kept(source, crc) if done else _make_image(source, frame, crc, view)
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
    image = view_image(hu, view, source.row_mm, source.column_mm)
    try:
        made_mask = None if source.mask is None else _make_mask(source, source.mask.path, view)
    except MaskError as error:
        return Made(reason="unusable mask", detail=str(error))
    return Made(crc, write_png(source.png, image), is_new=True, mask=made_mask)


def _make_mask(source: Source, path: str, view: View) -> MadeMask:
    """Write a slice's cached mask; raises MaskError, before anything is written."""
    data = read_source(path)
    mask = decode_source(data, source.rows, source.columns, path)
    resampled = resample_mask(mask, source.row_mm, source.column_mm, view.pixel_mm, view.size)
    return MadeMask(len(data), crc_of(data), write_png(mask_path(source.png), resampled[:, :, np.newaxis]))


def _kept(source: Source, crc: str) -> Made:
    """Return what is there of a slice that is done, `crc` being its file's."""
    try:
        mask = None if source.mask is None else _kept_mask(source.png, source.mask.path)
    except MaskError as error:
        return Made(reason="unusable mask", detail=str(error))
    return Made(crc, _crc_of(source.png), mask=mask)


def _kept_mask(png: str, path: str) -> MadeMask:
    data = read_source(path)
    return MadeMask(len(data), crc_of(data), _crc_of(mask_path(png)))


def _crc_of(png: str) -> str:
    return crc_of(Path(png).read_bytes())


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
        return BytesIO(data), len(data), crc_of(data)
    crc = 0
    while chunk := file.read(CHUNK_BYTES):
        crc = isal_zlib.crc32(chunk, crc)
    file.seek(0)
    return file, size, f"{crc:08x}"


def _known(source: Source) -> Made:
    """Return what is known already of a slice that is done."""
    return Made(source.made_of, source.png_crc, mask=None if source.mask is None else source.mask.last)


def _is_known(source: Source) -> bool:
    """Return whether the CRC-32 of all that belongs to a slice are known."""
    return source.made_of != "" and (source.mask is None or source.mask.last is not None)


def _is_done(source: Source, file: SourceFile) -> bool:
    """Return whether image and mask are there, and their sources have the size they had and did not change since.

    Raises OSError where the slice's file is gone. Where its mask is gone, the mask is not done: other slices of the
    file may be.
    """
    if not _is_made_of(source.png, os.stat(file.path), file.bytes):
        return False
    if source.mask is None:
        return True
    try:
        status = os.stat(source.mask.path)
    except OSError:
        return False
    return _is_made_of(mask_path(source.png), status, source.mask.last.source_bytes if source.mask.last else None)


def _is_made_of(png: str, source: os.stat_result, size: int | None) -> bool:
    """Return whether a PNG is there, and its source has this size, if it is known, and did not change since."""
    try:
        made_ns = os.stat(png).st_mtime_ns
    except FileNotFoundError:
        return False
    return source.st_mtime_ns <= made_ns and size in (None, source.st_size)
