"""Writes QOI, PNM, ICO, JPEG XL and JPEG files into ../data/images/cases, each with the same picture as Pillow decodes it.

    pip install numpy pillow pillow-jxl-plugin
    python crates/encoder/tests/golden/simple_formats.py

The plugin writes and reads JPEG XL with libjxl; its animation is made with cjxl (libjxl-tools), of the frames of the PNG. Translucent pixels are blended with white, and the JPEG's expected picture is that of the file without what stands before its first marker.
"""

import io
import shutil
import struct
import subprocess
import tempfile
import zlib
from pathlib import Path

import numpy as np
import pillow_jxl  # noqa: F401
from PIL import Image

CASES = Path(__file__).resolve().parents[1] / "data" / "images" / "cases"
FRAMES = CASES.parent / "frames"


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


def on_white(image: Image.Image) -> Image.Image:
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    white.alpha_composite(image.convert("RGBA"))
    return white.convert("RGB")


def cels() -> list[Image.Image]:
    """Five transparent pictures of one size, each with a patch of its own, one of them translucent."""
    whole = Image.fromarray(picture(45, 20)).convert("RGBA")
    frames = [whole]
    for place, (color, alpha) in enumerate([((250, 20, 10), 255), ((10, 200, 30), 255), ((20, 30, 240), 255), ((255, 200, 0), 255)]):
        frame = Image.new("RGBA", whole.size)
        frame.paste((*color, alpha), (4 + 8 * place, 3 + 2 * place, 16 + 8 * place, 12 + 2 * place))
        frames.append(frame)
    return frames


def apng(frames: list[Image.Image], disposals: list[int], blends: list[int]) -> bytes:
    """Written by hand, as Pillow's writer joins frames that look alike: each frame is its patch alone."""

    def chunk(tag: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + tag + body + struct.pack(">I", zlib.crc32(tag + body))

    width, height = frames[0].size
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0))
    data += chunk(b"acTL", struct.pack(">II", len(frames), 0))
    sequence = 0
    for place, frame in enumerate(frames):
        left, top, right, bottom = (0, 0, width, height) if place == 0 else frame.getbbox()
        pixels = np.array(frame.crop((left, top, right, bottom)))
        rows = np.concatenate([np.zeros((bottom - top, 1), np.uint8), pixels.reshape(bottom - top, -1)], 1)
        fields = (sequence, right - left, bottom - top, left, top, 1, 10, disposals[place], blends[place])
        data += chunk(b"fcTL", struct.pack(">IIIIIHHBB", *fields))
        sequence += 1
        packed = zlib.compress(rows.tobytes())
        if place == 0:
            data += chunk(b"IDAT", packed)
        else:
            data += chunk(b"fdAT", struct.pack(">I", sequence) + packed)
            sequence += 1
    return data + chunk(b"IEND", b"")


def shown(frames: list[Image.Image], disposals: list[int], blends: list[int]) -> list[Image.Image]:
    """What a PNG of these frames shows, by its specification. Pillow 13 does not take back a frame whose disposal is 2."""
    canvas, result = Image.new("RGBA", frames[0].size), []
    for frame, disposal, blend in zip(frames, disposals, blends):
        box = frame.getbbox() if result else (0, 0, *frame.size)
        before = canvas.copy()
        if blend:
            canvas.alpha_composite(frame.crop(box), box[:2])
        else:
            canvas.paste(frame.crop(box), box)
        result.append(on_white(canvas))
        if disposal == 1:
            canvas.paste((0, 0, 0, 0), box)
        elif disposal == 2:
            canvas = before
    return result


def write_frames() -> None:
    """Animations and pages, and each frame but the first as Pillow, or the specification, shows it."""
    shutil.rmtree(FRAMES, ignore_errors=True)
    FRAMES.mkdir()
    frames, disposals, blends = cels(), [0, 1, 2, 0, 0], [0, 1, 1, 1, 0]
    files = {
        "disposals.png": apng(frames, disposals, blends),
        "lossless.webp": encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True),
        "disposals.gif": encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], disposal=[1, 1, 3, 1, 1]),
        "pages.tif": encoded(
            frames[0].convert("RGB"), "TIFF", save_all=True,
            append_images=[frames[0].convert("L").resize((30, 41)), frames[0].convert("P")],
        ),
    }  # fmt: skip
    for name, data in files.items():
        (FRAMES / name).write_bytes(data)
        with Image.open(io.BytesIO(data)) as image:
            for number in range(1, image.n_frames):
                image.seek(number)
                on_white(image).save(FRAMES / f"{name}.{number + 1}.expected.png")
    whole_frames = shown(frames, disposals, blends)
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "whole.png"
        whole.write_bytes(apng([frame.convert("RGBA") for frame in whole_frames], [0] * 5, [0] * 5))
        subprocess.run(["cjxl", whole, FRAMES / "lossless.jxl", "-d", "0", "--quiet"], check=True)
    for number, frame in enumerate(whole_frames[1:], 2):
        for name in ["disposals.png", "lossless.jxl"]:
            frame.save(FRAMES / f"{name}.{number}.expected.png")


def write_large() -> None:
    """Pictures of 46 megapixels in a few kilobytes, for limits of time and memory."""
    target = CASES.parent / "large"
    target.mkdir(exist_ok=True)
    y, x = np.mgrid[0:6800, 0:6800]
    with tempfile.TemporaryDirectory() as folder:
        for name, pixels, options in [
            ("lossy", (x + y) // 64 % 256, ["-d", "4", "-e", "3"]),
            ("lossless", y // 27 % 256, ["-d", "0", "-e", "2"]),
        ]:
            source = Path(folder) / "picture.pgm"
            source.write_bytes(b"P5 6800 6800 255\n" + pixels.astype(np.uint8).tobytes())
            subprocess.run(["cjxl", source, target / f"{name}.jxl", *options, "--quiet"], check=True)


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
    write_frames()
    write_large()


if __name__ == "__main__":
    main()
