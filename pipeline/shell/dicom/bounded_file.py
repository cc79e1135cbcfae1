"""Reading that gives up in good time: regular files only, a bound on what a parser may take, a bound on inflation."""

import os
import stat
import zlib
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

MAX_FILE_BYTES = 1 << 30
"""Larger files are not read: a thousand native frames of 512 x 512 are half of it."""

MAX_INFLATED_BYTES = 1 << 28
"""A deflated data set is inflated as a whole, and deflation packs up to a thousand to one."""

MAX_PARSED_BYTES = 1 << 25
"""What a parser may take from one file, pixels aside; the headers of a thousand enhanced frames are a few MB."""

MAX_READS = 200_000
"""How often a parser may read from one file. An element takes one or two reads, and an empty item becomes a data set
of its own: without this bound a file of 300 MB of empty items takes minutes and 30 GB. An enhanced frame takes 50 to
200."""

CHUNK_BYTES = 1 << 20


class Budget:
    """What a parser may still take from one file."""

    def __init__(self, reads: int = MAX_READS, byte_count: int = MAX_PARSED_BYTES) -> None:
        self.reads, self.byte_count = reads, byte_count
        self._allowed = (reads, byte_count)

    def take(self, byte_count: int) -> None:
        """Count one read; raises OSError where reads or bytes are spent."""
        self.reads -= 1
        self.byte_count -= byte_count
        if self.reads < 0:
            raise OSError(f"more than {self._allowed[0]} elements, items or fragments; the file is damaged or no image")
        if byte_count < 0 or self.byte_count < 0:
            raise OSError(f"more than {self._allowed[1]} bytes that are to be parsed; the file is damaged or no image")


class BoundedFile:
    """A binary file for a parser with a budget."""

    def __init__(self, file: BinaryIO, budget: Budget) -> None:
        self._file, self._take = file, budget.take
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        """Return up to `size` bytes; raises OSError where the budget is spent."""
        self._take(size)
        return self._file.read(size)


def open_regular(path: str | Path) -> tuple[BinaryIO, int]:
    """Return a file opened for reading, and its size in bytes.

    Raises OSError for a pipe, a socket or a device, which could block, and for more than MAX_FILE_BYTES.
    """
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(f"not a regular file but {_kind(status.st_mode)}")
    if status.st_size > MAX_FILE_BYTES:
        raise OSError(f"has {status.st_size} bytes, more than {MAX_FILE_BYTES}; it is not read")
    return open(path, "rb"), status.st_size


def _kind(mode: int) -> str:
    kinds = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFDIR: "a folder"}
    return kinds.get(stat.S_IFMT(mode), "a device")


def inflate(file: BinaryIO, out: BytesIO) -> None:
    """Append what the rest of `file` holds, raw deflate (DICOM PS3.5 A.5), inflated to `out`.

    What is cut short is inflated as far as it goes. Raises OSError beyond MAX_INFLATED_BYTES, and zlib.error.
    """
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    while not stream.eof:
        deflated = stream.unconsumed_tail or file.read(CHUNK_BYTES)
        if not deflated:
            return
        out.write(stream.decompress(deflated, CHUNK_BYTES))
        if out.tell() > MAX_INFLATED_BYTES:
            raise OSError(f"inflates to more than {MAX_INFLATED_BYTES} bytes")
