"""The image tower: what a picture shows, its colors, and how it looks.

Meaning comes from a residual network of dense 3x3 convolutions. Appearance, by which copies are found, comes from a much
smaller one that sees little: 16 x 16 cells of brightness, contrast evened out. What copying takes away (sharpness, color,
exposure) it never had, and left and right are alike to it. Colors are named pixel by pixel (`colors.py`).
"""

import torch
from torch import nn
from torch.nn import functional as F

INPUT = 64  # side of the pictures that the exported graph takes
# What the graph looks at: (side that the whole picture is shrunk to, side of the square in its middle, mirrored or not).
LOOKS = [(64, 64, False), (48, 48, True), (64, 48, False)]
MEANING, COLORS, APPEARANCE = 192, 11, 53
SKETCHED = 64  # of what the appearance network makes, `refit.py` keeps the APPEARANCE directions that tell pictures apart best
# Parts of a picture's squared length. They are fixed, so appearance changes no ranking by text, and colors none by a text
# without a color's name; appearance lets a picture find its own copies.
SHARES = {"meaning": 0.69, "colors": 0.02, "appearance": 0.29}
STEM = 32
STAGES = [(64, 1), (128, 2), (320, 2)]  # (channels, residual blocks); each stage halves the side
FEATURES = 640
SMALL = 48  # side of training pictures: cheap, and with random crops what is in them appears as large as in 64 pixels
CELLS = 16  # side of the appearance network's input
SKETCH = [24, 48, 96]  # its channels; all but the first layer halve the side
CONTRAST_FLOOR = 0.02  # brightness spread (of 0..1) below which a picture counts as flat
MEAN, STD = [0.48, 0.45, 0.40], [0.26, 0.26, 0.27]
LUMA = [0.299, 0.587, 0.114]


def conv(inputs: int, outputs: int, stride: int = 1, side: int = 3) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, side, stride, side // 2, bias=False), nn.BatchNorm2d(outputs))


class Block(nn.Module):
    """Two 3x3 convolutions beside an identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = conv(channels, channels), conv(channels, channels)
        nn.init.zeros_(self.second[1].weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(x + self.second(F.relu(self.first(x))))


class Stage(nn.Module):
    def __init__(self, inputs: int, channels: int, blocks: int) -> None:
        super().__init__()
        self.down = conv(inputs, channels, 2)
        self.blocks = nn.Sequential(*[Block(channels) for _ in range(blocks)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.blocks(F.relu(self.down(x)))


class Meaning(nn.Module):
    """Pixels `[n, 3, side, side]` (normalized by MEAN and STD) to unit vectors `[n, 192]` and pooled features `[n, 640]`."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, STEM, 2)
        widths = [STEM, *[channels for channels, _ in STAGES]]
        self.stages = nn.ModuleList(Stage(widths[i], *stage) for i, stage in enumerate(STAGES))
        self.features = conv(widths[-1], FEATURES, side=1)
        self.head = nn.Linear(FEATURES, MEANING)

    def pooled(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.stem(x))
        for stage in self.stages:
            x = stage(x)
        return F.relu(self.features(x)).mean((2, 3))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.pooled(x)
        return F.normalize(self.head(features).float(), dim=1), features


class Appearance(nn.Module):
    """Pixels `[n, 3, side, side]` (normalized by MEAN and STD) to unit vectors `[n, 64]`, equal for mirror images."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([conv(1, SKETCH[0]), conv(SKETCH[0], SKETCH[1], 2), conv(SKETCH[1], SKETCH[2], 2)])
        self.head = nn.Linear(SKETCH[2] * (CELLS // 4) ** 2, SKETCHED)
        self.register_buffer("luma", (torch.tensor(LUMA) * torch.tensor(STD)).view(1, 3, 1, 1), persistent=False)

    def one_side(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = F.relu(layer(x))
        return self.head(x.flatten(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.avg_pool2d((x * self.luma).sum(1, keepdim=True), x.shape[-1] // CELLS)
        x = x - x.mean((2, 3), keepdim=True)
        x = x / (x.square().mean((2, 3), keepdim=True) + CONTRAST_FLOOR**2).sqrt()
        return F.normalize((self.one_side(x) + self.one_side(x.flip(3))).float(), dim=1)
