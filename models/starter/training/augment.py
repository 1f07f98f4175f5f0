"""Random views of pictures, and the ways a picture is copied around. Batches are float `[n, 3, side, side]` in 0..1.

Everything is made on torch's default device, which the pictures are expected to be on.
"""

import math

import numpy as np
import torch
from scipy import ndimage
from torch.nn import functional as F

LUMA = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
_TO_YCC = torch.tensor([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
_QUANTA = torch.tensor([
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62,
    18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92, 49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
]).view(8, 8).float()  # fmt: skip
_ROWS, _COLUMNS = torch.arange(8).view(8, 1).float(), torch.arange(8).view(1, 8).float()
_DCT = torch.cos((2 * _COLUMNS + 1) * _ROWS * math.pi / 16) * torch.where(_ROWS == 0, math.sqrt(1 / 8), math.sqrt(2 / 8))


def uniform(n: int, low: float, high: float) -> torch.Tensor:
    return torch.rand(n, 1, 1, 1) * (high - low) + low


def warp(x: torch.Tensor, side: int, zoom: torch.Tensor, aspect: torch.Tensor, turn: torch.Tensor, shift: torch.Tensor, flip: torch.Tensor) -> torch.Tensor:
    """One affine resampling to `side` pixels. `zoom` is the part of the edge kept, `turn` in radians, `shift` `[n, 2]`
    in halves of the room that the crop leaves, `flip` is +1 or -1."""
    width, height = (zoom * aspect).clamp(max=1.2), zoom / aspect
    cosine, sine = torch.cos(turn), torch.sin(turn)
    room_x, room_y = (1 - width).clamp(min=0.06), (1 - height).clamp(min=0.06)
    top = torch.stack([width * cosine * flip, -height * sine, shift[:, 0] * room_x], 1)
    bottom = torch.stack([width * sine * flip, height * cosine, shift[:, 1] * room_y], 1)
    grid = F.affine_grid(torch.stack([top, bottom], 1), [len(x), 3, side, side], align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def random_view(x: torch.Tensor, side: int) -> torch.Tensor:
    """A crop, flip and small turn; about a third of the pictures stay whole."""
    n = len(x)
    whole = torch.rand(n) < 0.35
    zoom = torch.where(whole, 1.0, torch.rand(n) * 0.42 + 0.58)
    aspect = torch.where(whole, 1.0, torch.exp((torch.rand(n) - 0.5) * 0.35))
    turn = torch.where(torch.rand(n) < 0.3, torch.randn(n) * 0.12, 0.0)
    flip = torch.where(torch.rand(n) < 0.5, 1.0, -1.0)
    return warp(x, side, zoom, aspect, turn, torch.rand(n, 2) * 2 - 1, flip)


def color(x: torch.Tensor, strength: float) -> torch.Tensor:
    n = len(x)
    x = x * uniform(n, 1 - 0.4 * strength, 1 + 0.4 * strength)
    mean = x.mean((1, 2, 3), keepdim=True)
    x = (x - mean) * uniform(n, 1 - 0.4 * strength, 1 + 0.4 * strength) + mean
    gray = (x * LUMA.to(x)).sum(1, keepdim=True)
    saturation = uniform(n, 1 - 0.6 * strength, 1 + 0.5 * strength)
    saturation[torch.rand(n) < 0.05] = 0
    return ((x - gray) * saturation + gray).clamp(0, 1)


def blur(x: torch.Tensor) -> torch.Tensor:
    """A small binomial blur."""
    kernel = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
    x = F.conv2d(F.pad(x, (2, 2, 0, 0), "replicate"), kernel.view(1, 1, 1, 5).expand(3, 1, 1, 5), groups=3)
    return F.conv2d(F.pad(x, (0, 0, 2, 2), "replicate"), kernel.view(1, 1, 5, 1).expand(3, 1, 5, 1), groups=3)


def half(x: torch.Tensor) -> torch.Tensor:
    """Half size and back."""
    return F.interpolate(F.avg_pool2d(x, 2), scale_factor=2, mode="bilinear", align_corners=False)


def shrink(x: torch.Tensor) -> torch.Tensor:
    """Half size and back; for every other picture a quarter, which is half of a 32-pixel original."""
    small = F.interpolate(F.avg_pool2d(x, 4), scale_factor=4, mode="bilinear", align_corners=False)
    return torch.where((torch.arange(len(x)) % 2 == 0).view(-1, 1, 1, 1), half(x), small)


def jpeg(x: torch.Tensor, quality: torch.Tensor) -> torch.Tensor:
    """JPEG's loss without its files: 8x8 DCT, the standard luma table scaled to `quality` (1..100, `[n]`), and back."""
    n, _, side, _ = x.shape
    to_ycc, quanta, dct = _TO_YCC.to(x), _QUANTA.to(x), _DCT.to(x)
    scale = torch.where(quality < 50, 5000 / quality, 200 - 2 * quality) / 100
    quanta = (quanta * scale.view(n, 1, 1)).clamp(min=1).view(n, 1, 1, 1, 8, 8)
    ycc = torch.einsum("ij,njhw->nihw", to_ycc, x * 255)
    blocks = ycc.view(n, 3, side // 8, 8, side // 8, 8).transpose(3, 4)
    coefficients = torch.round(dct @ (blocks - 128 * (torch.arange(3) == 0).view(3, 1, 1, 1, 1)) @ dct.T / quanta) * quanta
    blocks = dct.T @ coefficients @ dct + 128 * (torch.arange(3) == 0).view(3, 1, 1, 1, 1)
    rgb = torch.einsum("ij,njhw->nihw", torch.linalg.inv(to_ycc), blocks.transpose(3, 4).reshape(n, 3, side, side))
    return (rgb / 255).clamp(0, 1)


def degrade(x: torch.Tensor) -> torch.Tensor:
    """Each picture, with small chance, loses quality: blur, half size, JPEG, noise."""
    x = x.clone()
    for chance, action in [
        (0.1, blur),
        (0.08, shrink),
        (0.06, lambda part: jpeg(part, torch.rand(len(part)) * 60 + 15)),
        (0.04, lambda part: (part + torch.randn_like(part) * 0.04).clamp(0, 1)),
    ]:
        chosen = torch.rand(len(x)) < chance
        if chosen.any():
            x[chosen] = action(x[chosen])
    return x


def banner(x: torch.Tensor) -> torch.Tensor:
    """Covers a strip along the top or bottom edge with one color and a line of text-like noise."""
    x, side = x.clone(), x.shape[-1]
    for picture in x:
        height = int(side * (0.1 + 0.1 * torch.rand(())))
        start = 0 if torch.rand(()) < 0.5 else side - height
        picture[:, start : start + height] = torch.rand(3, 1, 1)
        if torch.rand(()) < 0.7:
            row = start + height // 3
            picture[:, row : row + max(1, height // 3), 4 : side - 4] = (torch.rand(1, 1, side - 8) < 0.5).float()
    return x


def copy(x: torch.Tensor) -> torch.Tensor:
    """What happens to a picture that is passed on: one or two of re-encoding, resizing, toning, cropping, turning ..."""
    n, side = len(x), x.shape[-1]
    one, zero = torch.ones(n), torch.zeros(n)
    kind = torch.randint(0, 9, (n,))
    zoom = torch.where(kind == 0, 0.75 + 0.2 * torch.rand(n), one)
    turn = torch.where(kind == 1, (torch.rand(n) - 0.5) * 0.24, zero)
    flip = torch.where((kind == 2) | (torch.rand(n) < 0.1), -one, one)
    moved = (zoom < 1) | (turn != 0) | (flip < 0)
    x = x.clone()
    if moved.any():
        shift = (torch.rand(n, 2) * 2 - 1) * (kind == 0)[:, None]
        x[moved] = warp(x[moved], side, zoom[moved], one[moved], turn[moved], shift[moved], flip[moved])
    for number, action in [
        (3, lambda part: jpeg(part, torch.rand(len(part)) * 40 + 10)),
        (4, lambda part: (part * uniform(len(part), 0.55, 1.45)).clamp(0, 1)),
        (5, lambda part: (part * LUMA.to(part)).sum(1, keepdim=True).expand(-1, 3, -1, -1)),
        (6, banner),
        (7, lambda part: blur(blur(part)) if torch.rand(()) < 0.5 else blur(part)),
        (8, shrink),
    ]:
        chosen = (kind == number) | (torch.rand(n) < 0.07)
        if chosen.any():
            x[chosen] = action(x[chosen])
    return x


def backdrop_masks(pixels: np.ndarray) -> np.ndarray:
    """Where a flat backdrop shows around a drawing, bool `[n, side, side]`: the corner's color, connected to the edge."""
    masks = np.zeros(pixels.shape[:3], bool)
    for row, picture in enumerate(pixels):
        near = np.abs(picture.astype(np.int16) - picture[0, 0].astype(np.int16)).max(2) < 14
        regions, _ = ndimage.label(near)
        edge = np.unique(np.concatenate([regions[0], regions[-1], regions[:, 0], regions[:, -1]]))
        masks[row] = np.isin(regions, edge[edge > 0])
    return masks


def on_backdrop(x: torch.Tensor, masks: torch.Tensor, photos: torch.Tensor) -> torch.Tensor:
    """Puts drawings on other backdrops: a color, a gradient, or a blurred photo; a third keep their own."""
    n, side = len(x), x.shape[-1]
    ramp = torch.linspace(0, 1, side).view(1, 1, side, 1)
    flat = torch.rand(n, 3, 1, 1).expand(-1, -1, side, side)
    backdrop = torch.where(torch.rand(n, 1, 1, 1) < 0.5, flat, flat * (1 - ramp) + torch.rand(n, 3, 1, 1) * ramp)
    backdrop = torch.where(torch.rand(n, 1, 1, 1) < 0.4, blur(half(photos)), backdrop)
    replaced = masks[:, None] & (torch.rand(n, 1, 1, 1) < 0.67)
    return torch.where(replaced, backdrop, x)
