"""Stored values to Hounsfield units: water, air, and the slices whose values wrapped round."""

import numpy as np
import pytest

from pipeline.core.hounsfield import PADDING_HU, is_wrapped, to_hu

RNG = np.random.default_rng(0)


def test_water_is_0_and_air_is_minus_1000():
    stored = np.array([[1024, 24]], dtype=np.int16)
    hu = to_hu(stored, 1.0, -1024.0, bits=16, signed=True)
    assert hu.dtype == np.int16
    assert hu.tolist() == [[0, -1000]]


def test_the_area_outside_the_field_of_view_keeps_its_value():
    assert to_hu(np.array([[-2000]], np.int16), 1.0, -1024.0, bits=16, signed=True).item() == -3024


@pytest.mark.parametrize(
    ("bits", "signed", "intercept", "wrapped"),
    [
        (12, False, 0.0, True),
        (12, False, -99.0, True),
        (12, False, -100.0, False),
        (12, False, -1000.0, False),
        (12, False, -1024.0, False),
        (12, True, 0.0, False),  # right as it is
        (16, False, 0.0, False),
        (16, True, 0.0, False),
    ],
)
def test_only_unsigned_12_bit_slices_without_a_shift_are_wrapped(bits, signed, intercept, wrapped):
    assert is_wrapped(bits, signed, intercept) is wrapped


def test_a_wrapped_slice_is_repaired():
    # Brain (+40), water and air (-1000) as a wrapped file stores them: air has gone round to the top.
    stored = np.array([[40, 0, 4096 - 1000]], dtype=np.uint16)
    assert to_hu(stored, 1.0, 0.0, bits=12, signed=False).tolist() == [[40, 0, -1000]]


def test_wrapping_and_repairing_gives_back_what_12_bits_can_hold():
    hu = RNG.integers(-1000, 3096, (48, 40))
    stored = ((hu + 4096) % 4096).astype(np.uint16)
    assert np.array_equal(to_hu(stored, 1.0, 0.0, bits=12, signed=False), hu)


def test_signed_12_bit_with_intercept_0_is_not_repaired():
    stored = np.array([[-1000, 0, 2047]], dtype=np.int16)
    assert np.array_equal(to_hu(stored, 1.0, 0.0, bits=12, signed=True), stored)


@pytest.mark.parametrize("slope", [1.0, 2.0, -1.0, 0.5, 1.25])
@pytest.mark.parametrize("intercept", [0.0, -1024.0, -1000.0, -1024.5, 31000.0, -40000.0])
@pytest.mark.parametrize("stored_type", [np.int16, np.uint16])
def test_any_rescale_is_slope_times_stored_plus_intercept(slope, intercept, stored_type):
    ends = np.iinfo(stored_type)
    for low, high in ((0, 4000), (ends.min, ends.max)):
        stored = RNG.integers(low, high, (48, 40), endpoint=True).astype(stored_type)
        hu = to_hu(stored, slope, intercept, bits=16, signed=stored_type == np.int16)
        exact = stored.astype(np.float64) * slope + intercept
        assert hu.dtype in (np.int16, np.float32)
        np.testing.assert_allclose(hu, exact, rtol=1e-7, atol=0 if hu.dtype == np.int16 else 1e-2)
        whole = slope in (1.0, 2.0, -1.0) and intercept != -1024.5
        fits = exact.min() >= -32768 and exact.max() <= 32767
        assert (hu.dtype == np.int16) == (whole and fits)


def test_the_stored_values_are_left_as_they_were():
    stored = RNG.integers(0, 4096, (48, 40)).astype(np.uint16)
    before = stored.copy()
    to_hu(stored, 1.0, 0.0, bits=12, signed=False)
    to_hu(stored, 1.0, -1024.0, bits=16, signed=False)
    assert np.array_equal(stored, before)


def test_padding_becomes_air_and_nothing_else_changes():
    stored = np.array([[-2000, -1999, 0], [1064, -2000, -2001]], np.int16)
    hu = to_hu(stored, 1.0, -1024.0, bits=16, signed=True, padding=(-2000, -2000))
    assert hu.dtype == np.int16
    assert hu.tolist() == [[-1024, -3023, -1024], [40, -1024, -3025]]
    assert to_hu(stored, 1.0, -1024.0, 16, True, (-2001, -1999)).tolist() == [[-1024, -1024, -1024], [40, -1024, -1024]]


def test_unsigned_padding_is_no_white_bone():
    stored = np.array([[63536, 1064], [24, 63536]], np.uint16)
    hu = to_hu(stored, 1.0, -1024.0, bits=16, signed=False, padding=(63536, 63536))
    assert hu.dtype == np.int16  # what is no image does not widen the image's range
    assert hu.tolist() == [[-1024, 40], [-1000, -1024]]
    assert to_hu(stored, 1.0, -1024.0, bits=16, signed=False)[0, 0] == 62512


def test_padding_is_found_before_wrapped_values_are_repaired():
    # Stored 0 is water in a wrapped slice; 2048 is padding, and would become 2048 HU.
    stored = np.array([[2048, 0, 4096 - 1000]], dtype=np.uint16)
    assert to_hu(stored, 1.0, 0.0, bits=12, signed=False, padding=(2048, 2048)).tolist() == [[-1024, 0, -1000]]


def test_padding_may_lie_above_the_bits_stored():
    stored = np.array([[63536, 1064]], np.uint16)  # 0xF830: its lowest 12 bits are 2096
    assert to_hu(stored, 1.0, -1024.0, bits=12, signed=False, padding=(63536, 63536)).tolist() == [[-1024, 40]]


def test_a_slice_of_padding_alone_is_air():
    hu = to_hu(np.full((3, 5), -2000, np.int16), 0.5, 0.0, bits=16, signed=True, padding=(-2000, -2000))
    assert hu.dtype == np.int16
    assert hu.tolist() == [[-1024] * 5] * 3


def test_padding_in_a_slice_of_real_numbers():
    hu = to_hu(np.array([[100, 7]], np.int16), 0.5, -0.25, bits=16, signed=True, padding=(7, 7))
    assert hu.dtype == np.float32
    assert hu.tolist() == [[49.75, -1024.0]]


@pytest.mark.parametrize(
    ("stored", "bits", "signed", "value"),
    [
        (0b0100_0000_0010_1000, 12, False, 40),  # an overlay in bit 14
        (0b1111_0000_0010_1000, 12, False, 40),
        (0b0100_0000_0010_1000, 12, True, 40),
        (0b0000_1111_1101_1000, 12, True, -40),  # a sign that was not extended
        (0b0100_1111_1101_1000, 12, True, -40),
        (0b1111_1111_1101_1000, 12, True, -40),
        (0b0000_0000_0101_1000, 7, True, -40),  # 8 bits allocated, widened
        (0b1111_0000_0010_1000, 16, False, 61480),
    ],
)
def test_bits_above_those_stored_do_not_count(stored, bits, signed, value):
    pixels = np.array([[stored, 0]], np.uint16).view(np.int16 if signed else np.uint16)
    assert to_hu(pixels, 1.0, -200.0, bits, signed).tolist() == [[value - 200, -200]]


def test_unused_bits_are_dropped_as_pydicom_drops_them():
    from io import BytesIO

    import pydicom

    from pipeline.shell.dicom.pixels import decode_pixels
    from tests.dicom_files import slice_bytes

    for stored_type in (np.int16, np.uint16):
        stored = RNG.integers(0, 1 << 16, (7, 5)).astype(np.uint16).view(stored_type)
        data = slice_bytes(stored, BitsStored=11)
        hu = to_hu(decode_pixels(data), 1.0, -200.0, 11, stored_type is np.int16)
        assert np.array_equal(hu, pydicom.dcmread(BytesIO(data)).pixel_array.astype(int) - 200)


def twin(stored: np.ndarray, slope: float, intercept: float, bits: int, padding: tuple[int, int]) -> np.ndarray:
    """The same in wide numbers, one step after the other, for what is not wrapped."""
    signed = stored.dtype == np.int16
    is_padding = (stored >= padding[0]) & (stored <= padding[1])
    used = stored.astype(np.int64) % (1 << bits)
    if signed:
        used = np.where(used >= 1 << (bits - 1), used - (1 << bits), used)
    exact = np.where(is_padding, PADDING_HU, used * np.float64(slope) + intercept)
    image = exact[~is_padding]
    is_whole = float(slope).is_integer() and float(intercept).is_integer()
    fits = not image.size or (is_whole and image.min() >= -32768 and image.max() <= 32767)
    return exact.astype(np.int16 if fits else np.float32)


@pytest.mark.parametrize("stored_type", [np.int16, np.uint16])
@pytest.mark.parametrize("bits", [7, 12, 13, 16])
def test_one_pass_or_many_the_values_and_their_type_are_the_same(stored_type, bits):
    ends = np.iinfo(stored_type)
    kinds = set()
    for low, high in ((0, 100), (900, 3500), (ends.min, ends.max)):
        for slope in (1.0, 2.0, -1.0, 7.0, 0.5, 70000.0):
            for intercept in (-1024.0, -1000.0, -1024.5, 31000.0, -70000.0):
                if is_wrapped(bits, stored_type is np.int16, intercept):
                    continue
                stored = RNG.integers(low, high, (7, 5), endpoint=True).astype(stored_type)
                some = int(stored[2, 3])
                for padding in (None, (some, some), (some - 50, some + 900), (ends.max, ends.max), (low, high)):
                    hu = to_hu(stored, slope, intercept, bits, stored_type is np.int16, padding)
                    expected = twin(stored, slope, intercept, bits, padding or (1, 0))
                    assert hu.dtype == expected.dtype
                    np.testing.assert_array_equal(hu, expected)
                    kinds.add(hu.dtype)
    assert kinds == {np.dtype(np.int16), np.dtype(np.float32)}


def test_pixels_that_may_not_be_written_to_are_read():
    stored = np.frombuffer(np.arange(35, dtype="<i2").tobytes(), "<i2").reshape(7, 5)
    assert np.array_equal(to_hu(stored, 1.0, -10.0, 16, True), stored - 10)
    assert np.array_equal(to_hu(stored[::2, ::-1], 2.0, 0.0, 16, True), 2 * stored[::2, ::-1])
