"""Writes HEIC files into ../data/images/heic, each with the same picture as pillow-heif decodes it.

    pip install numpy pillow pillow-heif
    python crates/encoder/tests/golden/heic.py

pillow-heif's wheels hold libheif with an encoder. Grids and crops, which it does not write, are put together of pictures that it wrote.
"""

import io
import struct
from pathlib import Path

import numpy as np
import pillow_heif
from avif import file, item, on_white, scene
from PIL import Image, ImageOps

OUT = Path(__file__).resolve().parents[1] / "data" / "images" / "heic"


def encoded(image, **options):
    out = io.BytesIO()
    image.save(out, "HEIF", **{"quality": 80, **options})
    return out.getvalue()


def write(name, data):
    (OUT / name).write_bytes(data)
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    on_white(image).save((OUT / name).with_suffix(".expected.png"))


def grid(image, columns, rows, cell):
    cells = []
    whole = Image.new(image.mode, (columns * cell[0], rows * cell[1]))
    whole.paste(image)
    for row in range(rows):
        for column in range(columns):
            left, top = column * cell[0], row * cell[1]
            data, properties = item(encoded(whole.crop((left, top, left + cell[0], top + cell[1]))))
            cells.append((b"hvc1", data, properties))
    sides = struct.pack(">BBBBHH", 0, 0, rows - 1, columns - 1, *image.size)
    own = [((b"ispe", struct.pack(">III", 0, *image.size)), 0)]
    references = [(b"dimg", 1, list(range(2, 2 + len(cells))))]
    return file([(b"grid", sides, own), *cells], references=references, brand=b"heic")


def main():
    pillow_heif.register_heif_opener()
    OUT.mkdir(exist_ok=True)
    # libheif 1.15 turns chroma of odd sides by one sample too many.
    image, odd, even = scene(64, 48), scene(45, 27), scene(46, 28)
    translucent = image.copy()
    translucent.putalpha(Image.fromarray((np.mgrid[0:48, 0:64][1] * 4).astype(np.uint8)))
    write("420.heic", encoded(odd, chroma=420))
    write("422.heic", encoded(odd, chroma=422))
    write("444.heic", encoded(odd, chroma=444))
    write("gray.heic", encoded(odd.convert("L")))
    write("alpha.heic", encoded(translucent))
    for orientation in range(2, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        write(f"orientation_{orientation}.heic", encoded(even, exif=exif.tobytes()))
    wide = (np.asarray(odd).astype(np.uint16) << 8) + 128
    out = io.BytesIO()
    pillow_heif.encode("RGB;16", odd.size, wide.astype("<u2").tobytes(), out, quality=90)
    write("10_bits.heic", out.getvalue())
    write("grid.heic", grid(scene(150, 100), 3, 2, (64, 64)))


if __name__ == "__main__":
    main()
