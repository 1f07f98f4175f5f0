"""Writes QOI, PNM, ICO, JPEG XL and JPEG files into ../data/images/cases, each with the same picture as Pillow decodes it.

    pip install numpy pillow pillow-jxl-plugin
    python crates/encoder/tests/golden/simple_formats.py

The plugin writes and reads JPEG XL with libjxl. Translucent pixels are blended with white, and the JPEG's expected picture is that of the file without what stands before its first marker.
"""

import io
import struct
from pathlib import Path

import numpy as np
import pillow_jxl  # noqa: F401
from PIL import Image

CASES = Path(__file__).resolve().parents[1] / "data" / "images" / "cases"


def picture(width: int, height: int) -> np.ndarray:
    """Slopes, runs and noise, so that every kind of QOI's chunks occurs."""
    y, x = np.mgrid[0:height, 0:width]
    slopes = np.stack([x * 2 + y, x + 2 * y, 3 * x], -1)
    noise = np.random.default_rng(5).integers(0, 256, (height, width, 3))
    runs = np.repeat((y // 4 * 40)[..., None], 3, -1)
    third = (x * 3 // width)[..., None]
    return np.select([third == 0, third == 1], [slopes, runs], noise).astype(np.uint8)


def write(name: str, data: bytes, without: int = 0) -> None:
    (CASES / name).write_bytes(data)
    image = Image.open(io.BytesIO(data[without:]))
    if image.mode in ("RGBA", "LA"):
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        white.alpha_composite(image)
        image = white
    image.convert("RGB").save((CASES / name).with_suffix(".expected.png"))


def icon(*pictures: tuple[int, int, int, bytes]) -> bytes:
    """A directory of pictures, each width, height, bits and bytes."""
    head, body = struct.pack("<HHH", 0, 1, len(pictures)), b""
    for width, height, bits, data in pictures:
        offset = 6 + 16 * len(pictures) + len(body)
        head += struct.pack("<BBBBHHII", width % 256, height % 256, 0, 0, 1, bits, len(data), offset)
        body += data
    return head + body


def bitmap(image: Image.Image, mask: np.ndarray, bits: int) -> bytes:
    """What an icon has of a bitmap: header, palette and rows from below, and behind them the mask."""
    width, height = image.size
    header = struct.pack("<IiiHHIIiiII", 40, width, 2 * height, 1, bits, 0, 0, 0, 0, 0, 0)
    pixels = np.array(image)[::-1]
    if bits == 32:
        rows = np.concatenate([pixels[..., 2::-1], pixels[..., 3:]], -1).tobytes()
    elif bits == 24:
        padded = np.zeros((height, -(-width * 3 // 4) * 4), np.uint8)
        padded[:, : width * 3] = pixels[..., ::-1].reshape(height, -1)
        rows = padded.tobytes()
    else:
        palette = np.array(image.getpalette() + [0] * 768)[:768].reshape(256, 3)[: 1 << bits].astype(np.uint8)
        header += np.concatenate([palette[:, ::-1], np.zeros((1 << bits, 1), np.uint8)], 1).tobytes()
        unpacked = (pixels[..., None] >> np.arange(bits)[::-1] & 1).reshape(height, -1).astype(np.uint8)
        packed = np.packbits(unpacked, 1)
        padded = np.zeros((height, -(-packed.shape[1] // 4) * 4), np.uint8)
        padded[:, : packed.shape[1]] = packed
        rows = padded.tobytes()
    hidden = np.zeros((height, -(-width // 32) * 4), np.uint8)
    hidden[:, : -(-width // 8)] = np.packbits(mask[::-1], 1)
    return header + rows + hidden.tobytes()


def write_icons(image: Image.Image) -> None:
    width, height = image.size
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    mask = ((x + y) % 5 == 0).astype(np.uint8)
    opaque = image.copy()
    opaque.putalpha(255)
    translucent = image.copy()
    translucent.putalpha(Image.fromarray((x * 5 % 256).astype(np.uint8)))
    small = image.resize((16, 16))
    few = image.quantize(16)
    write("ico_png.ico", icon((width, height, 32, encoded(translucent, "PNG"))))
    write("ico_32_bits.ico", icon((width, height, 32, bitmap(translucent, mask, 32))))
    write("ico_24_bits_with_mask.ico", icon((width, height, 24, bitmap(image, mask, 24))))
    write("ico_8_bits_with_mask.ico", icon((width, height, 8, bitmap(image.quantize(200), mask, 8))))
    write("ico_4_bits_with_mask.ico", icon((width, height, 4, bitmap(few, mask, 4))))
    write("ico_1_bit.ico", icon((width, height, 1, bitmap(image.quantize(2), mask, 1))))
    write("ico_largest_of_three.ico", icon(
        (16, 16, 24, bitmap(small, mask[:16, :16], 24)),
        (width, height, 24, bitmap(image, mask, 24)),
        (12, 12, 32, encoded(opaque.resize((12, 12)), "PNG")),
    ))  # fmt: skip


def write_jxl(image: Image.Image) -> None:
    """Bare and boxed, lossless and lossy, gray, alpha, 16 bits, progressive, and larger than one group."""
    large = Image.fromarray(picture(300, 270))
    translucent = image.copy()
    translucent.putalpha(Image.fromarray((np.mgrid[0:20, 0:45][1] * 5 % 256).astype(np.uint8)))
    write("jxl_lossless.jxl", encoded(image, "JXL", lossless=True))
    write("jxl_lossless_fast.jxl", encoded(large, "JXL", lossless=True, effort=1))
    write("jxl_lossless_gray.jxl", encoded(image.convert("L"), "JXL", lossless=True))
    write("jxl_lossless_alpha.jxl", encoded(translucent, "JXL", lossless=True))
    write("jxl_lossy.jxl", encoded(image, "JXL", quality=90))
    write("jxl_lossy_groups.jxl", encoded(large, "JXL", quality=80))
    write("jxl_lossy_gray.jxl", encoded(large.convert("L"), "JXL", quality=90))
    write("jxl_lossy_alpha.jxl", encoded(translucent, "JXL", quality=90))
    write("jxl_of_jpeg.jxl", encoded(Image.open(io.BytesIO(encoded(large, "JPEG", quality=80))), "JXL", lossless_jpeg=True))
    write("jxl_in_boxes.jxl", encoded(image, "JXL", quality=90, use_container=True))


def encoded(image: Image.Image, form: str, **options: int) -> bytes:
    data = io.BytesIO()
    image.save(data, form, **options)
    return data.getvalue()


def main() -> None:
    pixels = picture(45, 20)
    image = Image.fromarray(pixels)
    write("qoi_rgb.qoi", encoded(image, "QOI"))
    translucent = image.copy()
    translucent.putalpha(Image.fromarray((np.mgrid[0:20, 0:45][1] % 2 * 255).astype(np.uint8)))
    write("qoi_rgba.qoi", encoded(translucent, "QOI"))
    write("pnm_bytes_rgb.ppm", encoded(image, "PPM"))
    write("pnm_bytes_gray.pgm", encoded(image.convert("L"), "PPM"))
    write("pnm_bytes_bits.pbm", encoded(image.convert("1"), "PPM"))
    words = lambda values: b" ".join(b"%d" % value for value in values.ravel())  # noqa: E731
    write("pnm_text_rgb.ppm", b"P3 # a comment\n45 20\n# another\n255\n" + words(pixels))
    write("pnm_text_gray_of_10.pgm", b"P2\n45 20 10\n" + words(pixels[..., 0] // 26))
    write("pnm_text_bits.pbm", b"P1\n45 20\n" + b"".join(b"%d" % bit for bit in (pixels[..., 0] > 99).ravel()))
    write("pnm_bytes_rgb_of_1000.ppm", b"P6 45 20 1000\n" + (pixels.astype(int) * 1000 // 255).astype(">u2").tobytes())
    lead = b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\n\r\n"
    write("jpeg_behind_other_bytes.jpg", lead + encoded(image, "JPEG", quality=90, subsampling=0), len(lead))
    write_icons(image)
    write_jxl(image)


if __name__ == "__main__":
    main()
