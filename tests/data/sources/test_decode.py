"""Decoding of images, against Pillow's transposition, numpy and hand-made files."""

import struct
import warnings
import zlib
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from purenoise_jax.data.sources.decode import Decoded, decode_image, depth_fault, pixels_of
from purenoise_jax.runtime.errors import DataError
from tests.encoded import encode, png16, tiff16

RNG = np.random.default_rng(0)
SCENE = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)
LOSSLESS: dict[str, tuple[str, dict[str, Any]]] = {
    "png": ("PNG", {}),
    "webp": ("WEBP", {"lossless": True}),
    "bmp": ("BMP", {}),
    "tiff": ("TIFF", {}),
    "tiff, lzw": ("TIFF", {"compression": "tiff_lzw"}),
    "tiff, deflate": ("TIFF", {"compression": "tiff_adobe_deflate"}),
}


def smooth(height: int = 40, width: int = 56) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    waves = [127 + 90 * np.sin(x / (3 + c)) * np.cos(y / (4 + c)) for c in range(3)]
    return (
        (np.stack(waves, -1) + np.random.default_rng(1).normal(0, 8, (height, width, 3)))
        .clip(0, 255)
        .astype(np.uint8)
    )


def from_16(samples: np.ndarray, alpha: np.ndarray | None = None) -> np.ndarray:
    """The conversion in float64: composed over black, 65535 becomes 255."""
    exact = samples / 257 if alpha is None else samples * (alpha / 65535) / 257
    pixels = np.floor(exact + 0.5).astype(np.uint8)
    return np.broadcast_to(pixels, (*pixels.shape[:2], 3))


def check(data: bytes, wanted: np.ndarray) -> Decoded:
    decoded = decode_image(data)
    assert decoded.pixels.dtype == np.uint8 and decoded.pixels.flags.c_contiguous
    np.testing.assert_array_equal(decoded.pixels, wanted)
    return decoded


@pytest.mark.parametrize("kind", LOSSLESS)
def test_lossless_formats_give_back_the_pixels(kind: str) -> None:
    name, options = LOSSLESS[kind]
    assert check(encode(SCENE, name, **options), SCENE).largest is None


def test_gif_and_animations_give_their_first_frame() -> None:
    frames = [Image.fromarray(np.full((4, 4, 3), level, np.uint8)) for level in (200, 90, 10)]
    for kind, options in (("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {}), ("TIFF", {})):
        data = encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        check(data, np.full((4, 4, 3), 200))
    check(
        encode(Image.fromarray(SCENE).quantize(64), "GIF"),
        np.asarray(Image.fromarray(SCENE).quantize(64).convert("RGB")),
    )


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["png", "webp", "tiff", "tiff, lzw", "jpeg"])
def test_exif_orientation(kind: str, orientation: int) -> None:
    name, options = LOSSLESS.get(kind, ("JPEG", {"quality": 95}))
    exif = Image.Exif()
    exif[0x112] = orientation
    data = encode(SCENE, name, exif=exif, **options)
    with Image.open(BytesIO(data)) as image:
        check(data, np.asarray(ImageOps.exif_transpose(image)))
    if name != "JPEG":  # a second oracle: the corner of the scene that a viewer shows at top left
        corner = {
            1: (0, 0),
            2: (0, -1),
            3: (-1, -1),
            4: (-1, 0),
            5: (0, 0),
            6: (-1, 0),
            7: (-1, -1),
            8: (0, -1),
        }
        np.testing.assert_array_equal(decode_image(data).pixels[0, 0], SCENE[corner[orientation]])


def test_exif_orientation_of_16_bits() -> None:
    samples = RNG.integers(0, 65536, (5, 7, 3)).astype(np.uint16)
    for deflated in (False, True):
        data = tiff16(samples, deflated=deflated, t274=6)
        check(data, from_16(samples).swapaxes(0, 1)[:, ::-1])


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_unknown_orientations_turn_nothing(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x112] = orientation
    check(encode(SCENE, "PNG", exif=exif), SCENE)


@pytest.mark.parametrize("exif", [b"garbage", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\xff\xff"])
def test_damaged_exif_turns_nothing(exif: bytes) -> None:
    for kind, options in (("PNG", {}), ("WEBP", {"lossless": True})):
        check(encode(SCENE, kind, exif=b"Exif\0\0" + exif, **options), SCENE)
    plain = decode_image(encode(SCENE, "JPEG")).pixels
    check(encode(SCENE, "JPEG", exif=b"Exif\0\0" + exif), plain)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("interlaced", [False, True])
def test_16_bit_png(channels: int, interlaced: bool) -> None:
    samples = RNG.integers(0, 65536, (11, 13, channels)).astype(np.uint16)
    colour, alpha = (samples, None) if channels % 2 else (samples[..., :-1], samples[..., -1:])
    decoded = check(png16(samples, interlaced=interlaced), from_16(colour, alpha))
    assert decoded.largest == colour.max()


@pytest.mark.parametrize("channels", [1, 3])
def test_16_bit_png_with_a_transparent_colour(channels: int) -> None:
    samples = RNG.integers(0, 65536, (6, 5, channels)).astype(np.uint16)
    samples[2, 3] = samples[0, 0]
    samples[4, 4] = samples[0, 0] ^ 1  # differs only in its low byte
    alpha = np.where((samples == samples[0, 0]).all(-1, keepdims=True), 0, 65535)
    assert (alpha == 0).sum() == 2
    check(png16(samples, clear=samples[0, 0]), from_16(samples, alpha))


@pytest.mark.parametrize("order", ["II", "MM"])
@pytest.mark.parametrize("deflated", [False, True])
def test_16_bit_tiff(order: str, deflated: bool) -> None:
    for channels in (1, 3):
        samples = RNG.integers(0, 65536, (11, 13, channels)).astype(np.uint16)
        assert check(tiff16(samples, order, deflated), from_16(samples)).largest == samples.max()
    samples = RNG.integers(0, 65536, (11, 13, 4)).astype(np.uint16)
    check(tiff16(samples, order, deflated, t338=2), from_16(samples[..., :3], samples[..., 3:]))
    check(tiff16(samples, order, deflated, t338=0), from_16(samples[..., :3]))
    if order == "II":  # Pillow does not read the other one
        grey = samples[..., :1]
        check(tiff16(grey, order, deflated, white_is_0=True), from_16(65535 - grey))


@pytest.mark.parametrize(
    "data",
    [
        tiff16(np.zeros((3, 3, 4), np.uint16), t338=1),  # premultiplied alpha
        tiff16(np.zeros((3, 3, 4), np.uint16), t262=5),  # CMYK
        tiff16(np.zeros((3, 3, 3), np.uint16), t284=2),  # separate channels
        encode(Image.new("F", (3, 3)), "TIFF"),
        encode(Image.new("I", (3, 3)), "TIFF"),
    ],
)
def test_images_that_would_lose_content_are_refused(data: bytes) -> None:
    with pytest.raises(DataError, match="not read; save it as a PNG of 8 or 16 bits"):
        decode_image(data)


def test_16_bit_images_that_use_fewer_bits() -> None:
    assert [bool(depth_fault(x)) for x in (0, 1023, 4095, 16383, 32767)] == [True] * 5
    assert "hold 12 bits" in depth_fault(4095) and "hold 10 bits" in depth_fault(1000)
    assert not depth_fault(32768) and not depth_fault(65535)


def test_transparency_is_composed_over_black() -> None:
    rgba = RNG.integers(0, 256, (16, 16, 4), dtype=np.uint8)
    rgba[0, :, 3], rgba[1, :, 3] = 0, 255
    wanted = np.floor(rgba[..., :3] * (rgba[..., 3:] / 255) + 0.5).astype(np.uint8)
    np.testing.assert_array_equal(wanted[0], 0)
    np.testing.assert_array_equal(wanted[1], rgba[1, :, :3])
    for kind, options in (("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True, "exact": True})):
        check(encode(rgba, kind, **options), wanted)
    grey = rgba[..., 2:]
    check(encode(Image.fromarray(grey, "LA"), "PNG"), np.repeat(wanted[..., 2:], 3, axis=2))


def test_transparent_colours_and_palettes() -> None:
    black = np.zeros(3, np.uint8)
    wanted = np.array([[black, SCENE[0, 1]]])
    image = Image.fromarray(SCENE[:1, :2])
    check(encode(image, "PNG", transparency=tuple(SCENE[0, 0].tolist())), wanted)
    palette = Image.new("P", (2, 1))
    palette.putpalette(SCENE[0, :2].tobytes())
    palette.putpixel((1, 0), 1)
    check(encode(palette, "PNG"), SCENE[:1, :2])
    check(encode(palette, "PNG", transparency=0), wanted)
    check(encode(palette, "GIF", transparency=0), wanted)
    half = np.array([[SCENE[0, 0] * (128 / 255) + 0.5, SCENE[0, 1]]]).astype(np.uint8)
    check(encode(palette, "PNG", transparency=bytes([128, 255])), half)


def test_grey_of_few_bits_uses_the_full_range() -> None:
    checks = np.arange(12).reshape(3, 4) % 2 == 1
    check(encode(Image.fromarray(checks), "PNG"), np.repeat(checks[..., None] * 255, 3, axis=2))
    rows = b"".join(b"\0" + bytes([0b00011011]) for _ in range(2))  # 2 bits: 0 1 2 3
    header = struct.pack(">IIBBBBB", 4, 2, 2, 0, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in parts
    )
    check(data, np.broadcast_to(np.array([0, 85, 170, 255])[None, :, None], (2, 4, 3)))


GOOD_JPEGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "progressive": {"progressive": True},
    "optimised": {"optimize": True},
    "4:4:4": {"subsampling": 0},
    "4:2:2": {"subsampling": 1},
    "restarts": {"restart_marker_blocks": 3},
    "restarts, progressive": {"restart_marker_rows": 1, "progressive": True},
    "RGB": {"keep_rgb": True},
    "best": {"quality": 100},
    "worst": {"quality": 1},
    "comment and profile": {"comment": b"\xff\xd8 no image", "icc_profile": bytes(100_000)},
}


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("case", GOOD_JPEGS)
def test_good_jpegs_are_read_as_pillow_reads_them(mode: str, case: str) -> None:
    data = encode(Image.fromarray(smooth()).convert(mode), "JPEG", **GOOD_JPEGS[case])
    with Image.open(BytesIO(data)) as image:
        wanted = np.asarray(image.convert("RGB"))
    check(data, wanted)
    check(data + b"appended by a camera", wanted)
    check(data[:-2] + b"\xff\xff" + data[-2:], wanted)  # fill bytes, which the format allows
    unknown = bytearray(data)
    if unknown[6:10] == b"JFIF":
        unknown[11] = 9  # a revision about which libjpeg only warns
        check(bytes(unknown), wanted)


@pytest.mark.parametrize("size", [(1, 1), (1, 17), (9, 7), (8, 8)])
def test_small_jpegs(size: tuple[int, int]) -> None:
    for options in ({}, {"progressive": True}, {"subsampling": 0}):
        data = encode(smooth(*size), "JPEG", **options)
        with Image.open(BytesIO(data)) as image:
            check(data, np.asarray(image))


def test_the_thumbnail_in_a_photo_is_not_read_as_the_image() -> None:
    exif = Image.Exif()
    exif[0x10F] = "camera"
    thumbnail = encode(smooth(8, 8), "JPEG")
    data = encode(smooth(), "JPEG", exif=exif.tobytes() + thumbnail)
    assert data.count(b"\xff\xd8\xff") == 2
    check(data, decode_image(encode(smooth(), "JPEG")).pixels)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 4}])
def test_a_jpeg_that_libjpeg_warns_of_is_refused(options: dict[str, Any]) -> None:
    good = encode(smooth(64, 64), "JPEG", quality=92, **options)
    middle = len(good) // 2
    damaged = [
        good[:middle],
        good[:-2],
        good[:middle] + bytes(256) + good[middle + 256 :],
        good[:middle] + bytes(len(good) - middle),
        good[:middle] + good[middle + 300 :],
        good[:-2] + bytes(40) + good[-2:],
    ]
    for number, data in enumerate(damaged):
        with pytest.raises(DataError, match="cannot be read as an image"):
            pytest.fail(f"case {number} was read: {decode_image(data).pixels.shape}")


@pytest.mark.parametrize("kind", [*LOSSLESS, "gif", "jpeg", "webp, lossy"])
def test_an_image_cut_short_is_refused_or_complete(kind: str) -> None:
    """GIF and BMP may lose bytes behind the pixels."""
    others = {"gif": ("GIF", {}), "jpeg": ("JPEG", {}), "webp, lossy": ("WEBP", {})}
    name, options = {**LOSSLESS, **others}[kind]
    good = encode(smooth(20, 24), name, **options)
    wanted = decode_image(good).pixels
    complete = 0
    for length in range(0, len(good), 7 if len(good) > 1000 else 3):
        try:
            np.testing.assert_array_equal(decode_image(good[:length]).pixels, wanted)
            complete += 1
        except DataError as error:
            assert "cannot be read as an image" in str(error)
    assert complete <= 1
    if name not in ("GIF", "BMP"):
        with pytest.raises(DataError):
            decode_image(good[:-1])


def test_an_image_that_unpacks_to_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode(np.zeros((40, 60, 3), np.uint8), "PNG")
    for limit in (2000, 1000):  # Pillow warns above its limit, and raises above twice that
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(DataError, match="exceeds limit"):
            decode_image(data)


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"<html></html>", b"\0\0\0\x1cftypheic", b"RIFF"])
def test_bytes_that_are_not_an_image_are_refused(data: bytes) -> None:
    with pytest.raises(DataError, match="cannot be read as an image") as refusal:
        decode_image(data)
    assert "0x" not in str(refusal.value)


def test_decoding_emits_no_warnings() -> None:
    data = encode(SCENE, "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        decode_image(data)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"])
def test_an_opened_image_has_the_pixels_of_its_file(mode):
    samples = np.random.default_rng(0).integers(0, 256, (5, 7, 4), np.uint8)
    image = Image.fromarray(samples).convert("RGB").convert(mode.removesuffix("A"))
    if mode.endswith("A"):
        image = Image.fromarray(samples).convert(mode)
    kind = "TIFF" if mode in ("CMYK", "YCbCr", "PA") else "PNG"
    if mode == "PA":
        image = image.convert("P")
    content = encode(image, kind)
    with Image.open(BytesIO(content)) as opened:
        np.testing.assert_array_equal(pixels_of(opened), decode_image(content).pixels)


def test_an_opened_image_is_turned_upright():
    image = Image.fromarray(np.arange(36, dtype=np.uint8).reshape(3, 4, 3))
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        content = encode(image, "PNG", exif=exif)
        with Image.open(BytesIO(content)) as opened:
            np.testing.assert_array_equal(pixels_of(opened), decode_image(content).pixels)


def test_an_opened_image_of_more_bits_or_half_a_file_is_refused():
    with pytest.raises(DataError, match="Pillow's mode I;16 is not read; give its path"):
        pixels_of(Image.fromarray(np.zeros((2, 2), np.uint16)))
    content = encode(smooth(), "JPEG")
    with Image.open(BytesIO(content[:-300])) as opened, pytest.raises(DataError):
        pixels_of(opened)
