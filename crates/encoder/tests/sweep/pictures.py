#!/usr/bin/env python3
"""Writes about a thousand pictures with other programs than Pillow, and what Pillow makes of each.

    python crates/encoder/tests/sweep/pictures.py DIRECTORY

needs Pillow and numpy, and cjpeg, jpegtran, tiffcp, cwebp, webpmux and gif2webp. tests/image_sweep.rs
runs it in target/pictures/venv, which `tests/setup.sh test` makes.

DIRECTORY/manifest has a line for each picture: file, verdict, width, height, greatest and mean difference
allowed in levels. The verdict is `equal` (decodes as in `FILE.rgb`, RGB, upright, on white) or
`unsupported` (valid, and refused as such). Files that the reference itself cannot read are left out.
"""

import io
import itertools
import os
import random
import struct
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image, ImageOps

OUT = sys.argv[1]

# --- source pictures ------------------------------------------------------------------------------


def photo(width, height, seed):
    """Smooth noise of several sizes on a slow gradient: as rough as a photograph at this size."""
    draws = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    waves = [60 * np.sin(x / 17), 50 * np.cos(y / 13), 40 * np.sin((x + y) / 29)]
    total = 128 + np.stack(waves, -1)
    for size in (2, 4, 8, 16):
        grid = draws.normal(0, 2.2 * size, (height // size + 2, width // size + 2, 3)).astype(np.float32)
        layers = [Image.fromarray(grid[..., c]).resize((width, height), Image.BICUBIC) for c in range(3)]
        total += np.stack([np.asarray(layer) for layer in layers], -1)
    return np.clip(total, 0, 255).astype(np.uint8)


def gradient(width, height):
    y, x = np.mgrid[0:height, 0:width]
    across, down = max(1, width - 1), max(1, height - 1)
    return np.stack([255 * x // across, 255 * y // down, 255 - 127 * x // across - 127 * y // down], -1).astype(np.uint8)


SOURCES = [
    photo(67, 45, 1), photo(17, 13, 2), photo(128, 96, 3), gradient(131, 97), photo(1, 1, 4),
    photo(1, 300, 5), photo(300, 1, 6), gradient(33, 20), photo(48, 31, 7),
]


def ppm(array):
    if array.ndim == 2:
        return b"P5\n%d %d\n255\n" % (array.shape[1], array.shape[0]) + array.tobytes()
    return b"P6\n%d %d\n255\n" % (array.shape[1], array.shape[0]) + array.tobytes()


def gray(array):
    return np.asarray(Image.fromarray(array).convert("L"))


def alpha(array):
    y, x = np.mgrid[0 : array.shape[0], 0 : array.shape[1]]
    return ((x * 9 + y * 5) % 256).astype(np.uint8)


# --- what Pillow makes of a file ------------------------------------------------------------------


def on_white(image):
    """As `transformers.image_transforms.convert_to_rgb`, for every mode that Pillow reads."""
    if image.mode in ("I;16", "I;16B", "I;16L", "I"):
        # Pillow clips these at 255; the upper byte is what everyone means.
        return Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "La":
        image = image.convert("LA")
    if image.mode == "RGBa":
        image = image.convert("RGBA")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, (255, 255, 255)), image).convert("RGB")
    return image.convert("RGB")


def reference(data):
    image = Image.open(io.BytesIO(data))
    image.load()
    return on_white(ImageOps.exif_transpose(image))


class Refused(Exception):
    """The tool did not write such a file."""


def run(*command, data=b""):
    done = subprocess.run(command, input=data, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if done.returncode:
        raise Refused(done.stderr.decode(errors="replace").strip())
    return done.stdout


def path(name):
    return os.path.join(OUT, name)


# Greatest and mean difference in levels. Decoders round the inverse DCT differently, by one level a
# sample, which color conversion makes three. libjpeg smooths chroma where a sample stands for two
# ("fancy" upsampling) and repeats it otherwise; others weigh edges and narrow pictures differently.
# Measured over this sweep: see the README of src/image.
EXACT, JPEG, JPEG_CHROMA, LOSSY_WEBP = (0, 0), (4, 0.6), (14, 2), (3, 0.6)

jobs = []


def add(name, make, tolerance=EXACT, expected=None, verdict="equal"):
    """`make` returns the bytes; `expected` those that Pillow reads instead, or an RGB array."""
    jobs.append((name, make, tolerance, expected, verdict))


# --- JPEG -----------------------------------------------------------------------------------------

SAMPLINGS = [
    "1x1", "2x1", "1x2", "2x2", "4x1", "1x4", "4x2", "2x4", "3x1", "1x3", "1x1,2x2,2x2", "1x1,2x1,2x1",
    "1x1,1x2,1x2", "2x2,2x1,1x2", "2x2,1x2,2x1", "2x2,2x2,1x1", "2x1,1x2,1x1", "4x1,2x1,1x1", "2x1,2x1,1x1",
    "1x1,1x1,2x2", "1x2,2x1,1x1", "3x2,1x1,3x1", "1x2,1x2,1x2", "2x1,2x1,2x1",
]
PROGRESSIVE_CR_FIRST = (
    "2:0-0,0,1;0,1:0-0,0,1;2:1-63,0,2;1:1-63,0,1;0:1-63,0,2;2:1-63,2,1;0:1-63,2,1;2:0-0,1,0;0,1:0-0,1,0;"
    "0:1-63,1,0;1:1-63,1,0;2:1-63,1,0;"
)
SCANS = {
    "one": None, "0_1_2": "0;1;2;", "0_2_1": "0;2;1;", "2_1_0": "2;1;0;", "01_2": "0,1;2;", "0_12": "0;1,2;",
    "12_0": "1,2;0;", "2_01": "2;0,1;", "progressive": "progressive",
    "dc_apart": "0:0-0,0,0;1:0-0,0,0;2:0-0,0,0;0:1-63,0,0;1:1-63,0,0;2:1-63,0,0;",
    "spectral": "0,1,2:0-0,0,0;0:1-5,0,0;2:1-63,0,0;1:1-63,0,0;0:6-63,0,0;", "cr_first": PROGRESSIVE_CR_FIRST,
}


def cjpeg(array, *options, scans=None, name=None):
    command = ["cjpeg", "-quality", "85", *options]
    if scans == "progressive":
        command.append("-progressive")
    elif scans:
        with open(path(name + ".scans"), "w") as file:
            file.write(scans)
        command += ["-scans", path(name + ".scans")]
    return run(*command, data=ppm(array))


def segments(jpeg):
    """Offsets of the marker segments before the first scan, and of the scan itself."""
    at = 2
    while True:
        yield at
        if jpeg[at + 1] == 0xDA:
            return
        at += 2 + struct.unpack(">H", jpeg[at + 2 : at + 4])[0]


def insert_segment(jpeg, marker, body):
    return jpeg[:2] + bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body + jpeg[2:]


def all_segments(jpeg):
    """Offsets of all marker segments, those behind the first scan included."""
    at = 2
    while jpeg[at + 1] != 0xD9:
        yield at
        marker = jpeg[at + 1]
        at += 2 + struct.unpack(">H", jpeg[at + 2 : at + 4])[0]
        if marker == 0xDA:
            while jpeg[at] != 0xFF or jpeg[at + 1] == 0 or 0xD0 <= jpeg[at + 1] <= 0xD7:
                at += 1
    yield at


def without_jfif(jpeg):
    return jpeg[:2] + jpeg[2 + 2 + struct.unpack(">H", jpeg[4:6])[0] :]


def with_ids(jpeg, ids):
    """Other ids for the components of frame and scan; one scan alone."""
    jpeg = bytearray(jpeg)
    for at in segments(jpeg):
        if jpeg[at + 1] in (0xC0, 0xC1, 0xC2):
            for i, id in enumerate(ids):
                jpeg[at + 10 + 3 * i] = id
        if jpeg[at + 1] == 0xDA:
            for i, id in enumerate(ids):
                jpeg[at + 5 + 2 * i] = id
    return bytes(jpeg)


ADOBE = b"Adobe\0\x64\0\0\0\0"


def exif(orientation, kind=3, order="<", width={1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i"}):
    value = struct.pack(order + width[kind], orientation).ljust(4, b"\0")
    tiff = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    # Another field comes first.
    entry = struct.pack(order + "HHI", 271, 2, 2) + b"x\0\0\0" + struct.pack(order + "HHI", 274, kind, 1) + value
    return tiff + struct.pack(order + "H", 2) + entry + struct.pack(order + "I", 0)


def turned(array, orientation):
    image = Image.fromarray(array)
    steps = {
        2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_270",
        7: "TRANSVERSE", 8: "ROTATE_90",
    }
    return np.asarray(image.transpose(getattr(Image, steps[orientation])) if orientation in steps else image)


def jpegs():
    turn = itertools.cycle(SOURCES)
    for sampling, (scan_name, scans) in itertools.product(SAMPLINGS, SCANS.items()):
        name = f"jpeg_{sampling.replace(',', '-')}_{scan_name}"
        source, tolerance = next(turn), JPEG if len(set(sampling.split(","))) == 1 and sampling == "1x1" else JPEG_CHROMA
        # The general decoder miscounts such components in scans of their own, and they are refused.
        alone = sampling == "4x1,2x1,1x1" and scan_name in ("0_1_2", "0_2_1", "2_1_0")
        make = lambda source=source, sampling=sampling, scans=scans, name=name: cjpeg(
            source, "-sample", sampling, scans=scans, name=name
        )
        add(name + ".jpg", make, tolerance, verdict="unsupported" if alone else "equal")
    for i, source in enumerate(SOURCES):
        rgb = lambda *options, source=source, **more: cjpeg(source, *options, **more)
        for interval in ("1", "1B", "3B", "7B"):
            for scans in ("one", "0_1_2", "12_0", "progressive"):
                name = f"jpeg_{i}_restart_{interval}_{scans}"
                make = lambda rgb=rgb, interval=interval, scans=scans, name=name: rgb(
                    "-sample", "2x2", "-restart", interval, scans=SCANS[scans], name=name
                )
                add(name + ".jpg", make, JPEG_CHROMA)
        for scans in ("one", "progressive"):
            for options in (["-grayscale"], ["-grayscale", "-sample", "2x2"], ["-rgb"], ["-optimize"], ["-dct", "fast"]):
                name = f"jpeg_{i}_{'_'.join(o.strip('-') for o in options)}_{scans}"
                make = lambda rgb=rgb, options=options, scans=scans: rgb(*options, scans=SCANS[scans])
                add(name + ".jpg", make, JPEG_CHROMA if options[0] in ("-optimize", "-dct") else JPEG)
        for options in (["-progressive"], ["-optimize"], ["-rotate", "90"], ["-flip", "vertical"], ["-grayscale"], ["-restart", "1"]):
            make = lambda rgb=rgb, options=options: run("jpegtran", "-copy", "none", *options, data=rgb("-sample", "2x1"))
            add(f"jpeg_{i}_jpegtran_{options[0][1:]}.jpg", make, JPEG_CHROMA)
        make = lambda rgb=rgb: run("jpegtran", "-arithmetic", data=rgb())
        add(f"jpeg_{i}_arithmetic.jpg", make, verdict="unsupported")
        # JFIF, Adobe's transform and ids say different things.
        for jfif, transform, ids in itertools.product((True, False), (None, 0, 1, 2), ((1, 2, 3), (0, 1, 2), tuple(b"RGB"), (1, 1, 1), (7, 9, 2))):
            if i not in (0, 1):
                break
            def make(rgb=rgb, jfif=jfif, transform=transform, ids=ids):
                jpeg = rgb("-sample", "1x1")
                jpeg = with_ids(jpeg if jfif else without_jfif(jpeg), ids)
                return jpeg if transform is None else insert_segment(jpeg, 0xEE, ADOBE + bytes([transform]))
            add(f"jpeg_{i}_jfif{int(jfif)}_adobe{transform}_ids{'-'.join(map(str, ids))}.jpg", make, JPEG)
        if i < 3:
            for count, byte in itertools.product((1, 2, 5, 40), (0x00, 0x20, 0xFE)):
                def make(rgb=rgb, count=count, byte=byte):
                    jpeg = rgb("-sample", "2x2")
                    ends = list(segments(jpeg))
                    pieces = [jpeg[:2]] + [jpeg[a:b] for a, b in zip(ends, ends[1:] + [len(jpeg)])]
                    return bytes([byte] * count).join([pieces[0] + pieces[1], *pieces[2:]])
                add(f"jpeg_{i}_stray_{count}_{byte}.jpg", make, JPEG_CHROMA)
            for count, scans in itertools.product((1, 2, 9), ("progressive", "0_1_2", "one")):
                name = f"jpeg_{i}_stray_everywhere_{count}_{scans}"

                def make(rgb=rgb, count=count, scans=scans, name=name):
                    jpeg = rgb("-sample", "2x2", scans=SCANS[scans], name=name)
                    ends = list(all_segments(jpeg))
                    out = jpeg[:2]
                    for a, b in zip(ends, ends[1:] + [len(jpeg)]):
                        # Behind pixels such bytes would be pixels.
                        out += jpeg[a:b] + (b"" if jpeg[a + 1] in (0xDA, 0xD9) else b"\x20" * count)
                    return out

                add(name + ".jpg", make, JPEG_CHROMA)
            for fill in (1, 3):
                def make(rgb=rgb, fill=fill):
                    jpeg = rgb("-sample", "2x2")
                    ends = list(segments(jpeg))
                    pieces = [jpeg[a:b] for a, b in zip(ends, ends[1:] + [len(jpeg)])]
                    return jpeg[:2] + b"".join(b"\xff" * fill + piece for piece in pieces)
                add(f"jpeg_{i}_fill_{fill}.jpg", make, JPEG_CHROMA)
    for transform, progressive, sampling in itertools.product((None, 0, 2), (False, True), (0, 2)):
        def make(transform=transform, progressive=progressive, sampling=sampling):
            buffer = io.BytesIO()
            Image.fromarray(SOURCES[0]).convert("CMYK").save(buffer, "JPEG", quality=90, progressive=progressive, subsampling=sampling)
            jpeg = buffer.getvalue()
            at = jpeg.index(b"\xff\xee\x00\x0eAdobe")
            if transform is None:
                return jpeg[:at] + jpeg[at + 16 :]
            return jpeg[: at + 15] + bytes([transform]) + jpeg[at + 16 :]
        add(f"jpeg_four_inks_{transform}_{progressive}_{sampling}.jpg", make, (8, 1.5))
    for label, scans in (("apart", "0;1;2;3;"), ("pairs", "0,1;2,3;"), ("last_first", "3;2;1;0;")):
        name = f"jpeg_four_inks_scans_{label}"

        def make(scans=scans, name=name):
            buffer = io.BytesIO()
            Image.fromarray(SOURCES[0]).convert("CMYK").save(buffer, "JPEG", quality=90)
            with open(path(name + ".scans"), "w") as file:
                file.write(scans)
            return run("jpegtran", "-scans", path(name + ".scans"), data=buffer.getvalue())

        add(name + ".jpg", make, (8, 1.5))
    for orientation in range(1, 9):
        for kind, order in itertools.product((1, 3, 4, 6, 8, 9), "<>"):
            block = b"Exif\0\0" + exif(orientation, kind, order)
            plain = lambda: cjpeg(SOURCES[0], "-sample", "1x1")
            # Pillow hands out one kind as bytes and turns nothing then.
            make = lambda block=block, plain=plain: insert_segment(plain(), 0xE1, block)
            expected = lambda orientation=orientation, plain=plain: turned(np.asarray(reference(plain())), orientation)
            add(f"jpeg_exif_{orientation}_{kind}_{'little' if order == '<' else 'big'}.jpg", make, JPEG, expected)


# --- PNG ------------------------------------------------------------------------------------------


def chunk(tag, body):
    return struct.pack(">I", len(body)) + tag + body + struct.pack(">I", zlib.crc32(tag + body))


def pngs():
    source = SOURCES[8]
    height, width = source.shape[:2]
    rows = b"".join(b"\0" + row.tobytes() for row in source)
    pixels = chunk(b"IDAT", zlib.compress(rows))
    head = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    for orientation in range(1, 9):
        tags = exif(orientation, order="<>"[orientation % 2])
        for prefix in (b"", b"Exif\0\0"):
            digits = (prefix + tags).hex().encode()
            lines = b"\n".join(digits[i : i + 72] for i in range(0, len(digits), 72))
            text = b"\nexif\n%8d\n" % len(prefix + tags) + lines + b"\n"
            key = b"Raw profile type exif\0"
            for kind, body in (
                ("tEXt", key + text), ("zTXt", key + b"\0" + zlib.compress(text)), ("iTXt", key + b"\0\0\0\0" + text),
                ("iTXt", key + b"\1\0en\0name\0" + zlib.compress(text)),
            ):
                for where in ("before", "behind"):
                    block = chunk(kind.encode(), body)
                    file = head + (block + pixels if where == "before" else pixels + block) + chunk(b"IEND", b"")
                    name = f"png_profile_{orientation}_{len(prefix)}_{kind}_{body[22]}_{where}.png"
                    if where == "before" or orientation in (5, 6):
                        add(name, lambda file=file: file, expected=lambda orientation=orientation: turned(source, orientation))
        for where in (0, 1):
            block = chunk(b"eXIf", tags)
            file = head + (pixels + block if where else block + pixels) + chunk(b"IEND", b"")
            add(f"png_exif_{orientation}_{where}.png", lambda file=file: file)


# --- TIFF -----------------------------------------------------------------------------------------


def tiff(samples, bits, photometric, order="<", extra=None, colors=None, orientation=None):
    """A plain TIFF of one strip; `samples` is [height, width, channels] of integers below 2**bits."""
    height, width, channels = samples.shape
    if bits == 16:
        data = samples.astype(order + "u2").tobytes()
    elif bits == 8:
        data = samples.astype(np.uint8).tobytes()
    else:
        row = samples.reshape(height, -1).astype(np.uint8)
        digits = np.unpackbits(row[..., None], axis=-1)[..., 8 - bits :].reshape(height, -1)
        data = np.packbits(digits, axis=-1).tobytes()
    fields = {256: (4, [width]), 257: (4, [height]), 258: (3, [bits] * channels), 259: (3, [1]), 262: (3, [photometric]),
              277: (3, [channels]), 278: (4, [height]), 279: (4, [len(data)])}
    if extra is not None:
        fields[338] = (3, [extra])
    if colors is not None:
        fields[320] = (3, colors)
    if orientation:
        fields[274] = (3, [orientation])
    out = bytearray((b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8))
    directory, count = 8, len(fields) + 1
    tail = directory + 2 + 12 * count + 4
    fields[273] = (4, [0])
    extra_bytes, entries = b"", []
    for tag, (kind, values) in sorted(fields.items()):
        packed = struct.pack(order + str(len(values)) + {3: "H", 4: "I"}[kind], *values)
        if len(packed) > 4:
            extra_bytes += b"\0" * (len(extra_bytes) % 2)
            offset = tail + len(extra_bytes)
            extra_bytes += packed
            packed = struct.pack(order + "I", offset)
        entries.append([tag, kind, len(values), packed.ljust(4, b"\0")])
    start = tail + len(extra_bytes)
    for entry in entries:
        if entry[0] == 273:
            entry[3] = struct.pack(order + "I", start)
    out += struct.pack(order + "H", count)
    for tag, kind, number, packed in entries:
        out += struct.pack(order + "HHI", tag, kind, number) + packed
    return bytes(out + struct.pack(order + "I", 0) + extra_bytes + data)


def bases():
    """Name, plain file, whether it has several samples, expected RGB or nothing for Pillow's."""
    for index in (0, 3, 1):
        rgb = SOURCES[index]
        luma, cover = gray(rgb)[..., None], alpha(rgb)[..., None]
        low = np.random.default_rng(index).integers(0, 256, rgb.shape).astype(np.uint16)
        wide = rgb.astype(np.uint16) << 8 | low
        yield f"{index}_rgb", tiff(rgb, 8, 2), 3, None
        yield f"{index}_gray", tiff(luma, 8, 1), 1, None
        yield f"{index}_bilevel", tiff(luma >> 7, 1, 1), 1, None
        yield f"{index}_bilevel_white_0", tiff(luma >> 7, 1, 0), 1, None
        if index == 1:
            continue
        yield f"{index}_gray_white_0", tiff(luma, 8, 0), 1, None
        yield f"{index}_gray_2", tiff(luma >> 6, 2, 1), 1, None
        yield f"{index}_gray_4", tiff(luma >> 4, 4, 1), 1, None
        table = [(i * 37 % 256) * 257 for i in range(256)] + [i * 257 for i in range(256)] + [(255 - i) * 257 for i in range(256)]
        yield f"{index}_palette", tiff(luma, 8, 3, colors=table), 1, None
        table = [c[i * 17] for c in (table[:256], table[256:512], table[512:]) for i in range(16)]
        yield f"{index}_palette_4", tiff(luma >> 4, 4, 3, colors=table), 1, None
        yield f"{index}_rgba", tiff(np.concatenate([rgb, cover], -1), 8, 2, extra=2), 4, None
        times = (rgb.astype(np.uint16) * cover // 255).astype(np.uint8)
        yield f"{index}_rgba_associated", tiff(np.concatenate([times, cover], -1), 8, 2, extra=1), 4, None
        yield f"{index}_rgbx", tiff(np.concatenate([rgb, cover], -1), 8, 2, extra=0), 4, None
        yield f"{index}_gray_alpha", tiff(np.concatenate([luma, cover], -1), 8, 1, extra=2), 2, None
        yield f"{index}_inks", tiff(np.concatenate([255 - rgb, cover // 3], -1), 8, 5), 4, None
        yield f"{index}_rgb_16", tiff(wide, 16, 2), 3, rgb
        yield f"{index}_gray_16", tiff(luma.astype(np.uint16) << 8 | low[..., :1], 16, 1), 1, np.repeat(luma, 3, -1)
        yield f"{index}_rgba_16", tiff(np.concatenate([wide, cover.astype(np.uint16) << 8], -1), 16, 2, extra=2), 4, None


def tiffs():
    shapes = [[], ["-r", "7"], ["-t"], ["-t", "-w", "32", "-l", "16"]]
    draw = random.Random(3)
    for name, plain, samples, expected in bases():
        with open(path(f"tiff_{name}_plain.tif"), "wb") as file:
            file.write(plain)
        pillow = (lambda expected=expected: expected) if expected is not None else (lambda plain=plain: np.asarray(reference(plain)))
        codings = ["none", "lzw", "zip", "packbits"]
        if not any(word in name for word in ("bilevel", "gray_2", "gray_4", "palette_4")):
            codings += ["lzw:2", "zip:2"]
        if "bilevel" in name:
            codings += ["g3:1d", "g3:1d:fill", "g4", "g3:2d"]
        if name.endswith(("_rgb", "_gray")):
            codings += ["jpeg", "jpeg:r"]
        for coding in codings:
            for shape in shapes:
                planes = [["-p", "contig"], ["-p", "separate"]] if samples > 1 else [[]]
                for plane in planes:
                    if coding.startswith("jpeg") and plane == ["-p", "separate"] and coding == "jpeg":
                        continue
                    # Orders of bytes and bits, and large files, in turn.
                    more = draw.choice([["-L"], ["-B"], ["-L", "-8"], ["-B", "-8"], ["-L", "-f", "lsb2msb"], ["-B", "-f", "lsb2msb"]])
                    label = "_".join(x.strip("-") for x in [coding.replace(":", ""), *shape, *plane[1:], *more])
                    target = f"tiff_{name}_{label}.tif"

                    def make(name=name, coding=coding, shape=shape, plane=plane, more=more, target=target):
                        run("tiffcp", "-c", coding, *shape, *plane, *more, path(f"tiff_{name}_plain.tif"), path(target))
                        with open(path(target), "rb") as file:
                            return file.read()

                    # JPEG: Pillow reads the same file through libtiff.
                    jpeg = coding.startswith("jpeg")
                    tolerance = JPEG_CHROMA if jpeg else (1, 1) if "inks" in name or "alpha" in name or "rgba" in name else EXACT
                    verdict = "unsupported" if coding == "g3:2d" else "equal"
                    add(target, make, tolerance, None if jpeg else pillow, verdict)
        for coding in ("lzma", "zstd"):
            target = f"tiff_{name}_{coding}.tif"

            def make(name=name, coding=coding, target=target):
                run("tiffcp", "-c", coding, path(f"tiff_{name}_plain.tif"), path(target))
                with open(path(target), "rb") as file:
                    return file.read()

            add(target, make, verdict="unsupported")
    for orientation in range(1, 9):
        for order in "<>":
            file = tiff(SOURCES[0], 8, 2, order, orientation=orientation)
            add(f"tiff_orientation_{orientation}_{ord(order)}.tif", lambda file=file: file)


# --- BMP ------------------------------------------------------------------------------------------


def bmps():
    for index in (0, 1, 5, 6):
        rgb = SOURCES[index]
        height, width = rgb.shape[:2]

        def packed(bits, rows):
            out = b""
            for row in rows:
                if bits == 32:
                    body = np.concatenate([row[:, ::-1], np.full((width, 1), 77, np.uint8)], -1).tobytes()
                elif bits == 24:
                    body = row[:, ::-1].tobytes()
                elif bits == 16:
                    r, g, b = (row.astype(np.uint16) >> 3).T
                    body = (r << 10 | g << 5 | b).astype("<u2").tobytes()
                else:
                    digits = np.unpackbits((row[:, 1] >> (8 - bits))[:, None], axis=1)[:, 8 - bits :]
                    body = np.packbits(digits.reshape(-1)).tobytes()
                out += body.ljust(-(-len(body) // 4) * 4, b"\0")
            return out

        for bits in (1, 2, 4, 8, 16, 24, 32):
            count = 1 << bits if bits <= 8 else 0
            colors = [((i * 91 + 5) % 256, (i * 37) % 256, 255 * i // max(1, count - 1)) for i in range(count)]
            if bits <= 8:
                table = np.array(colors, np.uint8)
                expected = table[rgb[..., 1] >> (8 - bits)]
            elif bits == 16:
                expected = ((rgb >> 3).astype(np.uint16) * 255 // 31).astype(np.uint8)
            else:
                expected = rgb
            for size, planes, down, place in itertools.product((12, 16, 40, 52, 56, 64, 108, 124), (0, 1, 3), (False, True), ("true", "zero", "inside")):
                # Every header, and one other thing at a time.
                if (planes != 1) + down + (place != "true") > 1 or (down and size == 12):
                    continue
                entry = 3 if size == 12 else 4
                palette = b"".join(bytes([b, g, r] + [0] * (entry - 3)) for r, g, b in colors)
                offset = {"true": 14 + size + len(palette), "zero": 0, "inside": 14 + size // 2}[place]
                if size == 12:
                    header = struct.pack("<IHHHH", size, width, height, planes, bits)
                else:
                    header = struct.pack("<IiiHHIIIIII", size, width, -height if down else height, planes, bits, 0, 0, 2835, 2835, 0, 0)
                    header = header[:size].ljust(size, b"\0")
                body = packed(bits, rgb if down else rgb[::-1])
                file = b"BM" + struct.pack("<IHHI", 14 + size + len(palette) + len(body), 0, 0, offset) + header + palette + body
                if index < 2 or (size == 40 and place == "true" and planes == 1):
                    add(f"bmp_{index}_{bits}_{size}_{planes}_{int(down)}_{place}.bmp", lambda file=file: file, expected=lambda expected=expected: expected)
        # Masks, with and without alpha: Pillow is the judge.
        for size, masks in itertools.product((40, 56, 108, 124), (
            (0xF800, 0x7E0, 0x1F, 0), (0x7C00, 0x3E0, 0x1F, 0), (0xFF0000, 0xFF00, 0xFF, 0), (0xFF000000, 0xFF0000, 0xFF00, 0),
            (0xFF0000, 0xFF00, 0xFF, 0xFF000000), (0xFF, 0xFF00, 0xFF0000, 0xFF000000),
        )):
            if masks[3] and size == 40:
                continue
            bits = 16 if max(masks) < 1 << 16 else 32
            full = np.concatenate([rgb, alpha(rgb)[..., None]], -1).astype(np.uint64)
            value = np.zeros((height, width), np.uint64)
            for c, mask in enumerate(masks):
                if mask:
                    low = (mask & -mask).bit_length() - 1
                    value |= full[..., c] * np.uint64(mask >> low) // np.uint64(255) << np.uint64(low)
            rows = [row.astype(f"<u{bits // 8}").tobytes() for row in value[::-1]]
            body = b"".join(row.ljust(-(-len(row) // 4) * 4, b"\0") for row in rows)
            header = struct.pack("<IiiHHIIIIII", size, width, height, 1, bits, 3, 0, 0, 0, 0, 0)
            header += struct.pack("<IIII", *masks)[: 12 if size == 40 else 16]
            header = header.ljust(size, b"\0")
            file = b"BM" + struct.pack("<IHHI", 14 + len(header) + len(body), 0, 0, 14 + len(header)) + header + body
            add(f"bmp_{index}_masks_{size}_{masks[0]:x}_{masks[2]:x}_{masks[3]:x}.bmp", lambda file=file: file)
        # Runs, with the escapes that encoders write.
        for bits in (4, 8):
            numbers = gray(rgb) >> (8 - bits) if bits == 4 else gray(rgb)
            body = b""
            for row in numbers[::-1]:
                x = 0
                while x < width:
                    count = min(width - x, 5 if x % 2 else 6)
                    part = row[x : x + count]
                    if x % 3 and count >= 3:
                        stored = bytes(part) if bits == 8 else bytes(int(a) << 4 | int(b) for a, b in itertools.zip_longest(part[::2], part[1::2], fillvalue=0))
                        body += bytes([0, count]) + stored + b"\0" * (len(stored) % 2)
                    else:
                        count = 1
                        body += bytes([1, row[x] if bits == 8 else row[x] << 4])
                    x += count
                body += b"\0\0"
            body += b"\0\1"
            palette = b"".join(bytes([i * 255 // ((1 << bits) - 1)] * 3 + [0]) for i in range(1 << bits))
            header = struct.pack("<IiiHHIIIIII", 40, width, height, 1, bits, 1 if bits == 8 else 2, len(body), 0, 0, 0, 0)
            file = b"BM" + struct.pack("<IHHI", 54 + len(palette) + len(body), 0, 0, 54 + len(palette)) + header + palette + body
            levels = np.repeat((numbers.astype(np.uint16) * 255 // ((1 << bits) - 1)).astype(np.uint8)[..., None], 3, -1)
            add(f"bmp_{index}_runs_{bits}.bmp", lambda file=file: file, expected=lambda levels=levels: levels)


# --- GIF ------------------------------------------------------------------------------------------


def gif(indices, colors, screen, place, interlaced, transparent, local):
    """Codes of nine bits that never grow: a clear code often enough."""
    height, width = indices.shape
    order = range(height)
    if interlaced:
        order = [*range(0, height, 8), *range(4, height, 8), *range(2, height, 4), *range(1, height, 2)]
    values = [int(v) for y in order for v in indices[y]]
    codes = []
    for at in range(0, len(values), 200):
        codes += [256, *values[at : at + 200]]
    codes.append(257)
    bits = "".join(format(code, "09b")[::-1] for code in codes)
    packed = bytes(int(bits[i : i + 8][::-1], 2) for i in range(0, len(bits), 8))
    blocks = b"".join(bytes([len(packed[i : i + 255])]) + packed[i : i + 255] for i in range(0, len(packed), 255))
    table = bytes(v for color in colors for v in color)
    out = b"GIF89a" + struct.pack("<HHBBB", *screen, 0x70 if local else 0xF7, 0, 0) + (b"" if local else table)
    if transparent is not None:
        out += b"!\xf9\4\1\0\0" + bytes([transparent]) + b"\0"
    flags = (0x87 if local else 0) | (0x40 if interlaced else 0)
    return out + b"," + struct.pack("<HHHHB", *place, width, height, flags) + (table if local else b"") + b"\x08" + blocks + b"\0;"


def gifs():
    # Number 0 is white, which is where Pillow shows the screen's own color around a frame.
    colors = [(255, 255, 255)] + [((i * 7) % 256, (i * 3 + 20) % 256, 255 - i) for i in range(1, 256)]
    for index in (0, 1, 4, 5, 8):
        indices = gray(SOURCES[index])
        height, width = indices.shape
        screens = {"same": (width, height), "zero": (0, 0), "small": (width // 2 + 1, height // 2 + 1), "narrow": (1, height), "large": (width + 9, height + 5)}
        for (name, screen), place, interlaced, transparent, local in itertools.product(
            screens.items(), ((0, 0), (3, 2)), (False, True), (None, 90), (False, True)
        ):
            if name == "zero" and place != (0, 0):
                continue
            if (name in ("same", "narrow")) + interlaced + local > 2:
                continue
            make = lambda i=indices, s=screen, p=place, n=interlaced, t=transparent, l=local: gif(i, colors, s, p, n, t, l)
            sides = max(screen[0], place[0] + width), max(screen[1], place[1] + height)

            def expected(i=indices, sides=sides, place=place, transparent=transparent):
                canvas = np.full((sides[1], sides[0], 3), 255, np.uint8)
                table = np.array(colors, np.uint8)
                if transparent is not None:
                    table[transparent] = 255
                canvas[place[1] : place[1] + i.shape[0], place[0] : place[0] + i.shape[1]] = table[i]
                return canvas

            add(f"gif_{index}_{name}_{place[0]}_{int(interlaced)}_{transparent}_{int(local)}.gif", make, expected=expected)


# --- WebP -----------------------------------------------------------------------------------------


def riff(*chunks):
    body = b"WEBP" + b"".join(tag + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2) for tag, data in chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def riff_chunks(file):
    at, chunks = 12, []
    while at < len(file):
        tag, size = file[at : at + 4], struct.unpack("<I", file[at + 4 : at + 8])[0]
        chunks.append((tag, file[at + 8 : at + 8 + size]))
        at += 8 + size + size % 2
    return chunks


def canvas(flags, width, height):
    return b"VP8X", bytes([flags, 0, 0, 0]) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")


def webps():
    for index in (0, 1, 3, 4, 5, 8):
        rgb = SOURCES[index]
        height, width = rgb.shape[:2]
        opaque, translucent = path(f"webp_{index}.ppm"), path(f"webp_{index}.png")
        with open(opaque, "wb") as file:
            file.write(ppm(rgb))
        Image.fromarray(np.concatenate([rgb, alpha(rgb)[..., None]], -1)).save(translucent)
        for label, source, options in [
            *((f"lossless_{z}", opaque, ["-lossless", "-z", z]) for z in "069"),
            *((f"lossless_alpha_{z}", translucent, ["-lossless", "-exact", "-z", z]) for z in "06"),
            *((f"q{q}_m{m}", opaque, ["-q", q, "-m", m]) for q in ("5", "60", "95") for m in "04"),
            *((f"alpha_q{q}_{f}", translucent, ["-q", q, "-alpha_filter", f]) for q in ("30", "90") for f in ("none", "fast", "best")),
            ("alpha_plain", translucent, ["-alpha_method", "0"]), ("near", opaque, ["-near_lossless", "40"]),
            ("sharp", opaque, ["-sharp_yuv", "-segments", "1", "-sns", "0"]), ("simple", opaque, ["-strong", "-f", "0"]),
            ("partitions", opaque, ["-q", "90", "-partition_limit", "50"]), ("nostrong", opaque, ["-nostrong", "-f", "90"]),
        ]:
            lossy = not label.startswith(("lossless", "near"))
            tolerance = LOSSY_WEBP if lossy else (1, 1) if "alpha" in label else EXACT
            encode = lambda source=source, options=options: run("cwebp", "-quiet", *options, source, "-o", "-")
            add(f"webp_{index}_{label}.webp", encode, tolerance)
            if label not in ("q60_m4", "lossless_6", "alpha_q90_fast", "lossless_alpha_6"):
                continue
            # Flags without chunks, chunks without flags, and chunks that nobody knows.
            for flags in (0x00, 0x04, 0x08, 0x10, 0x20, 0x3C):
                for extra in ([], [(b"XM\0P", b"abc")], [(b"eXiF", b"x" * 7), (b"iccp", b"yy")]):
                    def make(encode=encode, flags=flags, extra=extra, width=width, height=height):
                        pictures = [c for c in riff_chunks(encode()) if c[0] in (b"VP8 ", b"VP8L", b"ALPH")]
                        return riff(canvas(flags, width, height), *extra, *pictures, *extra)

                    def expected(encode=encode, flags=flags, label=label):
                        # What is alpha without the flag does not count, as in libwebp's demultiplexer.
                        image = Image.open(io.BytesIO(encode()))
                        return np.asarray(on_white(image) if flags & 0x10 else image.convert("RGB"))

                    if index in (0, 1) or (flags == 0x3C and not extra):
                        add(f"webp_{index}_{label}_flags{flags:02x}_{len(extra)}.webp", make, tolerance if lossy else (1, 1), expected)
            for orientation in (1, 3, 6, 8):
                for flags in (0x08, 0x00, 0x18):
                    def make(encode=encode, flags=flags, orientation=orientation, label=label, width=width, height=height):
                        pictures = [c for c in riff_chunks(encode()) if c[0] in (b"VP8 ", b"VP8L", b"ALPH")]
                        keep = flags | (0x10 if "alpha" in label else 0)
                        return riff(canvas(keep, width, height), *pictures, (b"EXIF", exif(orientation)))
                    if index == 0 and "alpha" not in label:
                        add(f"webp_{index}_{label}_exif{orientation}_{flags:02x}.webp", make, tolerance)
    frames = [Image.fromarray(SOURCES[0]).quantize(60), Image.fromarray(SOURCES[0][::-1].copy()).quantize(60)]
    frames[0].save(path("animated.gif"), save_all=True, append_images=frames[1:], duration=50)
    for options in ([], ["-lossy"], ["-mixed"], ["-min_size"]):
        make = lambda options=options: run("gif2webp", "-quiet", *options, path("animated.gif"), "-o", "-")
        add(f"webp_animated_{''.join(options).strip('-')}.webp", make, LOSSY_WEBP)
    for flags, left, top in itertools.product((0x02, 0x12), (0, 4), (0, 6)):
        def make(flags=flags, left=left, top=top):
            source = path("webp_8.png" if flags & 0x10 else "webp_8.ppm")
            pictures = riff_chunks(run("cwebp", "-quiet", "-lossless", "-exact", source, "-o", "-"))
            inner = riff(*[c for c in pictures if c[0] in (b"VP8L",)])[12:]
            w, h = 48, 31
            place = b"".join(v.to_bytes(3, "little") for v in (left // 2, top // 2, w - 1, h - 1, 100))
            return riff(canvas(flags, 60, 40), (b"ANIM", b"\0\0\0\0\0\0"), (b"ANMF", place + b"\0" + inner))
        add(f"webp_frame_{flags:02x}_{left}_{top}.webp", make, (1, 1))


# --- all ------------------------------------------------------------------------------------------


def finish(job):
    name, make, tolerance, expected, verdict = job
    try:
        data = make()
    except Refused as refusal:
        return None, f"{name}: {refusal}"
    try:
        image = np.asarray(reference(data)) if expected is None else expected()
        image = np.asarray(image, np.uint8)
    except (OSError, ValueError, SyntaxError) as error:
        if verdict == "equal":
            return None, f"{name}: Pillow: {error}"
        image = np.zeros((1, 1, 3), np.uint8)
    with open(path(name), "wb") as file:
        file.write(data)
    with open(path(name + ".rgb"), "wb") as file:
        file.write(np.ascontiguousarray(image).tobytes())
    height, width = image.shape[:2]
    return f"{name}\t{verdict}\t{width}\t{height}\t{tolerance[0]}\t{tolerance[1]}", None


def main():
    os.makedirs(OUT, exist_ok=True)
    for family in (jpegs, pngs, tiffs, bmps, gifs, webps):
        family()
    names = [job[0] for job in jobs]
    assert len(set(names)) == len(names), [name for name in names if names.count(name) > 1]
    with ThreadPoolExecutor(max_workers=os.cpu_count() + 1) as pool:
        done = list(pool.map(finish, jobs))
    left_out = [why for _, why in done if why]
    with open(path("left_out"), "w") as file:
        file.write("\n".join(left_out))
    with open(path("manifest"), "w") as file:
        file.write("".join(line + "\n" for line, _ in done if line))
    print(f"{len(jobs) - len(left_out)} pictures, {len(left_out)} that a tool or Pillow refused")


main()
