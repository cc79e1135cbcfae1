"""PNG written and read here, against other readers and writers: the same pixels, and no damage goes unseen."""

import struct
import zlib
from io import BytesIO

import cv2
import numpy as np
import pytest
from PIL import Image

from pipeline.core.resampling import stored_hu
from pipeline.learn.hu_images import read_hu, read_mask
from pipeline.learn.slice_data import read_png
from pipeline.shell import png
from pipeline.shell.png import decode_grey, decode_png, encode_png, write_png

RNG = np.random.default_rng(0)

SHAPES = [(5, 7, 3), (7, 5, 1), (1, 1, 3), (1, 1, 1), (1, 9, 3), (9, 1, 1), (256, 256, 3), (31, 31, 1)]


def noise(shape) -> np.ndarray:
    return RNG.integers(0, 256, shape, dtype=np.uint8)


def flat(shape) -> np.ndarray:
    """Black, with a bright bar: as compressible as images get."""
    image = np.zeros(shape, np.uint8)
    image[:, shape[1] // 2] = 200
    return image


def coloured(image: np.ndarray) -> np.ndarray:
    """What a reader of three channels is to find."""
    return np.broadcast_to(image, (*image.shape[:2], 3))


@pytest.fixture
def no_cv2(monkeypatch):
    """No help from cv2."""
    monkeypatch.setattr(png.cv2, "imdecode", lambda *_: None)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("make", [noise, flat])
def test_every_reader_finds_the_pixels(shape, make):
    image = make(shape)
    data = encode_png(image)
    np.testing.assert_array_equal(decode_png(data), coloured(image))
    by_cv2 = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(by_cv2.reshape(shape)[:, :, ::-1], image)  # cv2 gives blue first
    with Image.open(BytesIO(data)) as opened:
        assert opened.mode == ("RGB" if shape[2] == 3 else "L")
        opened.load()
        np.testing.assert_array_equal(np.asarray(opened).reshape(shape), image)
        opened.close()
    with Image.open(BytesIO(data)) as opened:
        opened.verify()  # the checksums of all chunks


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.usefixtures("no_cv2")
def test_what_is_written_here_is_read_here(shape):
    image = noise(shape)
    found = decode_png(encode_png(image))
    np.testing.assert_array_equal(found, coloured(image))
    assert found.dtype == np.uint8
    assert found.flags.c_contiguous
    assert found.flags.writeable


def test_an_image_of_a_strided_array(tmp_path):
    image = noise((9, 14, 6))[:, ::2, ::-2]
    write_png(tmp_path / "x.png", image)
    np.testing.assert_array_equal(read_png(tmp_path / "x.png"), image)


def test_the_file_by_hand():
    data = encode_png(np.array([[[1, 2, 3]], [[4, 5, 6]]], np.uint8))
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert data[8:16] == b"\0\0\0\x0dIHDR"
    assert struct.unpack(">LL5B", data[16:29]) == (1, 2, 8, 2, 0, 0, 0)  # one column, two rows, 8 bits, truecolour
    assert data[29:33] == struct.pack(">L", zlib.crc32(data[12:29]))
    (length,) = struct.unpack(">L", data[33:37])
    assert data[37:41] == b"IDAT"
    assert zlib.decompress(data[41 : 41 + length]) == bytes([0, 1, 2, 3, 0, 4, 5, 6])
    assert data[41 + length : 45 + length] == struct.pack(">L", zlib.crc32(data[37 : 41 + length]))
    assert data[45 + length :] == b"\0\0\0\0IEND" + struct.pack(">L", zlib.crc32(b"IEND"))


def test_writing_returns_the_crc_of_the_file(tmp_path):
    crc = write_png(tmp_path / "scan" / "x.png", noise((5, 7, 3)))
    assert crc == f"{zlib.crc32((tmp_path / 'scan/x.png').read_bytes()):08x}"
    assert [path.name for path in (tmp_path / "scan").iterdir()] == ["x.png"]


@pytest.mark.parametrize(
    "image", [np.zeros((2, 3, 2), np.uint8), np.zeros((2, 3), np.uint8), np.zeros((2, 3, 3)), np.zeros((0, 3, 3), "u1")]
)
def test_what_no_png_holds_is_refused(image):
    with pytest.raises(ValueError, match=r"a PNG holds uint8 \(y, x, 1 or 3\), got"):
        encode_png(image)


def by_cv2(image: np.ndarray, *options: int) -> bytes:
    return cv2.imencode(".png", image[:, :, ::-1], options)[1].tobytes()


def by_pillow(image: np.ndarray, **options) -> bytes:
    buffer = BytesIO()
    Image.fromarray(image if image.shape[2] == 3 else image[:, :, 0]).save(buffer, "PNG", **options)
    return buffer.getvalue()


@pytest.mark.parametrize("shape", SHAPES)
def test_other_writers_files_are_read_too(shape):
    image = noise(shape)
    smooth = np.cumsum(image // 128, axis=1, dtype=np.uint8)  # rows are filtered
    for pixels in (image, smooth):
        for data in (by_cv2(pixels), by_cv2(pixels, cv2.IMWRITE_PNG_COMPRESSION, 6), by_pillow(pixels)):
            np.testing.assert_array_equal(decode_png(data), coloured(pixels))


def test_depths_and_colours_that_are_not_ours_are_read_by_cv2():
    palette = Image.fromarray(noise((5, 7, 3))).quantize(4)
    buffer = BytesIO()
    palette.save(buffer, "PNG")
    np.testing.assert_array_equal(decode_png(buffer.getvalue()), np.asarray(palette.convert("RGB")))
    deep = cv2.imencode(".png", np.full((5, 7), 0x1234, np.uint16))[1].tobytes()
    assert (decode_png(deep) == 0x12).all()


@pytest.mark.parametrize("make", [noise, flat])
def test_no_damage_goes_unseen(make, tmp_path):
    data = encode_png(make((5, 7, 3)))
    path = tmp_path / "x.png"
    for length in range(len(data)):
        with pytest.raises(ValueError, match="no PNG, or a damaged one"):
            decode_png(data[:length])
    for place in range(len(data) - 4):  # the last four are IEND's checksum, which says nothing of the pixels
        damaged = bytearray(data)
        damaged[place] ^= 1 << (place % 8)
        path.write_bytes(damaged)
        with pytest.raises(OSError, match=r"x.png: a cached image cannot be decoded; redo it with `make window"):
            read_png(path)


def chunked(image: np.ndarray, packed: bytes, columns: int) -> bytes:
    """Return a file with right checksums, whatever its pixels and its width are."""
    whole = encode_png(image)
    header = struct.pack(">LL", columns, image.shape[0]) + whole[24:29]
    chunks = [(b"IHDR", header), (b"IDAT", packed), (b"IEND", b"")]
    return whole[:8] + b"".join(
        struct.pack(">L", len(held)) + kind + held + struct.pack(">L", zlib.crc32(kind + held)) for kind, held in chunks
    )


def test_pixels_that_do_not_fit_the_header_are_damage():
    image = noise((5, 7, 3))
    lines = b"".join(b"\0" + row.tobytes() for row in image)
    np.testing.assert_array_equal(decode_png(chunked(image, zlib.compress(lines), 7)), image)
    for packed, columns in ((lines, 7), (zlib.compress(lines)[:-9], 7), (b"", 7), (zlib.compress(lines), 9)):
        with pytest.raises(ValueError, match="no PNG, or a damaged one"):
            decode_png(chunked(image, packed, columns))
    with pytest.raises(ValueError, match="no PNG, or a damaged one"):
        decode_png(chunked(image, zlib.compress(lines), 0))


DEEP_SHAPES = [(5, 7, 1), (7, 5, 1), (1, 1, 1), (9, 1, 1), (250, 250, 1)]


def deep(shape) -> np.ndarray:
    """16 bits of noise, in which no byte is like its neighbour."""
    return RNG.integers(0, 1 << 16, shape, dtype=np.uint16)


@pytest.mark.parametrize("shape", DEEP_SHAPES)
def test_every_reader_finds_16_bits(shape):
    image = deep(shape)
    data = encode_png(image)
    by_cv2 = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert by_cv2.dtype == np.uint16
    np.testing.assert_array_equal(by_cv2, image[:, :, 0])
    with Image.open(BytesIO(data)) as opened:
        np.testing.assert_array_equal(np.asarray(opened), image[:, :, 0])
    np.testing.assert_array_equal(decode_png(data), coloured(image >> 8))


def test_16_bits_by_hand():
    data = encode_png(np.array([[[0x0102], [0xFFFE]]], np.uint16))
    assert struct.unpack(">LL5B", data[16:29]) == (2, 1, 16, 0, 0, 0, 0)  # two columns, one row, 16 bits, greyscale
    (length,) = struct.unpack(">L", data[33:37])
    assert zlib.decompress(data[41 : 41 + length]) == bytes([0, 1, 2, 0xFF, 0xFE])  # the greater byte first


@pytest.mark.parametrize("make", [noise, flat, deep])
@pytest.mark.parametrize("shape", DEEP_SHAPES)
def test_one_channel_is_read_as_it_is(make, shape, monkeypatch):
    image = make(shape)
    by_cv2 = cv2.imencode(".png", np.cumsum(image, axis=1, dtype=image.dtype), [cv2.IMWRITE_PNG_COMPRESSION, 6])[1]
    np.testing.assert_array_equal(decode_grey(by_cv2.tobytes()), np.cumsum(image[:, :, 0], axis=1, dtype=image.dtype))
    monkeypatch.setattr(png.cv2, "imdecode", None)  # what is written here is read here
    found = decode_grey(encode_png(image))
    assert found.dtype == image.dtype
    assert found.flags.c_contiguous
    assert found.flags.writeable
    np.testing.assert_array_equal(found, image[:, :, 0])


def test_colours_are_no_one_channel():
    for data in (encode_png(noise((5, 7, 3))), by_pillow(noise((5, 7, 3)))):
        with pytest.raises(ValueError, match="a PNG of 3 channels, expected one"):
            decode_grey(data)


def test_16_bits_of_colours_are_refused():
    with pytest.raises(ValueError, match=r"got uint16 \(2, 3, 3\), which is not uint16 \(y, x, 1\) either"):
        encode_png(np.zeros((2, 3, 3), np.uint16))


def test_hu_and_masks_are_read_and_no_damage_goes_unseen(tmp_path):
    hu = RNG.integers(-32768, 32768, (5, 7)).astype(np.int16)
    mask = RNG.integers(0, 64, (5, 7), dtype=np.uint8)
    image_path, path = tmp_path / "x.png", tmp_path / "x.mask.png"
    write_png(image_path, stored_hu(hu)[:, :, np.newaxis])
    write_png(path, mask[:, :, np.newaxis])
    found = read_hu(image_path)
    assert found.dtype == np.int16
    np.testing.assert_array_equal(found, hu)
    np.testing.assert_array_equal(read_mask(path), mask)
    for read, wrong in ((read_hu, path), (read_mask, image_path)):
        with pytest.raises(
            OSError, match=rf"{wrong.name}: a cached image cannot be decoded; redo it with `make window"
        ):
            read(wrong)
    with pytest.raises(
        FileNotFoundError, match=r"y.png: a cached image is missing; redo it with `make window FORCE=1`"
    ):
        read_hu(tmp_path / "y.png")
    data = image_path.read_bytes()
    for place in range(len(data) - 4):
        damaged = bytearray(data)
        damaged[place] ^= 1 << (place % 8)
        for broken in (bytes(damaged), data[:place]):
            image_path.write_bytes(broken)
            with pytest.raises(OSError, match=r"x.png: a cached image cannot be decoded"):
                read_hu(image_path)
