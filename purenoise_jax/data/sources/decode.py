"""From the bytes of one encoded image to its pixels: one set of rules for every source.

The rules, with their reasons, are in docs/data.md.
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
# Of 8 bits and fewer. Pillow would clip 32 bits and floats without a word.
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")
_SAVE_AS = "save it as a PNG of 8 or 16 bits"
# Pillow's names of 16-bit samples as they are stored, with the order of their bytes.
_DEEP = re.compile(r"(RGB|RGBA|RGBX);16([BLN])")
_OTHER_ORDER = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}

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
# The beginnings of libjpeg's warnings about what does not change a pixel, and of what the checker
# says of a JPEG with a subsampling that it does not know and the decoder does.
_NO_DAMAGE = (
    "Warning: unknown JFIF revision number",
    "Invalid SOS parameters for sequential JPEG",
    "Corrupt JPEG data: bad ICC marker",
    "tjDecompressHeader3(): Could not determine subsampling",
)
# By the value of the EXIF orientation: from what is stored to what a viewer shows.
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
    """One image.

    Attributes:
        pixels: `uint8[H, W, 3]`, RGB, values 0..255, upright.
        largest: of an image with 16 bits per sample, its largest sample, 0..65535, alpha left out;
            None for any other.
    """

    pixels: np.ndarray
    largest: int | None = None


def decode_image(data: bytes) -> Decoded:
    """Decodes a PNG, JPEG, WebP, BMP, TIFF or GIF image; of several frames, the first.

    Grey, palette and CMYK become RGB. Transparency is composed over black. The EXIF orientation is
    applied. 16-bit samples v become round(v / 257); `depth_fault` judges whether they use their
    range.

    Args:
        data: the content of a file. What it begins with says which format it has.

    Returns:
        The image.

    Raises:
        DataError: the data are damaged, of another format, of a kind that would lose content, or
            unpack to more pixels than Pillow takes for harmless. The message leaves out the name.
    """
    try:
        # A module-wide filter of ours would be one for the program that imports us as well.
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


def depth_fault(largest: int) -> str:
    """Says what is wrong with 16-bit images none of which uses the highest bit; "" if one does.

    READING: the papers have 8-bit images. Cameras and scanners store 10, 12 or 14 bits in 16
    without saying so; divided by 257 they would be nearly black. One image may be dark, so that all
    of a split are judged together.

    Args:
        largest: the largest sample of all 16-bit images of a split, 0..65535.
    """
    bits = max(largest.bit_length(), 1)
    if bits == 16:
        return ""
    return (
        f"no 16-bit image of this split has a value above {largest} of 65535, so that they seem to "
        f"hold {bits} bits and would be read nearly black; scale them to 0..65535, or save them as "
        "8 bit"
    )


def _decode(data: bytes) -> Decoded:
    if data.startswith(_PNG):
        _check_png(data)
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        layout = _layout(image)
        _refuse_losses(image, layout)
        if image.format == "JPEG":
            _check_jpeg(data)
        largest = None
        if _is_deep(image, layout):
            samples, alpha = _read_deep(image, layout, data)
            largest = int(samples.max())
            pixels = _compose(samples, alpha)
        else:
            pixels = _read_shallow(image)
        turn = _UPRIGHT.get(_orientation(image))
        return Decoded(np.ascontiguousarray(turn(pixels) if turn else pixels), largest)


def _layout(image: ImageFile.ImageFile) -> str:
    """Pillow's name of how samples are stored, such as "RGB;16B"; "" for WebP, which has none."""
    stored = image.tile[0].args if image.tile else ""
    return str(stored[0] if isinstance(stored, tuple) and stored else stored)


def _is_deep(image: ImageFile.ImageFile, layout: str) -> bool:
    """Whether an image has 16 bits per sample, in a form that is read."""
    return bool(image.mode.startswith("I;16") or _DEEP.fullmatch(layout) or layout == "LA;16B")


def _refuse_losses(image: ImageFile.ImageFile, layout: str) -> None:
    """Refuses what Pillow would read with another value than the file has."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        bits = max(image.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (1,)))
        planes = image.tag_v2.get(TiffImagePlugin.PLANAR_CONFIGURATION, 1)
        if bits > 8 and (bits != 16 or planes != 1):
            apart = ", each channel apart," if planes != 1 else ""
            raise DataError(f"a TIFF of {bits} bits{apart} is not read; {_SAVE_AS}")
    if _is_deep(image, layout):
        return
    # In a BMP, 16 are the bits of all channels together.
    deep = ";16" in layout and image.format != "BMP"
    if deep or image.mode not in _MODES:
        kind = layout if deep else image.mode
        raise DataError(f"an image of Pillow's mode {kind} is not read; {_SAVE_AS}")


def _read_shallow(image: ImageFile.ImageFile) -> np.ndarray:
    """`uint8[H, W, 3]` of an image of 8 bits or fewer, as stored."""
    image.load()
    if not image.has_transparency_data:
        return np.asarray(image.convert("RGB"))
    rgba = np.asarray(image.convert("RGBA")).astype(np.uint16)
    return ((rgba[..., :3] * rgba[..., 3:] + 127) // 255).astype(np.uint8)


def _read_deep(
    image: ImageFile.ImageFile, layout: str, data: bytes
) -> tuple[np.ndarray, np.ndarray | None]:
    """16-bit samples `uint16[H, W, C]`, C 1 or 3, and alpha `uint16[H, W, 1]` if there is any.

    Pillow keeps only the higher byte of several channels. Told that the bytes have the other order,
    it keeps the lower one.
    """
    if image.mode.startswith("I;16"):
        image.load()
        samples: np.ndarray = np.asarray(image).astype(np.uint16)[..., None]
        # White is 0, which Pillow heeds for 8 bits only.
        if isinstance(image, TiffImagePlugin.TiffImageFile) and not image.tag_v2.get(
            TiffImagePlugin.PHOTOMETRIC_INTERPRETATION, 0
        ):
            samples = np.invert(samples)
    elif layout == "LA;16B":
        # Four bytes a pixel, as RGBA has them.
        high_low = _bytes_as(image, "RGBA").astype(np.uint16)
        samples = high_low[..., 0::2] << 8 | high_low[..., 1::2]
    else:
        other = layout[:-1] + _OTHER_ORDER[layout[-1]]
        with Image.open(io.BytesIO(data), formats=FORMATS) as again:
            low = _bytes_as(again, other)
        samples = _bytes_as(image, layout).astype(np.uint16) << 8 | low
    if samples.shape[2] in (2, 4):
        return samples[..., :-1], samples[..., -1:]
    key = image.info.get("transparency")
    if key is None:
        return samples, None
    clear = (samples == np.array(key, np.uint16)).all(axis=2, keepdims=True)
    return samples, np.where(clear, 0, 65535).astype(np.uint16)


def _bytes_as(image: ImageFile.ImageFile, layout: str) -> np.ndarray:
    image.tile = [
        tile._replace(args=(layout, *tile.args[1:]) if isinstance(tile.args, tuple) else layout)
        for tile in image.tile
    ]
    image.load()
    return np.asarray(image)


def _compose(samples: np.ndarray, alpha: np.ndarray | None) -> np.ndarray:
    """`uint8[H, W, 3]` of 16-bit samples over black, rounded once."""
    if alpha is None:
        scaled = (samples.astype(np.uint32) + 128) // 257
    else:
        scaled = (samples.astype(np.uint64) * alpha * 255 + 65535**2 // 2) // 65535**2
    return np.broadcast_to(scaled.astype(np.uint8), (*samples.shape[:2], 3))


def _orientation(image: Image.Image) -> Any:
    """The EXIF orientation, also of formats other than JPEG; None if it cannot be read.

    Pillow turns TIFF itself while it loads, and forgets the tag.
    """
    try:
        return image.getexif().get(ExifTags.Base.Orientation)
    except _DAMAGE:  # as viewers do, which show such an image as it is stored
        return None


def _check_png(data: bytes) -> None:
    """Compares the check sum of every chunk; Pillow leaves out those of the pixels."""
    place, kind = len(_PNG), b""
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, place)
        end = place + 8 + length
        if struct.unpack_from(">I", data, end) != (zlib.crc32(data[place + 4 : end]),):
            raise ValueError(f"the check sum of its chunk {ascii(kind)[2:-1]} is wrong")
        place = end + 4


def _check_jpeg(data: bytes) -> None:
    """Refuses what libjpeg warns of: Pillow hands on the pixels and drops the warning.

    At an eighth of the size all of the data is still decoded, but for the transform.
    """
    try:
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
        if not str(error).startswith(_NO_DAMAGE):
            raise
