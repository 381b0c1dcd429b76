"""Decodes one encoded image to pixels, by the same rules for every source.

docs/data.md lists the rules and their reasons.
"""

import dataclasses
import io
import re
import struct
import sys
import warnings
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import simplejpeg
from PIL import ExifTags, Image, ImageFile, TiffImagePlugin, UnidentifiedImageError

from purenoise_jax.runtime.errors import DataError

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
_PNG = b"\x89PNG\r\n\x1a\n"
# Modes of at most 8 bits. Pillow would silently clip 32 bits and floats.
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")
_SAVE_AS = "save it as a PNG of 8 or 16 bits"
# Pillow's names of stored 16-bit samples; the last letter is their byte order.
_16_BIT = re.compile(r"(RGB|RGBA|RGBX);16([BLN])")
_OTHER_BYTE_ORDER = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}

_DAMAGE = (
    OSError,
    EOFError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    AssertionError,
    NotImplementedError,
    RuntimeError,
    MemoryError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)
# First words of libjpeg's warnings that concern no pixel, and of simplejpeg's error for a chroma
# subsampling that it does not support and Pillow does.
_HARMLESS = (
    "Warning: unknown JFIF revision number",
    "Invalid SOS parameters for sequential JPEG",
    "Corrupt JPEG data: bad ICC marker",
    "tjDecompressHeader3(): Could not determine subsampling",
)
# Maps from the stored pixels to those that a viewer shows, by the value of the EXIF orientation.
_UPRIGHT: dict[Any, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: stored.swapaxes(0, 1)[:, ::-1],
    7: lambda stored: stored[::-1, ::-1].swapaxes(0, 1),
    8: lambda stored: stored.swapaxes(0, 1)[::-1],
}


@dataclasses.dataclass(frozen=True)
class Decoded:
    """A decoded image.

    Attributes:
        pixels: `uint8[H, W, 3]`, RGB, values 0..255, upright.
        largest: the largest sample without alpha, 0..65535, of an image with 16 bits per sample;
            None for any other image.
    """

    pixels: np.ndarray
    largest: int | None = None


def decode_image(data: bytes) -> Decoded:
    """Decodes a PNG, JPEG, WebP, BMP, TIFF or GIF image; the first frame if there are several.

    Grey, palette and CMYK images become RGB. Transparency is composed over black. The EXIF
    orientation is applied. 16-bit samples v become round(v / 257); `depth_fault` checks whether the
    images of a split use all 16 bits.

    Args:
        data: the content of a file. Its first bytes determine the format.

    Returns:
        The image.

    Raises:
        DataError: the data are damaged, of another format, of a kind that would lose content, or
            unpack to more pixels than Pillow's limit. The message does not name the image.
    """
    try:
        # Set here, because filters set on import would also affect the importing program.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return _decode(data)
    except DataError:
        raise
    except UnidentifiedImageError:
        raise DataError(
            "cannot be read as an image (it is no PNG, JPEG, WebP, BMP, TIFF or GIF, or of a kind "
            "of them that is not read)"
        ) from None
    except _DAMAGE as error:
        raise DataError(f"cannot be read as an image ({error})") from error


def pixels_of(image: Image.Image) -> np.ndarray:
    """The pixels of an image that Pillow has opened, by the rules of `decode_image`.

    Args:
        image: of at most 8 bits per sample.

    Returns:
        `uint8[H, W, 3]`, RGB, values 0..255, upright.

    Raises:
        DataError: the image has more bits, or its file is damaged.
    """
    if image.mode not in _MODES:
        raise DataError(f"an image of Pillow's mode {image.mode} is not read; give its path")
    try:
        pixels, turn = _read_8_bit(image), _UPRIGHT.get(_orientation(image))
    except _DAMAGE as error:
        raise DataError(f"cannot be read as an image ({error})") from error
    return np.ascontiguousarray(turn(pixels) if turn else pixels)


def depth_fault(largest: int, images: str = "of this split") -> str:
    """Returns the fault of a split whose 16-bit images never use the highest bit; "" if one does.

    READING: the papers have 8-bit images. Cameras and scanners store 10, 12 or 14 bits in 16
    without marking them; divided by 257 they would be nearly black. A single image may be dark, so
    all images of a split are judged together.

    Args:
        largest: the largest sample of all 16-bit images of a split, 0..65535.
        images: says which images these are.
    """
    bits = max(largest.bit_length(), 1)
    if bits == 16:
        return ""
    return (
        f"no 16-bit image {images} has a value above {largest} of 65535, so they seem to "
        f"hold {bits} bits and would be read nearly black; scale them to 0..65535, or save them as "
        "8 bit"
    )


def _decode(data: bytes) -> Decoded:
    if data.startswith(_PNG):
        _check_png(data)
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        layout = _layout(image)
        _refuse_losses(image, layout)
        largest = None
        if _is_16_bit(image, layout):
            samples, alpha = _read_16_bit(image, layout, data)
            largest = int(samples.max())
            pixels = _compose(samples, alpha)
        elif image.format == "JPEG":
            pixels = _read_jpeg(image, data)
        else:
            pixels = _read_8_bit(image)
        turn = _UPRIGHT.get(_orientation(image))
        return Decoded(np.ascontiguousarray(turn(pixels) if turn else pixels), largest)


def _layout(image: ImageFile.ImageFile) -> str:
    """Returns Pillow's name of the storage of samples, such as "RGB;16B"; "" for WebP."""
    stored = image.tile[0].args if image.tile else ""
    return str(stored[0] if isinstance(stored, tuple) and stored else stored)


def _is_16_bit(image: ImageFile.ImageFile, layout: str) -> bool:
    """Returns whether an image has 16 bits per sample, in a layout that can be read."""
    return bool(image.mode.startswith("I;16") or _16_BIT.fullmatch(layout) or layout == "LA;16B")


def _refuse_losses(image: ImageFile.ImageFile, layout: str) -> None:
    """Refuses images that Pillow would read with changed values."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        bits = max(image.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (1,)))
        planes = image.tag_v2.get(TiffImagePlugin.PLANAR_CONFIGURATION, 1)
        if bits > 8 and (bits != 16 or planes != 1):
            separate = " with separate channels" if planes != 1 else ""
            raise DataError(f"a TIFF of {bits} bits{separate} is not read; {_SAVE_AS}")
    if _is_16_bit(image, layout):
        return
    # In a BMP, 16 is the number of bits of all channels together.
    deep = ";16" in layout and image.format != "BMP"
    if deep or image.mode not in _MODES:
        kind = layout if deep else image.mode
        raise DataError(f"an image of Pillow's mode {kind} is not read; {_SAVE_AS}")


def _read_8_bit(image: Image.Image) -> np.ndarray:
    """Reads an image of at most 8 bits, not yet turned upright, as `uint8[H, W, 3]`."""
    image.load()
    if not image.has_transparency_data:
        return np.asarray(image.convert("RGB"))
    rgba = np.asarray(image.convert("RGBA")).astype(np.uint16)
    return ((rgba[..., :3] * rgba[..., 3:] + 127) // 255).astype(np.uint8)


def _read_16_bit(
    image: ImageFile.ImageFile, layout: str, data: bytes
) -> tuple[np.ndarray, np.ndarray | None]:
    """Reads 16-bit samples `uint16[H, W, C]`, C 1 or 3, and alpha `uint16[H, W, 1]` or None.

    Of images with several channels Pillow keeps only the high bytes. With the opposite byte order
    it keeps the low bytes instead, so such images are read twice.
    """
    if image.mode.startswith("I;16"):
        image.load()
        samples: np.ndarray = np.asarray(image).astype(np.uint16)[..., None]
        # In such a TIFF white is 0, which Pillow inverts only for 8 bits.
        if isinstance(image, TiffImagePlugin.TiffImageFile) and not image.tag_v2.get(
            TiffImagePlugin.PHOTOMETRIC_INTERPRETATION, 0
        ):
            samples = np.invert(samples)
    elif layout == "LA;16B":
        # Four bytes per pixel, like RGBA.
        high_low = _bytes_as(image, "RGBA").astype(np.uint16)
        samples = high_low[..., 0::2] << 8 | high_low[..., 1::2]
    else:
        other = layout[:-1] + _OTHER_BYTE_ORDER[layout[-1]]
        with Image.open(io.BytesIO(data), formats=FORMATS) as again:
            low = _bytes_as(again, other)
        samples = _bytes_as(image, layout).astype(np.uint16) << 8 | low
    if samples.shape[2] in (2, 4):
        return samples[..., :-1], samples[..., -1:]
    key = image.info.get("transparency")
    if key is None:
        return samples, None
    transparent = (samples == np.array(key, np.uint16)).all(axis=2, keepdims=True)
    return samples, np.where(transparent, 0, 65535).astype(np.uint16)


def _bytes_as(image: ImageFile.ImageFile, layout: str) -> np.ndarray:
    image.tile = [
        tile._replace(args=(layout, *tile.args[1:]) if isinstance(tile.args, tuple) else layout)
        for tile in image.tile
    ]
    image.load()
    return np.asarray(image)


def _compose(samples: np.ndarray, alpha: np.ndarray | None) -> np.ndarray:
    """Composes 16-bit samples over black, `uint8[H, W, 3]`, rounding once."""
    if alpha is None:
        scaled = (samples.astype(np.uint32) + 128) // 257
    else:
        scaled = (samples.astype(np.uint64) * alpha * 255 + 65535**2 // 2) // 65535**2
    return np.broadcast_to(scaled.astype(np.uint8), (*samples.shape[:2], 3))


def _orientation(image: Image.Image) -> Any:
    """Returns the EXIF orientation of an image of any format; None if it cannot be read.

    Pillow itself turns a TIFF upright when it loads it, and removes the tag.
    """
    try:
        return image.getexif().get(ExifTags.Base.Orientation)
    except _DAMAGE:  # Viewers do not turn such an image either.
        return None


def _check_png(data: bytes) -> None:
    """Compares the checksum of every chunk; Pillow does not compare those of the pixels."""
    start, kind = len(_PNG), b""
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, start)
        end = start + 8 + length
        if struct.unpack_from(">I", data, end) != (zlib.crc32(data[start + 4 : end]),):
            raise ValueError(f"the checksum of its chunk {ascii(kind)[2:-1]} is wrong")
        start = end + 4


def _read_jpeg(image: ImageFile.ImageFile, data: bytes) -> np.ndarray:
    """Reads a JPEG, not yet turned upright, as `uint8[H, W, 3]`; refuses one that libjpeg warns of.

    Pillow drops libjpeg's warnings. Both libraries decode to the same pixels, simplejpeg in less
    time.
    """
    try:
        # Of four channels it would make RGB by a rule of its own.
        if image.mode in ("RGB", "L"):
            return simplejpeg.decode_jpeg(data, "RGB", strict=True)
        # At an eighth of the size, which skips only the inverse transform: all data are still read.
        simplejpeg.decode_jpeg(
            data,
            "GRAY",
            fastdct=True,
            fastupsample=True,
            min_height=1,
            min_width=1,
            min_factor=8,
            strict=True,
        )
    except ValueError as error:
        if not str(error).startswith(_HARMLESS):
            raise
    return _read_8_bit(image)
