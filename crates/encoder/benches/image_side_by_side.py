#!/usr/bin/env python3
"""CPU time of our image half next to Pillow's, in one run.

    pip install pillow numpy pillow-heif pillow-jxl-plugin
    python crates/encoder/benches/image_side_by_side.py

Draws photographs of two sizes (noise over gradients, about the bytes per pixel of a camera),
then alternates between the two: cargo bench --bench image_cpu, and Pillow doing decode, resize
to a shortest edge of 224 (bicubic), center crop and normalization as transformers does them.
"""

import io
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import PIL
import pillow_heif
import pillow_jxl  # noqa: F401
from PIL import Image, ImageFilter, ImageOps

MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)[:, None, None]
STD = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)[:, None, None]


def photo(width, height):
    rng = np.random.default_rng(7)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    base = np.stack([x / width * 200, y / height * 220, 128 + 100 * np.sin(x / 97) * np.cos(y / 131)], -1)
    noise = Image.fromarray(rng.integers(0, 255, (height, width, 3), np.uint8)).filter(ImageFilter.GaussianBlur(1))
    return Image.fromarray(np.clip(base + np.asarray(noise, np.float32) - 128, 0, 255).astype(np.uint8))


def decode(data):
    image = Image.open(io.BytesIO(data))
    image.load()
    return ImageOps.exif_transpose(image).convert("RGB")


def preprocess(image):
    short = min(image.size)
    size = tuple(int(224 * side / short) for side in image.size)
    image = image.resize(size, Image.Resampling.BICUBIC)
    left, top = (size[0] - 224) // 2, (size[1] - 224) // 2
    pixels = np.asarray(image.crop((left, top, left + 224, top + 224))).transpose(2, 0, 1)
    return ((pixels * (1 / 255)).astype(np.float32) - MEAN) / STD


def median(work):
    times = []
    while len(times) < 5 or sum(times) < 0.5:
        start = time.process_time()
        result = work()
        times.append(time.process_time() - start)
    return sorted(times)[len(times) // 2] * 1e3, result


def main():
    pillow_heif.register_heif_opener()
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for name, size, options in [
            ("640x480.jpg", (640, 480), dict(quality=90)),
            ("4000x3000.jpg", (4000, 3000), dict(quality=90)),
            ("4000x3000_progressive.jpg", (4000, 3000), dict(quality=90, progressive=True)),
            ("4000x3000_turned.jpg", (4000, 3000), dict(quality=90, exif=b"Exif\0\0II*\0\b\0\0\0\1\0\x12\1\3\0\1\0\0\0\6\0\0\0\0\0\0\0")),
            ("1024x768.png", (1024, 768), {}),
            ("1024x768.webp", (1024, 768), dict(quality=80)),
            ("4000x3000.avif", (4000, 3000), dict(quality=70, speed=9)),
            ("4000x3000.heic", (4000, 3000), dict(quality=60)),
            ("4000x3000.jxl", (4000, 3000), dict(quality=85, effort=3)),
        ]:
            path = Path(folder) / name
            photo(*size).save(path, **options)
            files.append(path)
        command = ["cargo", "bench", "--quiet", "-p", "imgvec-encoder", "--bench", "image_cpu", "--"]
        print(f"Pillow {PIL.__version__}; CPU ms, medians; ratio = Pillow / imgvec")
        print(f"{'file':28}{'bytes':>9} {'decode':>8}{'Pillow':>8} {'preproc':>8}{'Pillow':>8} {'both':>8}{'Pillow':>8}{'ratio':>7}")
        for path in files:
            ours = subprocess.run([*command, path], check=True, capture_output=True, text=True).stdout.split()
            ours = [float(ours[-2]), float(ours[-1])]
            data = path.read_bytes()
            decode_ms, image = median(lambda: decode(data))
            preprocess_ms, _ = median(lambda: preprocess(image))
            total, reference = sum(ours), decode_ms + preprocess_ms
            print(f"{path.name:28}{len(data):>9} {ours[0]:8.2f}{decode_ms:8.2f} {ours[1]:8.2f}{preprocess_ms:8.2f} {total:8.2f}{reference:8.2f}{reference / total:7.2f}")


if __name__ == "__main__":
    main()
