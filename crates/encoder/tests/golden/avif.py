"""Writes AVIF files into ../data/images/cases, each with the same picture as Pillow decodes it, and animations into ../frames.

    pip install numpy pillow
    python crates/encoder/tests/golden/avif.py

Pillow's wheels hold libavif; avifenc (Debian's libavif-bin) writes more than 8 bits. What neither writes (grids, crops, other colors) is
put together here of pictures that Pillow wrote. Translucent pixels are blended with white. Pillow does not crop; the expected picture is cropped here.
"""

import io
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

sys.path.insert(0, str(Path(__file__).parent))
from simple_formats import CASES, FRAMES, picture  # noqa: E402


def scene(width, height):
    """Smooth colors with edges, which lossy coding keeps well."""
    y, x = np.mgrid[0:height, 0:width].astype(float)
    smooth = np.stack([x * 255 / width, y * 255 / height, 128 + 100 * np.sin(x / 7) * np.cos(y / 9)], -1)
    smooth[height // 4 : height // 2, width // 4 : width // 2] = (230, 40, 20)
    return Image.fromarray(smooth.clip(0, 255).astype(np.uint8))


def encoded(image, **options):
    out = io.BytesIO()
    image.save(out, "AVIF", **{"quality": 80, "speed": 6, **options})
    return out.getvalue()


def with_avifenc(image, *options):
    with tempfile.TemporaryDirectory() as folder:
        image.save(f"{folder}/picture.png")
        command = ["avifenc", "--min", "4", "--max", "12", *options, f"{folder}/picture.png", f"{folder}/picture.avif"]
        subprocess.run(command, check=True, capture_output=True)
        return Path(f"{folder}/picture.avif").read_bytes()


# --- boxes ----------------------------------------------------------------------------------------


def box(kind, *bodies):
    body = b"".join(bodies)
    return struct.pack(">I4s", len(body) + 8, kind) + body


def full(kind, version, flags, *bodies):
    return box(kind, struct.pack(">I", version << 24 | flags), *bodies)


def children(data):
    at, found = 0, []
    while at + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        found.append((kind, data[at + 8 : at + size]))
        at += size
    return found


def child(data, *path):
    for kind in path:
        data = next(body for name, body in children(data) if name == kind)
        if kind in (b"meta", b"iinf"):
            data = data[4:] if kind == b"meta" else data[6:]
    return data


def item(avif, number=0):
    """The bytes and the properties of an item that Pillow wrote: what it is made of, color, orientation."""
    meta = child(avif, b"meta")
    places = child(meta, b"iloc")
    version, sizes, at = places[0], places[4] << 8 | places[5], 6

    def take(size):
        nonlocal at
        at += size
        return int.from_bytes(places[at - size : at], "big")

    for _ in range(take(2) and number + 1):
        take(2 if version == 0 else 4)  # Number, and of later versions where the bytes lie.
        take(2)
        base = take(sizes >> 4 & 15)
        extents = [(take(sizes & 15 if version else 0), base + take(sizes >> 12), take(sizes >> 8 & 15)) for _ in range(take(2))]
    (_, offset, length), = extents
    properties = children(child(meta, b"iprp", b"ipco"))
    links = child(meta, b"iprp", b"ipma")
    at, own = 8, {}
    for _ in range(struct.unpack_from(">I", links, 4)[0]):
        id, associations = struct.unpack_from(">HB", links, at)
        own[id] = [links[at + 3 + i] for i in range(associations)]
        at += 3 + associations
    of_item = own[number + 1]
    return avif[offset : offset + length], [(properties[(n & 127) - 1], n >> 7) for n in of_item]


def file(items, primary=1, references=(), brand=b"avif"):
    """A file of items: kind, bytes, and properties with whether they are essential."""
    properties, links, kinds = [], b"", b""
    for number, (kind, _, own) in enumerate(items, 1):
        links += struct.pack(">HB", number, len(own))
        for (name, body), essential in own:
            if (name, body) not in properties:
                properties.append((name, body))
            links += bytes([properties.index((name, body)) + 1 | essential << 7])
        kinds += full(b"infe", 2, 0, struct.pack(">HH4s", number, 0, kind), b"\0")
    links = full(b"ipma", 0, 0, struct.pack(">I", len(items)), links)
    container = box(b"ipco", *(box(name, body) for name, body in properties))
    refs = b"".join(box(kind, struct.pack(">HH", a, len(to)), *(struct.pack(">H", b) for b in to)) for kind, a, to in references)

    def meta(start):
        places = b""
        for number, (_, data, _) in enumerate(items, 1):
            places += struct.pack(">HHHII", number, 0, 1, start, len(data))
            start += len(data)
        return full(
            b"meta", 0, 0,
            full(b"hdlr", 0, 0, b"\0\0\0\0pict", b"\0" * 13),
            full(b"pitm", 0, 0, struct.pack(">H", primary)),
            full(b"iloc", 0, 0, b"\x44\0", struct.pack(">H", len(items)), places),
            full(b"iinf", 0, 0, struct.pack(">H", len(items)), kinds),
            *([full(b"iref", 0, 0, refs)] if refs else []),
            box(b"iprp", container, links),
        )  # fmt: skip

    head = box(b"ftyp", brand, b"\0\0\0\0", brand, b"mif1miaf")
    start = len(head) + len(meta(0)) + 8
    return head + meta(start) + box(b"mdat", *(data for _, data, _ in items))


def with_property(avif, kind, change):
    """The same file with another body of a property, of the same length."""
    at = avif.index(kind)
    size = struct.unpack_from(">I", avif, at - 4)[0]
    return avif[: at + 4] + change(avif[at + 4 : at - 4 + size]) + avif[at - 4 + size :]


# --- files ----------------------------------------------------------------------------------------


def on_white(image):
    if image.mode in ("RGBA", "LA"):
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        white.alpha_composite(image)
        image = white
    return image.convert("RGB")


def write(name, data, crop=None):
    (CASES / name).write_bytes(data)
    image = Image.open(io.BytesIO(data))
    image.load()
    orientation = image.getexif().get(0x0112, 1)
    if crop:
        # The crop comes before the turn.
        image = image.crop(crop)
    image = ImageOps.exif_transpose(image)
    on_white(image).save((CASES / name).with_suffix(".expected.png"))
    return orientation


def grid(image, columns, rows, cell, alpha=False, **options):
    """A grid of cells that cover the picture; the last ones have more than is shown."""
    cells, alphas, properties = [], [], None
    whole = Image.new(image.mode, (columns * cell[0], rows * cell[1]))
    whole.paste(image)
    for row in range(rows):
        for column in range(columns):
            left, top = column * cell[0], row * cell[1]
            part = encoded(whole.crop((left, top, left + cell[0], top + cell[1])), **options)
            data, properties = item(part)
            cells.append((b"av01", data, properties))
            if alpha:
                data, own = item(part, 1)
                alphas.append((b"av01", data, own))
    sides = struct.pack(">BBBBHH", 0, 0, rows - 1, columns - 1, *image.size)
    own = [(p, e) for p, e in properties if p[0] in (b"colr", b"pixi")]
    own.append(((b"ispe", struct.pack(">III", 0, *image.size)), 0))
    items = [(b"grid", sides, own), *cells]
    references = [(b"dimg", 1, list(range(2, 2 + len(cells))))]
    if alpha:
        own = [(p, e) for p, e in alphas[0][2] if p[0] in (b"auxC", b"pixi")]
        own.append(((b"ispe", struct.pack(">III", 0, *image.size)), 0))
        first = len(items) + 1
        items += [(b"grid", sides, own), *alphas]
        references += [(b"auxl", first, [1]), (b"dimg", first, list(range(first + 1, first + 1 + len(alphas))))]
    return file(items, references=references)


def write_stills():
    image, odd = scene(64, 48), scene(45, 27)
    translucent = image.copy()
    translucent.putalpha(Image.fromarray((np.mgrid[0:48, 0:64][1] * 4).astype(np.uint8)))
    noise = Image.fromarray(picture(45, 20))
    for subsampling in ("4:2:0", "4:2:2", "4:4:4"):
        for range_ in ("full", "limited"):
            name = f"avif_{subsampling.replace(':', '')}_{range_}.avif"
            write(name, encoded(odd, subsampling=subsampling, range=range_))
    write("avif_gray.avif", encoded(noise.convert("L"), subsampling="4:0:0"))
    write("avif_noise.avif", encoded(noise, quality=95))
    write("avif_alpha.avif", encoded(translucent))
    write("avif_alpha_premultiplied.avif", encoded(translucent, alpha_premultiplied=True, subsampling="4:4:4"))
    write("avif_one_pixel.avif", encoded(image.crop((0, 0, 1, 1))))
    write("avif_one_column.avif", encoded(odd.crop((0, 0, 1, 27))))
    write("avif_one_row.avif", encoded(odd.crop((0, 0, 45, 1))))
    write("avif_color_profile.avif", encoded(odd, icc_profile=Image.open(CASES.parent / "files/color_profile.png").info["icc_profile"]))
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        assert write(f"avif_orientation_{orientation}.avif", encoded(odd, exif=exif.tobytes())) == orientation
    write("avif_tiles.avif", encoded(scene(300, 270), tile_rows=1, tile_cols=1, quality=60))
    for matrix in (1, 5, 9, 4, 7):
        # The same samples, read with another matrix: primaries, transfer and matrix, range.
        change = lambda body: body[:8] + struct.pack(">H", matrix) + body[10:]
        write(f"avif_matrix_{matrix}.avif", with_property(encoded(odd, subsampling="4:4:4"), b"colr", change))
        write(f"avif_matrix_{matrix}_limited.avif", with_property(encoded(odd, subsampling="4:2:0", range="limited"), b"colr", change))
    for matrix, name in ((0, "identity"), (8, "ycgco")):
        change = lambda body: body[:8] + struct.pack(">H", matrix) + body[10:]
        write(f"avif_matrix_{name}.avif", with_property(encoded(odd, subsampling="4:4:4"), b"colr", change))
    kept = (10, 4, 10 + 32, 4 + 20)
    # Width, height, and the offsets of the middle from that of the whole picture.
    middle = ((10 + 16) * 2 - 64, (4 + 10) * 2 - 48)
    clap = struct.pack(">IIIIiIiI", 32, 1, 20, 1, middle[0], 2, middle[1], 2)
    data, own = item(encoded(image))
    write("avif_crop.avif", file([(b"av01", data, [*own, ((b"clap", clap), 1)])]), kept)
    turned = [*own, ((b"clap", clap), 1), ((b"irot", b"\1"), 1), ((b"imir", b"\1"), 1)]
    write("avif_crop_turned.avif", file([(b"av01", data, turned)]), kept)
    whole = scene(150, 100)
    write("avif_grid.avif", grid(whole, 3, 2, (64, 64)))
    write("avif_grid_444.avif", grid(whole, 3, 2, (64, 64), subsampling="4:4:4"))
    whole.putalpha(Image.fromarray((np.mgrid[0:100, 0:150][1] * 255 // 149).astype(np.uint8)))
    write("avif_grid_alpha.avif", grid(whole, 3, 2, (64, 64), alpha=True))
    for name, source, options in [
        ("10_bits_420", odd, ["-d", "10", "-y", "420"]),
        ("10_bits_422", odd, ["-d", "10", "-y", "422"]),
        ("10_bits_444", odd, ["-d", "10", "-y", "444"]),
        ("12_bits_420_limited", odd, ["-d", "12", "-y", "420", "-r", "limited"]),
        ("12_bits_444", odd, ["-d", "12", "-y", "444"]),
        ("10_bits_gray", odd, ["-d", "10", "-y", "400"]),
        ("10_bits_alpha", translucent, ["-d", "10", "-y", "420"]),
        ("12_bits_alpha", translucent, ["-d", "12", "-y", "444"]),
        ("lossless_identity", noise, ["--lossless"]),
        ("film_grain", scene(96, 80), ["-a", "film-grain-test=5"]),
        ("ycgco_lossy", odd, ["--cicp", "1/13/8", "-y", "444"]),
    ]:
        write(f"avif_{name}.avif", with_avifenc(source, *options))


def write_frames():
    frames = [scene(40, 30)]
    for step in range(1, 5):
        frame = frames[0].copy()
        frame.paste((255 - 40 * step, 50 * step, 90), (4 * step, 3 * step, 4 * step + 12, 3 * step + 12))
        frames.append(frame)
    out = io.BytesIO()
    frames[0].save(out, "AVIF", save_all=True, append_images=frames[1:], duration=100, quality=90)
    save_frames("animation.avif", out.getvalue())
    for number, frame in enumerate(frames):
        frame.putalpha(Image.fromarray(((np.mgrid[0:30, 0:40][1] * 6 + 20 * number) % 256).astype(np.uint8)))
    out = io.BytesIO()
    frames[0].save(out, "AVIF", save_all=True, append_images=frames[1:], duration=100, quality=90)
    save_frames("animation_alpha.avif", out.getvalue())


def save_frames(name, data):
    (FRAMES / name).write_bytes(data)
    image = Image.open(io.BytesIO(data))
    assert image.n_frames == 5
    for number in range(1, 5):
        image.seek(number)
        on_white(image).save(FRAMES / f"{name}.{number + 1}.expected.png")


def write_large():
    """24 megapixels, for tests of memory and of stopping."""
    y, x = np.mgrid[0:4000, 0:6000]
    image = Image.fromarray(np.stack([x // 24, y // 16, (x // 50 + y // 50) % 2 * 90 + 80], -1).astype(np.uint8))
    (CASES.parent / "large" / "picture.avif").write_bytes(encoded(image, quality=40, speed=10))


if __name__ == "__main__":
    write_stills()
    write_frames()
    write_large()
