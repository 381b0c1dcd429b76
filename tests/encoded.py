"""Encodes images as files, also as 16-bit PNG and TIFF, which Pillow cannot write."""

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image

# First column, first row and steps of the seven passes of an interlaced PNG.
ADAM7 = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)
COLOUR_TYPES = {1: 0, 3: 2, 2: 4, 4: 6}  # by number of channels


def encode(image: np.ndarray | Image.Image, kind: str, **options: Any) -> bytes:
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png16(samples: np.ndarray, clear: np.ndarray | None = None, interlaced: bool = False) -> bytes:
    """A PNG of uint16[H, W, C] that uses every row filter; `clear` is the transparent colour."""
    height, width, channels = samples.shape
    if interlaced:
        passes = [samples[y::dy, x::dx] for x, y, dx, dy in ADAM7]
        rows = b"".join(_filtered(part) for part in passes if part.size)
    else:
        rows = _filtered(samples)
    header = struct.pack(">IIBBBBB", width, height, 16, COLOUR_TYPES[channels], 0, 0, interlaced)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    if clear is not None:
        parts.insert(1, (b"tRNS", clear.astype(">u2").tobytes()))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*part) for part in parts)


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _filtered(samples: np.ndarray) -> bytes:
    pixel = 2 * samples.shape[2]
    above = np.zeros(samples.shape[1] * pixel, int)
    rows = b""
    for number, row in enumerate(samples):
        here = np.frombuffer(row.astype(">u2").tobytes(), np.uint8).astype(int)
        left, corner = (np.concatenate([np.zeros(pixel, int), x[:-pixel]]) for x in (here, above))
        guess = left + above - corner
        far = [abs(guess - x) for x in (left, above, corner)]
        nearest = np.argmin(far, axis=0)  # the first of equals, as the format requires
        paeth = np.choose(nearest, [left, above, corner])
        filters = [0, left, above, (left + above) // 2, paeth]
        rows += (
            bytes([number % 5]) + ((here - filters[number % 5]) % 256).astype(np.uint8).tobytes()
        )
        above = here
    return rows


def tiff16(
    samples: np.ndarray,
    order: str = "II",
    deflated: bool = False,
    white_is_0: bool = False,
    **tags: int,
) -> bytes:
    """A TIFF of uint16[H, W, C]; `tags` are further tags by number with their value: `t338=2`."""
    height, width, channels = samples.shape
    end = {"II": "<", "MM": ">"}[order]
    data = samples.astype(f"{end}u2").tobytes()
    data = zlib.compress(data) if deflated else data
    photometric = 2 if channels > 2 else int(not white_is_0)
    entries: dict[int, list[int]] = {
        256: [width], 257: [height], 258: [16] * channels, 259: [8 if deflated else 1],
        262: [photometric], 273: [0], 277: [channels], 278: [height], 279: [len(data)], 284: [1],
    }  # fmt: skip
    entries |= {int(name[1:]): [value] for name, value in tags.items()}
    after = 8 + 2 + 12 * len(entries) + 4
    bits = struct.pack(f"{end}{channels}H", *entries[258])
    entries[273] = [after + len(bits)]
    table = b""
    for tag in sorted(entries):
        kind = "I" if tag in (273, 279) else "H"
        value = struct.pack(f"{end}{len(entries[tag])}{kind}", *entries[tag])
        value = struct.pack(f"{end}I", after) if len(value) > 4 else value.ljust(4, b"\0")
        table += struct.pack(f"{end}HHI", tag, 4 if kind == "I" else 3, len(entries[tag])) + value
    start = order.encode() + struct.pack(f"{end}HIH", 42, 8, len(entries))
    return start + table + bytes(4) + bits + data
