"""Files that a stage meets in the wild, each with what is to become of it, for the test of bad input."""

import struct
import zlib
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import pydicom
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from tests.dicom_files import COLUMNS, ROWS, enhanced_bytes, frame_group, items, slice_bytes, truncated

RNG = np.random.default_rng(7)
AIR = -1024


@dataclass(frozen=True)
class Case:
    """A file's bytes, and either the Hounsfield units of each of its frames or why it is rejected."""

    data: bytes
    hu: tuple[np.ndarray, ...] = ()
    reason: str = ""
    detail: str = ""


def stored_of(dtype: type, low: int, high: int, frames: int = 0) -> np.ndarray:
    """Return random stored values (rows, columns), or (frames, rows, columns)."""
    return RNG.integers(low, high, (*[frames][: frames > 0], ROWS, COLUMNS)).astype(dtype)


SIGNED = stored_of(np.int16, -1000, 3000)
UNSIGNED = stored_of(np.uint16, 0, 4096)
BYTES = stored_of(np.uint8, 0, 256)
SIGNED_BYTES = stored_of(np.int8, -128, 128)
FRAMES = stored_of(np.int16, 0, 2000, frames=3)
GROUPS = [frame_group(5.0 * k) for k in range(3)]


def hu_of(stored: np.ndarray, slope: int = 1, intercept: int = -1024) -> np.ndarray:
    """Return slope * stored + intercept in whole numbers of any size."""
    return stored.astype(np.int64) * slope + intercept


def usable(stored: np.ndarray, data: bytes | None = None, **changes) -> Case:
    """Return a slice that is to be read as it is."""
    return Case(slice_bytes(stored, **changes) if data is None else data, (hu_of(stored),))


def rejected(data: bytes, reason: str, detail: str) -> Case:
    """Return a file that is to be left out."""
    return Case(data, reason=reason, detail=detail)


def compressed(stored: np.ndarray, syntax: str, **changes) -> bytes:
    """Return a slice compressed by pydicom's encoders."""
    dataset = pydicom.dcmread(BytesIO(slice_bytes(stored, **changes)))
    dataset.compress(syntax, generate_instance_uid=False)
    out = BytesIO()
    dataset.save_as(out)
    return out.getvalue()


def said_in_another_form(data: bytes, keyword_bytes: bytes, vr: bytes) -> bytes:
    """Return a file with the VR of one element changed, the bits of its value as they are."""
    position = data.index(keyword_bytes) + 4
    return data[:position] + vr + data[position + 2 :]


def declared(data: bytes, syntax: str, instead_of: str) -> bytes:
    """Return a file whose meta information names another transfer syntax than its data set is in."""
    old, new = (uid.encode().ljust(len(uid) + len(uid) % 2, b"\0") for uid in (instead_of, syntax))
    head = b"\x02\x00\x10\x00UI"
    was, now = (head + struct.pack("<H", len(uid)) + uid for uid in (old, new))
    # The group's length stands before it, and is no longer right: readers must not rely on it.
    return data.replace(was, now, 1)


def padded(dtype: type, padding: int, vr: bytes | None) -> Case:
    """Return a slice with a padded rim, its PixelPaddingValue perhaps said in the other form."""
    stored = (SIGNED if dtype is np.int16 else UNSIGNED).copy()
    stored[:5] = np.array(padding).astype(dtype)
    data = slice_bytes(stored, PixelPaddingValue=int(stored[0, 0]))
    if vr:
        data = said_in_another_form(data, b"\x28\x00\x20\x01", vr)
    hu = hu_of(stored)
    hu[:5] = AIR
    return Case(data, (hu,))


def with_a_padding_range() -> Case:
    """Return a slice whose padding is all that lies from -3000 to -2000, limits included, the greater one first."""
    stored = SIGNED.copy()
    stored[0, :4] = [-3001, -3000, -2000, -1999]
    hu = hu_of(stored)
    hu[0, 1:3] = AIR
    return Case(slice_bytes(stored, PixelPaddingValue=-2000, PixelPaddingRangeLimit=-3000), (hu,))


def with_overlay_bits() -> Case:
    """Return a 12-bit slice with an old overlay in bit 14."""
    dirty = UNSIGNED | (RNG.integers(0, 2, UNSIGNED.shape) << 14).astype(np.uint16)
    return Case(slice_bytes(dirty, BitsStored=12), (hu_of(UNSIGNED),))


def big_endian_words() -> bytes:
    """Return an 8-bit slice in big endian words: each pair of bytes changes places (DICOM PS3.5 8.1.1)."""
    swapped = BYTES.reshape(-1, 2)[:, ::-1].tobytes()
    return slice_bytes(BYTES, syntax=ExplicitVRBigEndian, PixelData=swapped)


def with_vr(data: bytes, vr: bytes) -> bytes:
    """Return a file whose pixel data has another VR of the same length."""
    return said_in_another_form(data, b"\x7f\xe0\x00\x10", vr)


def frames_of(data: bytes, stored: np.ndarray) -> Case:
    """Return an enhanced CT whose frames are all to be read."""
    return Case(data, tuple(hu_of(frame) for frame in stored))


META = bytes(128) + b"DICM" + b"\x02\x00\x10\x00UI" + struct.pack("<H", 20) + b"1.2.840.10008.1.2.1\0"
SEQUENCE = struct.pack("<HH2sHL", 0x0008, 0x1140, b"SQ", 0, 0xFFFFFFFF)
ITEM, EMPTY_ITEM = struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF), struct.pack("<HHL", 0xFFFE, 0xE000, 0)


def huge(side: int) -> bytes:
    """Return a slice that declares more rows and columns than 16 bits hold, as unsigned long."""
    data = slice_bytes()
    for element, was in ((0x10, ROWS), (0x11, COLUMNS)):
        tag = struct.pack("<HH", 0x28, element)
        data = data.replace(tag + b"US\2\0" + struct.pack("<H", was), tag + b"UL\4\0" + struct.pack("<L", side), 1)
    return data


def huge_codestream(side: int) -> bytes:
    """Return a slice in JPEG 2000 whose codestream declares more pixels than the header, in one tile."""
    dataset = pydicom.dcmread(BytesIO(compressed(SIGNED, JPEG2000Lossless)))
    codestream = bytearray(pydicom.encaps.get_frame(dataset.PixelData, 0, number_of_frames=1))
    for position in (8, 12, 24, 28):  # Xsiz, Ysiz, XTsiz, YTsiz
        codestream[position : position + 4] = side.to_bytes(4, "big")
    return slice_bytes(SIGNED, syntax=JPEG2000Lossless, PixelData=encapsulate([bytes(codestream)]))


def deflate_bomb(megabytes: int) -> bytes:
    """Return a deflated file that inflates to this size: zeros, a thousand to one."""
    data = slice_bytes(syntax=DeflatedExplicitVRLittleEndian)
    meta_end = data.index(b"1.2.840.10008.1.2.1.99") + 22
    while data[meta_end : meta_end + 2] == b"\x02\x00":
        meta_end += 8 + struct.unpack("<H", data[meta_end + 6 : meta_end + 8])[0]
    head = zlib.decompress(data[meta_end:], -zlib.MAX_WBITS)
    # Blocks that are flushed in full do not need each other, and may be repeated.
    stream = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    first = stream.compress(head) + stream.flush(zlib.Z_FULL_FLUSH)
    block = stream.compress(bytes(1 << 20)) + stream.flush(zlib.Z_FULL_FLUSH)
    return data[:meta_end] + first + block * megabytes + stream.flush()


def damaged_extended() -> bytes:
    """Return a slice in JPEG Extended of which gdcm ends its process."""
    dataset = pydicom.dcmread(get_testdata_file("JPGExtended.dcm", read=False))
    codestream = bytearray(pydicom.encaps.get_frame(dataset.PixelData, 0, number_of_frames=1))
    codestream[84] = 62
    shape = np.zeros((dataset.Rows, dataset.Columns), np.uint16)
    return slice_bytes(shape, syntax=JPEGExtended12Bit, BitsStored=12, PixelData=encapsulate([bytes(codestream)]))


ENDLESS = b"\x00\x00\x00\x0cjP  \r\n\x87\n" + bytes(64)
NESTED = META + (SEQUENCE + ITEM) * 20_000
RGB = np.zeros((ROWS, COLUMNS, 3), np.uint8).tobytes()
LOCALIZER = items(FrameType=["ORIGINAL", "PRIMARY", "LOCALIZER", "NONE"])
THREE_SAMPLES = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "BitsAllocated": 8, "BitsStored": 8}
ONE_FRAME_BROKEN = [GROUPS[0], frame_group(5.0, CTImageFrameTypeSequence=LOCALIZER), GROUPS[2]]

CASES = {
    # Read rightly.
    "plain": usable(SIGNED),
    "unsigned": usable(UNSIGNED, BitsStored=12),
    "implicit": usable(SIGNED, syntax=ImplicitVRLittleEndian),
    "big endian": usable(SIGNED, syntax=ExplicitVRBigEndian),
    "deflated": usable(SIGNED, syntax=DeflatedExplicitVRLittleEndian),
    "8 bits": usable(BYTES),
    "8 bits signed": usable(SIGNED_BYTES),
    "8 bits odd": usable(BYTES[:3, :5], PixelData=BYTES[:3, :5].tobytes() + b"\0"),
    "8 bits big endian": usable(BYTES, with_vr(slice_bytes(BYTES, syntax=ExplicitVRBigEndian), b"OB")),
    "8 bits big endian words": usable(BYTES, big_endian_words()),
    "MONOCHROME1": usable(SIGNED, PhotometricInterpretation="MONOCHROME1"),
    "padding signed": padded(np.int16, -2000, None),
    "padding signed said as unsigned": padded(np.int16, -2000, b"US"),
    "padding unsigned": padded(np.uint16, 63536, None),
    "padding unsigned said as signed": padded(np.uint16, 63536, b"SS"),
    "padding range": with_a_padding_range(),
    "overlay bits": with_overlay_bits(),
    "implicit said to be explicit": usable(
        SIGNED,
        declared(
            slice_bytes(SIGNED, syntax=ImplicitVRLittleEndian),
            ExplicitVRLittleEndian,
            instead_of=ImplicitVRLittleEndian,
        ),
    ),
    "explicit said to be implicit": usable(
        SIGNED, declared(slice_bytes(SIGNED), ImplicitVRLittleEndian, instead_of=ExplicitVRLittleEndian)
    ),
    "RLE": usable(SIGNED, compressed(SIGNED, RLELossless)),
    "JPEG-LS": usable(SIGNED, compressed(SIGNED, JPEGLSLossless)),
    "JPEG 2000": usable(UNSIGNED, compressed(UNSIGNED, JPEG2000Lossless)),
    "enhanced": frames_of(enhanced_bytes(FRAMES, GROUPS), FRAMES),
    "enhanced big endian": frames_of(enhanced_bytes(FRAMES, GROUPS, syntax=ExplicitVRBigEndian), FRAMES),
    "enhanced 8 bits": frames_of(enhanced_bytes(FRAMES.astype(np.uint8), GROUPS), FRAMES.astype(np.uint8)),
    # File names.
    'a "quoted" name, with a comma': usable(SIGNED),
    "ein Schädel · 頭": usable(SIGNED),
    "a dot. and it's spaced ": usable(SIGNED, compressed(SIGNED, RLELossless)),
    "two\nlines": rejected(slice_bytes(), "unusable name", "no line breaks"),
    "n" * 201: rejected(slice_bytes(), "unusable name", "at most 200 bytes"),
    # Left out.
    "truncated": rejected(truncated(slice_bytes()), "truncated pixel data", "holds 2840 of 3840 bytes"),
    "truncated 8 bits": rejected(
        truncated(slice_bytes(BYTES), 100), "truncated pixel data", "holds 1820 of 1920 bytes"
    ),
    "truncated deflated": rejected(
        truncated(slice_bytes(SIGNED, syntax=DeflatedExplicitVRLittleEndian), 2000), "truncated pixel data", "holds"
    ),
    "zero bytes": rejected(b"", "unreadable", "the file is empty"),
    "not DICOM": rejected(b"%PDF-1.4 " * 100, "unreadable", "InvalidDicomError"),
    "no pixel data": rejected(slice_bytes(PixelData=None), "no pixel data", "ends before the pixel data"),
    "empty pixel data": rejected(slice_bytes(PixelData=b""), "no pixel data", "empty"),
    "dose page": rejected(slice_bytes(PixelData=RGB, **THREE_SAMPLES), "unsupported pixel format", "3 samples"),
    "localizer": rejected(slice_bytes(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]), "not a CT slice", "localizer"),
    "32 bits": rejected(slice_bytes(SIGNED.astype(np.int32)), "unsupported pixel format", "32 bits allocated"),
    "1 bit": rejected(slice_bytes(BitsAllocated=1, BitsStored=1), "unsupported pixel format", "1 bits allocated"),
    "NaN slope": rejected(slice_bytes(RescaleSlope="NaN"), "unusable rescale", "slope and intercept are NaN"),
    "zero rows": rejected(slice_bytes(Rows=0), "unsupported pixel format", "0 rows, 40 columns"),
    "65535 x 65535": rejected(slice_bytes(Rows=65535, Columns=65535), "unsupported pixel format", "more than 16777216"),
    "100,000 x 100,000": rejected(huge(100_000), "unsupported pixel format", "100000 rows, 100000 columns: more than"),
    "100,000 x 100,000 in the codestream": rejected(
        huge_codestream(100_000), "undecodable pixel data", "the codestream holds 100000 x 100000 pixels"
    ),
    "two frames without a place": rejected(
        slice_bytes(FRAMES[:2], NumberOfFrames=2), "unsupported pixel format", "2 frames, and no functional groups"
    ),
    "native said to be JPEG": rejected(
        declared(slice_bytes(), JPEGLosslessSV1, instead_of=ExplicitVRLittleEndian),
        "unusable transfer syntax",
        "the pixel data is native, 1.2.840.10008.1.2.4.70 is compressed",
    ),
    "compressed said to be native": rejected(
        declared(compressed(SIGNED, RLELossless), ExplicitVRLittleEndian, instead_of=RLELossless),
        "unusable transfer syntax",
        "the pixel data is encapsulated, 1.2.840.10008.1.2.1 is native",
    ),
    "RLE said to be JPEG": rejected(
        declared(compressed(SIGNED, RLELossless), JPEGLosslessSV1, instead_of=RLELossless),
        "undecodable pixel data",
        "RuntimeError",
    ),
    "big endian said to be little": rejected(
        declared(slice_bytes(syntax=ExplicitVRBigEndian), ExplicitVRLittleEndian, instead_of=ExplicitVRBigEndian),
        "not a CT slice",
        "SeriesInstanceUID is missing",
    ),
    "little endian said to be big": rejected(
        declared(slice_bytes(), ExplicitVRBigEndian, instead_of=ExplicitVRLittleEndian),
        "not a CT slice",
        "SeriesInstanceUID is missing",
    ),
    "MPEG-4": rejected(
        declared(slice_bytes(), "1.2.840.10008.1.2.4.102", instead_of=ExplicitVRLittleEndian),
        "unusable transfer syntax",
        "no decoder for 1.2.840.10008.1.2.4.102",
    ),
    "JPEG 2000 without end": rejected(
        slice_bytes(syntax=JPEG2000Lossless, PixelData=encapsulate([ENDLESS])),
        "undecodable pixel data",
        "TimeoutError: decoding took more than 3 s",
    ),
    "JPEG that ends the decoder": rejected(damaged_extended(), "undecodable pixel data", "the decoder died: SIGABRT"),
    "RLE cut short": rejected(
        slice_bytes(syntax=RLELossless, PixelData=encapsulate([b"\x02" + bytes(70)])), "undecodable pixel data", "RLE"
    ),
    "deflate bomb": rejected(deflate_bomb(257), "unreadable", "inflates to more than 268435456 bytes"),
    "nested sequences": rejected(NESTED, "unreadable", "RecursionError"),
}
"""File stem to what it holds."""
