"""What the head of an encoded image says, read without decoding it: its size, and the colours of a bitmap's palette.

Whoever only asks for a size needs no TensorFlow, which cannot change its number of threads once it has started.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

JPEG_MAGIC = b"\xff\xd8\xff"
_BITMAP_MAGIC = b"BM"
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_BARE_MARKERS = frozenset({0x01, *range(0xD0, 0xD9)})
_FILE_HEADER = 14
_BIT_FIELDS, _USUAL_FIELDS = 3, ((0xFF0000, 0xFF00, 0xFF), (0, 0, 0))
_TRUE_COLOUR = "<2sIHHIIiiHHIIiiII"


def image_size(data: bytes) -> tuple[int, int]:
    """Height and width in pixels of a JPEG, PNG, BMP or GIF; raises ValueError if the head says none."""
    try:
        if data.startswith(JPEG_MAGIC):
            height, width = _jpeg_size(data)
        elif data.startswith(b"\x89PNG\r\n\x1a\n"):
            width, height = struct.unpack_from(">II", data, 16)
        elif data.startswith(b"GIF8"):
            width, height = struct.unpack_from("<HH", data, 6)
        elif data.startswith(_BITMAP_MAGIC):
            width, height = struct.unpack_from("<HH" if _is_old_bitmap(data) else "<ii", data, 18)
        else:
            raise ValueError(f"it starts with {data[:8].hex(' ') or 'nothing'}")
    except (struct.error, IndexError) as error:
        raise ValueError("it ends within its head") from error
    if not width or not height:
        raise ValueError(f"its head says {height}×{width} pixels")
    return abs(height), abs(width)  # a bitmap from top to bottom has a negative height


def jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """(marker, first byte, byte after the last) of the segments before the pixels of a JPEG; raises IndexError."""
    place = 2
    while True:
        while data[place] == 0xFF and data[place + 1] == 0xFF:  # fill bytes
            place += 1
        marker = data[place + 1]
        if data[place] != 0xFF or marker in (0xD9, 0xDA):
            return
        start = place + 2
        place = start if marker in _BARE_MARKERS else start + int.from_bytes(data[start : start + 2])
        if place > len(data):
            raise IndexError(f"a segment ends at byte {place} of {len(data)}")
        yield marker, start, place


def _jpeg_size(data: bytes) -> tuple[int, int]:
    for marker, start, _ in jpeg_segments(data):
        if marker in _FRAMES:
            height, width = struct.unpack_from(">HH", data, start + 3)
            return height, width
    raise ValueError("it is a JPEG without a frame")


def _is_old_bitmap(data: bytes) -> bool:
    return bool(struct.unpack_from("<I", data, _FILE_HEADER)[0] == 12)


def with_true_colours(data: bytes) -> bytes:
    """A bitmap with a palette as one of 24 bits per pixel, which TensorFlow takes for what it is; others as they are.

    TensorFlow takes the indices into a palette for greys, and passes over how pixels are packed. Raises ValueError for
    a bitmap that it would decode to other pixels, and for one that is cut short.
    """
    if not data.startswith(_BITMAP_MAGIC):
        return data
    if len(data) < _FILE_HEADER + 40:
        raise ValueError("its header was cut short")
    if _is_old_bitmap(data):
        raise ValueError("it is a BMP of OS/2, whose header is another one; save it as PNG")
    first_pixel, header_bytes, width, height, _, num_bits, packing = struct.unpack_from("<IIiiHHI", data, 10)
    if packing not in (0, _BIT_FIELDS):
        raise ValueError("it is a compressed BMP, which would be decoded to other pixels; save it as PNG")
    if (num_bits < 8 and num_bits not in (1, 4)) or width < 1 or not height:
        raise ValueError(f"it is a bitmap of {height}×{width} pixels of {num_bits} bits")
    if packing == _BIT_FIELDS and struct.unpack_from("<3I", data + bytes(12), _FILE_HEADER + 40) not in _USUAL_FIELDS:
        raise ValueError("it is a BMP with the bits of its colours in an order of its own; save it as PNG")
    if num_bits > 8:
        return data
    num_colours = struct.unpack_from("<I", data, 46)[0] or 1 << num_bits
    palette = np.frombuffer(data, np.uint8, num_colours * 4, _FILE_HEADER + header_bytes).reshape(-1, 4)[:, :3]
    line_bytes = (width * num_bits + 31) // 32 * 4
    lines = np.frombuffer(data, np.uint8, abs(height) * line_bytes, first_pixel).reshape(abs(height), line_bytes)
    indices = _unpacked(lines, num_bits)[:, :width]
    if indices.max() >= num_colours:
        raise ValueError(f"it has a pixel of colour {indices.max()}, and {num_colours} colours")
    if num_bits == 8 and (palette == np.arange(num_colours)[:, None]).all():
        return data  # greys
    colours = palette[indices].reshape(abs(height), width * 3)
    pixels = np.pad(colours, ((0, 0), (0, -width * 3 % 4))).tobytes()
    size = struct.calcsize(_TRUE_COLOUR)
    fields = (size + len(pixels), 0, 0, size, size - _FILE_HEADER, width, height, 1, 24, 0, len(pixels), 0, 0, 0, 0)
    return struct.pack(_TRUE_COLOUR, b"BM", *fields) + pixels


def _unpacked(lines: npt.NDArray[np.uint8], num_bits: int) -> npt.NDArray[np.uint8]:
    """Pixels [height, width] of 1, 4 or 8 bits each, packed into bytes."""
    if num_bits == 8:
        return lines
    bits = np.unpackbits(lines, axis=1).reshape(len(lines), -1, num_bits)
    return bits @ (1 << np.arange(num_bits, dtype=np.uint8)[::-1])
