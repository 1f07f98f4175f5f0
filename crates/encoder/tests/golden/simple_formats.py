"""Writes QOI, PNM and JPEG files into ../data/images/cases, each with the same picture as Pillow decodes it.

Translucent pixels are blended with white, and the JPEG's expected picture is that of the file without what stands before its first marker.
"""

import io
from pathlib import Path

import numpy as np
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
    if image.mode == "RGBA":
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        white.alpha_composite(image)
        image = white
    image.convert("RGB").save((CASES / name).with_suffix(".expected.png"))


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


if __name__ == "__main__":
    main()
