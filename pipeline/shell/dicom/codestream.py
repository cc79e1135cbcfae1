"""How many pixels a codestream says it holds: read before it is decoded, for decoders believe it."""

JPEG_START, J2K_START = b"\xff\xd8", b"\xff\x4f\xff\x51"
JPEG_FRAMES = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF, 0xF7}
"""Second bytes of the markers of a frame's header, in JPEG (ISO 10918-1 B.1.1.3) and JPEG-LS (ISO 14495-1 C.1.1)."""


def declared_size(codestream: bytes) -> tuple[int, int] | None:
    """Return the rows and columns that a codestream declares; None where it is run lengths, or does not say."""
    if codestream.startswith(J2K_START):
        # The SIZ segment (ISO 15444-1 A.5.1): the reference grid's size, and where on it the image begins.
        right, bottom, left, top = (int.from_bytes(codestream[i : i + 4], "big") for i in (8, 12, 16, 20))
        return bottom - top, right - left
    position = 2 if codestream.startswith(JPEG_START) else len(codestream)
    while position + 9 <= len(codestream) and codestream[position] == 0xFF:
        if codestream[position + 1] in JPEG_FRAMES:
            rows = int.from_bytes(codestream[position + 5 : position + 7], "big")
            return (rows, int.from_bytes(codestream[position + 7 : position + 9], "big")) if rows else None
        position += 2 + int.from_bytes(codestream[position + 2 : position + 4], "big")
    return None
