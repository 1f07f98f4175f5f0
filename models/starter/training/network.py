"""The image tower: two networks on the same 64-pixel picture, one for what it shows and one for how it looks.

Meaning comes from a residual network of dense 3x3 convolutions. Appearance, by which copies are found, comes from a much
smaller one that sees little: 16 x 16 cells of brightness, contrast evened out. What copying takes away (sharpness, color,
exposure) it never had, and left and right are alike to it.
"""

import torch
from torch import nn
from torch.nn import functional as F

MEANING, APPEARANCE = 192, 64
# Share of a picture's squared length that its meaning takes. Fixed, so it scales every text-to-image similarity alike
# and changes no ranking by text; what is left lets a picture find its own copies. With 0.64 a blurred one is found in .84
# of cases, with 0.5 in .97, as meaning shifts when a picture loses sharpness; appearance alone finds nearly all.
MEANING_SHARE = 0.5
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

    def of_views(self, x: torch.Tensor) -> torch.Tensor:
        """As `forward`'s vectors, from three looks at 64-pixel pictures `[n, 3, 64, 64]`: the whole, the whole mirrored at the
        48 pixels of training, and the middle 48 pixels. Costs little more than two looks at 64 pixels."""
        small = F.interpolate(x.flip(3), size=(SMALL, SMALL), mode="bilinear", align_corners=False)
        margin = (x.shape[-1] - SMALL) // 2
        center = x[:, :, margin : margin + SMALL, margin : margin + SMALL]
        return F.normalize(self.head((self.pooled(x) + self.pooled(small) + self.pooled(center)) / 3), dim=1)


class Appearance(nn.Module):
    """Pixels `[n, 3, 64, 64]` (normalized by MEAN and STD) to unit vectors `[n, 64]`, equal for mirror images."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([conv(1, SKETCH[0]), conv(SKETCH[0], SKETCH[1], 2), conv(SKETCH[1], SKETCH[2], 2)])
        self.head = nn.Linear(SKETCH[2] * (CELLS // 4) ** 2, APPEARANCE)
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


class ImageTower(nn.Module):
    """Both, as one unit vector `[n, 256]`: meaning, then appearance."""

    def __init__(self) -> None:
        super().__init__()
        self.meaning, self.appearance = Meaning(), Appearance()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([MEANING_SHARE**0.5 * self.meaning.of_views(x), (1 - MEANING_SHARE) ** 0.5 * self.appearance(x)], 1)
