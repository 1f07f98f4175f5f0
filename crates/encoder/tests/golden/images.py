#!/usr/bin/env python3
"""Makes the pictures and expected values that the image tests of this crate compare with.

    pip install pillow numpy transformers torch torchvision timm open_clip_torch
    python crates/encoder/tests/golden/images.py

writes crates/encoder/tests/data/images. Everything is drawn here, nothing is downloaded, and a
second run writes the same bytes with the same library versions, which are noted in
versions.json. References:

  decode.json      pictures of every format and mode, and decoded.bin with the RGB that Pillow and
                   `transformers.image_transforms.convert_to_rgb` make of them, EXIF applied
  resize.json      `PIL.Image.resize` with all filters, odd sizes
  preprocess.json  tensors of the PIL processors of transformers, of `timm.data.create_transform`
                   and of `open_clip.image_transform_v2`

Inputs of the last two are patterns that the Rust tests compute themselves, so only checksums and
a few samples are stored.
"""

import io
import json
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import PIL
from PIL import Image, ImageDraw, ImageOps

OUT = Path(__file__).resolve().parent.parent / "data" / "images"


def pattern(width, height):
    """A picture of all frequencies in integer arithmetic; `pattern` in tests/image_golden.rs."""
    y, x, c = np.mgrid[0:height, 0:width, 0:3].astype(np.uint32)
    smooth = (x * (3 + c)) // 2 + y * (5 - c)
    rough = (x * x * 7 + y * y * 13 + x * y * (11 + c)) >> 3
    edges = ((x // 5 + y // 3) % 4 == 0) * np.uint32(90)
    return ((smooth + (rough & 63) + edges) & 255).astype(np.uint8)


def scene(width, height):
    """A small drawn picture without a symmetry, gentle enough for JPEG."""
    y, x = np.mgrid[0:height, 0:width]
    rgb = np.stack([40 + 170 * x // width, 60 + 150 * y // height, 200 - 120 * (x + y) // (width + height)], -1)
    image = Image.fromarray(rgb.astype(np.uint8))
    draw = ImageDraw.Draw(image)
    draw.ellipse([width * 0.1, height * 0.15, width * 0.5, height * 0.7], fill=(220, 60, 40))
    draw.rectangle([width * 0.6, height * 0.5, width * 0.9, height * 0.95], fill=(30, 110, 220))
    draw.line([0, height - 2, width * 0.4, height * 0.8], fill=(250, 250, 240), width=2)
    return image


def alpha_ramp(width, height):
    y, x = np.mgrid[0:height, 0:width]
    return Image.fromarray(((x * 255 // (width - 1) + y * 3) % 256).astype(np.uint8))


# --- a PNG writer for what Pillow does not write ------------------------------------------------

ADAM7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]


def png_chunk(tag, body):
    return struct.pack(">I", len(body)) + tag + body + struct.pack(">I", zlib.crc32(tag + body))


def png(samples, bits, color, interlaced=False, extra=()):
    """`samples` is [height, width, channels] of integers below 2**bits."""
    height, width, _ = samples.shape

    def rows(part):
        out = b""
        for row in part.reshape(part.shape[0], -1):
            if bits == 16:
                out += b"\0" + row.astype(">u2").tobytes()
            elif bits == 8:
                out += b"\0" + row.astype(np.uint8).tobytes()
            else:
                digits = np.unpackbits(row.astype(np.uint8)[:, None], axis=1)[:, 8 - bits :]
                out += b"\0" + np.packbits(digits.reshape(-1)).tobytes()
        return out

    if interlaced:
        passes = [samples[y::dy, x::dx] for x, y, dx, dy in ADAM7]
        data = b"".join(rows(part) for part in passes if part.size)
    else:
        data = rows(samples)
    header = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, int(interlaced))
    chunks = [(b"IHDR", header), *extra, (b"IDAT", zlib.compress(data, 9)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(tag, body) for tag, body in chunks)


# --- a GIF whose first frame leaves part of the screen free ----------------------------------------


def gif_with_small_first_frame():
    screen, frame = (21, 15), (4, 3, 11, 8)
    colors = bytes([250, 30, 20, 20, 200, 60, 10, 40, 230, 255, 255, 255])
    width, height = frame[2:]
    indices = bytes((x + y) % 3 for y in range(height) for x in range(width))
    # Codes of three bits that never grow: a clear code after every two pixels.
    codes = []
    for at in range(0, len(indices), 2):
        codes += [4, *indices[at : at + 2]]
    codes.append(5)
    packed = sum(code << 3 * i for i, code in enumerate(codes))
    lzw = packed.to_bytes((3 * len(codes) + 7) // 8, "little")
    return (
        b"GIF89a" + struct.pack("<HHBBB", *screen, 0x91, 0, 0) + colors
        + b"," + struct.pack("<HHHHB", *frame, 0) + b"\x02" + bytes([len(lzw)]) + lzw + b"\0;"
    )


# --- pictures -------------------------------------------------------------------------------------


def saved(image, **options):
    buffer = io.BytesIO()
    image.save(buffer, **options)
    return buffer.getvalue()


def exif(orientation):
    tags = Image.Exif()
    tags[274] = orientation
    return tags


def pictures():
    """Yields name, bytes, tolerance in levels, and expected RGB where Pillow is not the judge."""
    rgb = scene(41, 29)
    gray = rgb.convert("L")
    ramp = alpha_ramp(41, 29)
    rgba = rgb.copy()
    rgba.putalpha(ramp)
    la = gray.copy()
    la.putalpha(ramp)
    palette = rgb.quantize(13)
    array = np.asarray(rgb)

    # JPEG. Decoders differ in the inverse DCT by one level and in chroma upsampling by a few.
    jpeg = dict(format="JPEG", quality=88)
    for name, sampling in [("444", 0), ("422", 1), ("420", 2)]:
        yield f"baseline_{name}.jpg", saved(rgb, subsampling=sampling, **jpeg), 3 if sampling == 0 else 6, None
        yield f"progressive_{name}.jpg", saved(rgb, subsampling=sampling, progressive=True, **jpeg), 3 if sampling == 0 else 6, None
    yield "gray.jpg", saved(gray, **jpeg), 2, None
    yield "gray_progressive.jpg", saved(gray, progressive=True, **jpeg), 2, None
    yield "restarts.jpg", saved(rgb, subsampling=2, restart_marker_blocks=1, **jpeg), 6, None
    yield "optimized.jpg", saved(rgb, subsampling=0, optimize=True, **jpeg), 3, None
    cmyk = saved(rgb.convert("CMYK"), **jpeg)
    yield "cmyk.jpg", cmyk, 4, None
    adobe = cmyk.index(b"Adobe")
    yield "ycck.jpg", cmyk[: adobe + 11] + b"\x02" + cmyk[adobe + 12 :], 6, None
    yield "comment_and_icc.jpg", saved(rgb, comment=b"x" * 300, icc_profile=bytes(range(200)), subsampling=0, **jpeg), 3, None
    yield "one_pixel.jpg", saved(Image.new("RGB", (1, 1), (200, 30, 90)), **jpeg), 3, None

    # PNG.
    def of(image, **options):
        return saved(image, format="PNG", **options)

    yield "rgb.png", of(rgb), 0, None
    yield "rgba.png", of(rgba), 0, None
    yield "gray.png", of(gray), 0, None
    yield "gray_alpha.png", of(la), 0, None
    yield "palette.png", of(palette), 0, None
    yield "palette_2_bits.png", of(rgb.quantize(4), bits=2), 0, None
    yield "palette_transparent.png", of(palette, transparency=bytes([0, 90, 200])), 0, None
    yield "one_bit.png", of(rgb.convert("1")), 0, None
    g8 = np.asarray(gray)[..., None]
    yield "gray_2_bits.png", png(g8 >> 6, 2, 0), 0, None
    yield "gray_4_bits.png", png(g8 >> 4, 4, 0), 0, None
    yield "interlaced.png", png(array, 8, 2, interlaced=True), 0, None
    yield "interlaced_one_bit.png", png(g8 >> 7, 1, 0, interlaced=True), 0, None
    color = tuple(int(v) for v in array[0, 0])
    yield "rgb_transparent_color.png", png(array, 8, 2, extra=[(b"tRNS", struct.pack(">HHH", *color))]), 0, None
    yield "gray_transparent_color.png", png(g8, 8, 0, extra=[(b"tRNS", struct.pack(">H", int(g8[0, 0, 0])))]), 0, None
    noise = (np.arange(41 * 29 * 3, dtype=np.uint32).reshape(29, 41, 3) * 37 & 255).astype(np.uint16)
    wide = array.astype(np.uint16) << 8 | noise
    yield "rgb_16_bits.png", png(wide, 16, 2), 0, None
    wide_alpha = np.concatenate([wide, (np.asarray(ramp).astype(np.uint16) << 8 | 7)[..., None]], -1)
    yield "rgba_16_bits.png", png(wide_alpha, 16, 6), 0, None
    # Pillow clips 16-bit gray at 255, a white picture. The upper byte is what everyone means.
    gray_wide = g8.astype(np.uint16) << 8 | noise[..., :1]
    yield "gray_16_bits.png", png(gray_wide, 16, 0), 0, np.repeat(g8, 3, -1)
    second = ImageOps.mirror(rgb)
    yield "animated.png", of(rgb, save_all=True, append_images=[second, gray.convert("RGB")]), 0, None
    yield "color_profile.png", of(rgb, icc_profile=bytes(200)), 0, None

    # GIF.
    yield "still.gif", saved(palette, format="GIF"), 0, None
    yield "interlaced.gif", saved(palette, format="GIF", interlace=1), 0, None
    yield "transparent.gif", saved(palette, format="GIF", transparency=2), 0, None
    yield "animated.gif", saved(palette, format="GIF", save_all=True, append_images=[second.quantize(5), gray]), 0, None
    # The screen around a first frame is empty, so it is white here; Pillow paints it black or in
    # the background color, depending on version and flags.
    small = gif_with_small_first_frame()
    canvas = np.full((15, 21, 3), 255, np.uint8)
    colors = np.array([[250, 30, 20], [20, 200, 60], [10, 40, 230]], np.uint8)
    y, x = np.mgrid[0:8, 0:11]
    canvas[3:11, 4:15] = colors[(x + y) % 3]
    yield "small_first_frame.gif", small, 0, canvas

    # WebP.
    yield "lossless.webp", saved(rgb, format="WEBP", lossless=True, quality=50), 0, None
    yield "lossless_alpha.webp", saved(rgba, format="WEBP", lossless=True, exact=True), 0, None
    yield "lossy.webp", saved(rgb, format="WEBP", quality=80), 1, None
    yield "lossy_alpha.webp", saved(rgba, format="WEBP", quality=80), 1, None
    yield "animated.webp", saved(rgb, format="WEBP", lossless=True, save_all=True, append_images=[second]), 0, None
    yield "animated_lossy.webp", saved(rgb, format="WEBP", quality=80, save_all=True, append_images=[second]), 1, None

    # BMP.
    for name, image in [("rgb", rgb), ("gray", gray), ("palette", palette), ("one_bit", rgb.convert("1")), ("rgba", rgba)]:
        yield f"{name}.bmp", saved(image, format="BMP"), 0, None

    # TIFF.
    for name, compression in [("raw", None), ("lzw", "tiff_lzw"), ("deflate", "tiff_adobe_deflate"), ("packbits", "packbits")]:
        yield f"{name}.tif", saved(rgb, format="TIFF", compression=compression), 0, None
    yield "rgba.tif", saved(rgba, format="TIFF"), 0, None
    yield "gray.tif", saved(gray, format="TIFF"), 0, None
    yield "one_bit.tif", saved(rgb.convert("1"), format="TIFF"), 0, None
    yield "cmyk.tif", saved(rgb.convert("CMYK"), format="TIFF"), 1, None
    yield "bigtiff.tif", saved(rgb, format="TIFF", big_tiff=True), 0, None
    yield "pages.tif", saved(rgb, format="TIFF", compression="tiff_lzw", save_all=True, append_images=[second, gray]), 0, None
    yield "gray_16_bits.tif", saved(Image.fromarray(gray_wide[..., 0]), format="TIFF"), 0, np.repeat(g8, 3, -1)

    # Orientation.
    turned = scene(26, 17)
    for orientation in range(1, 9):
        tags = exif(orientation)
        yield f"exif_{orientation}.jpg", saved(turned, exif=tags, subsampling=0, **jpeg), 3, None
        yield f"exif_{orientation}.png", of(turned, exif=tags), 0, None
        yield f"exif_{orientation}.webp", saved(turned, format="WEBP", lossless=True, exif=tags), 0, None
        yield f"exif_{orientation}.tif", saved(turned, format="TIFF", compression="tiff_lzw", exif=tags), 0, None


def make_decode():
    from transformers.image_transforms import convert_to_rgb

    folder = OUT / "files"
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    cases, decoded = [], b""
    for name, data, tolerance, expected in pictures():
        (folder / name).write_bytes(data)
        image = Image.open(io.BytesIO(data))
        # Pillow's TIFF plug-in reports the upright size.
        stored = (image.tag_v2[256], image.tag_v2[257]) if image.format == "TIFF" else image.size
        frames = getattr(image, "n_frames", 1)
        orientation = image.getexif().get(274, 1)
        if expected is None:
            # convert_to_rgb looks at the transparency that the file declares.
            expected = convert_to_rgb(ImageOps.exif_transpose(image), return_numpy=True)
        cases.append({
            "file": name, "format": image.format, "stored": list(stored), "frames": frames,
            "orientation": orientation, "upright": [expected.shape[1], expected.shape[0]],
            "offset": len(decoded), "tolerance": tolerance,
        })
        decoded += expected.tobytes()
    (OUT / "decoded.bin").write_bytes(decoded)
    write("decode.json", cases)
    # Recognized, and refused.
    refused = OUT / "refused"
    refused.mkdir(exist_ok=True)
    (refused / "picture.jp2").write_bytes(saved(scene(26, 17), format="JPEG2000"))
    (refused / "float.tif").write_bytes(saved(Image.fromarray(np.ones((5, 4), np.float32)), format="TIFF"))


# --- resizing -------------------------------------------------------------------------------------

FILTERS = ["nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"]
RESIZES = [
    ((64, 48), (32, 24)), ((64, 48), (31, 23)), ((33, 57), (224, 387)), ((101, 67), (67, 101)),
    ((224, 224), (224, 100)), ((224, 224), (100, 224)), ((50, 50), (50, 50)), ((1, 1), (16, 9)),
    ((3, 5), (224, 224)), ((2000, 3), (224, 7)), ((3, 2000), (7, 224)), ((640, 480), (298, 224)),
    ((1000, 10), (3200, 32)), ((517, 389), (61, 43)), ((16, 9), (1, 1)), ((1031, 769), (29, 24)),
    # Around the point where Pillow 13 exchanges the passes.
    ((129, 119), (86, 33)), ((129, 119), (86, 32)), ((108, 240), (22, 22)), ((7, 900), (64, 31)),
]


def checksum(array):
    return zlib.crc32(np.ascontiguousarray(array).tobytes())


def make_resize():
    cases = []
    for source, target in RESIZES:
        image = Image.fromarray(pattern(*source))
        for number, name in enumerate(FILTERS):
            out = np.asarray(image.resize(target, number))
            middle = out[target[1] // 2, target[0] // 2].tolist()
            cases.append({"from": source, "to": target, "filter": name, "crc32": checksum(out), "middle": middle})
    write("resize.json", cases)


# --- whole preprocessing -----------------------------------------------------------------------------

SIZES = [(640, 480), (101, 67), (67, 101), (224, 224), (1, 1), (3, 5), (300, 20), (225, 227), (90, 400)]


def tensor_case(kind, settings, size, tensor):
    tensor = np.ascontiguousarray(tensor, np.float32)
    flat = tensor.reshape(-1)
    return {
        "kind": kind, "settings": settings, "image": size, "shape": list(tensor.shape),
        "crc32": checksum(tensor), "samples": [float(v) for v in flat[:: max(1, flat.size // 7)]],
    }


def hf_processors():
    from transformers.models.beit.image_processing_pil_beit import BeitImageProcessorPil
    from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
    from transformers.models.convnext.image_processing_pil_convnext import ConvNextImageProcessorPil
    from transformers.models.deit.image_processing_pil_deit import DeiTImageProcessorPil
    from transformers.models.efficientnet.image_processing_pil_efficientnet import EfficientNetImageProcessorPil
    from transformers.models.levit.image_processing_pil_levit import LevitImageProcessorPil
    from transformers.models.mobilenet_v2.image_processing_pil_mobilenet_v2 import MobileNetV2ImageProcessorPil
    from transformers.models.mobilevit.image_processing_pil_mobilevit import MobileViTImageProcessorPil
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    imagenet = dict(image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225])
    yield CLIPImageProcessorPil()
    yield CLIPImageProcessorPil(size={"shortest_edge": 97}, crop_size=64, resample=1)
    yield CLIPImageProcessorPil(size={"height": 40, "width": 56}, crop_size={"height": 50, "width": 31})
    yield CLIPImageProcessorPil(do_resize=False, crop_size=111)
    yield CLIPImageProcessorPil(size={"shortest_edge": 60}, crop_size=91, do_normalize=False)
    yield BitImageProcessorPil(size={"shortest_edge": 256}, **imagenet)
    yield SiglipImageProcessorPil()
    yield SiglipImageProcessorPil(size={"height": 96, "width": 64}, do_rescale=False, resample=2)
    yield ViTImageProcessorPil()
    yield ViTImageProcessorPil(size=48, resample=4)
    yield DeiTImageProcessorPil()
    yield BeitImageProcessorPil()
    yield BlipImageProcessorPil(size={"height": 96, "width": 96})
    yield ConvNextImageProcessorPil(size={"shortest_edge": 224}, **imagenet)
    yield ConvNextImageProcessorPil(size={"shortest_edge": 288}, crop_pct=0.95, resample=5)
    yield ConvNextImageProcessorPil(size={"shortest_edge": 384})
    yield MobileNetV2ImageProcessorPil()
    yield MobileViTImageProcessorPil(size={"shortest_edge": 288})
    yield LevitImageProcessorPil()
    yield EfficientNetImageProcessorPil(size=64, rescale_factor=1 / 127.5, rescale_offset=True, include_top=False)
    yield SiglipImageProcessorPil(size={"height": 64, "width": 64}, resample=0)
    yield EfficientNetImageProcessorPil(size=64)


TIMM = [
    {"input_size": [3, 224, 224], "interpolation": "bicubic", "crop_pct": 0.9, "crop_mode": "center"},
    {"input_size": [3, 256, 256], "interpolation": "bilinear", "crop_pct": 0.95, "mean": [0, 0, 0], "std": [1, 1, 1]},
    {"input_size": [3, 160, 224], "interpolation": "bicubic", "crop_pct": 0.875},
    {"input_size": [3, 128, 128], "interpolation": "bicubic", "crop_pct": 1.0, "crop_mode": "squash"},
    {"input_size": [3, 96, 96], "interpolation": "lanczos", "crop_pct": 0.9, "crop_mode": "border"},
]
OPEN_CLIP = [
    {"size": 224},
    {"size": [224, 224], "mode": "RGB", "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "interpolation": "bicubic", "resize_mode": "squash", "fill_color": 0},
    {"size": 256, "interpolation": "bilinear", "resize_mode": "shortest", "mean": [0, 0, 0], "std": [1, 1, 1]},
    {"size": [96, 128], "resize_mode": "shortest"},
    {"size": 112, "resize_mode": "longest", "fill_color": 127},
]


def make_preprocess():
    cases = []
    for processor in hf_processors():
        settings = json.loads(processor.to_json_string())
        for size in SIZES:
            pixels = processor(Image.fromarray(pattern(*size)), return_tensors="np")["pixel_values"][0]
            cases.append(tensor_case("hf", settings, size, pixels))

    from timm.data import create_transform

    for settings in TIMM:
        full = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "crop_mode": "center", **settings}
        transform = create_transform(**{**full, "input_size": tuple(full["input_size"])}, is_training=False)
        for size in SIZES:
            if settings.get("crop_mode") == "border" and max(size) > 6 * min(size):
                continue
            cases.append(tensor_case("timm", settings, size, transform(Image.fromarray(pattern(*size))).numpy()))

    from open_clip.transform import PreprocessCfg, image_transform_v2

    for settings in OPEN_CLIP:
        cfg = {key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()}
        transform = image_transform_v2(PreprocessCfg(**cfg), is_train=False)
        for size in SIZES:
            cases.append(tensor_case("open_clip", settings, size, transform(Image.fromarray(pattern(*size))).numpy()))
    write("preprocess.json", cases)


def write(name, cases):
    lines = ",\n".join(json.dumps(case, sort_keys=True) for case in cases)
    (OUT / name).write_text(f"[\n{lines}\n]\n")


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    make_decode()
    make_resize()
    make_preprocess()
    versions = {"python": sys.version.split()[0], "pillow": PIL.__version__, "numpy": np.__version__}
    for module in ["transformers", "torch", "torchvision", "timm", "open_clip"]:
        versions[module] = getattr(sys.modules.get(module), "__version__", None)
    (OUT / "versions.json").write_text(json.dumps(versions, indent=2) + "\n")


if __name__ == "__main__":
    main()
