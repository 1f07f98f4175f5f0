"""The image tower: a small residual network of dense 3x3 convolutions on 64-pixel pictures."""

import torch
from torch import nn
from torch.nn import functional as F

MEANING, APPEARANCE = 192, 64
# Share of a picture's squared length that its meaning takes. Fixed, so it scales every text-to-image similarity alike
# and changes no ranking by text; what is left lets a picture find its own copies.
MEANING_SHARE = 0.64
STEM = 32
STAGES = [(64, 1), (128, 2), (320, 2)]  # (channels, residual blocks); each stage halves the side
FEATURES = 640
MEAN, STD = [0.48, 0.45, 0.40], [0.26, 0.26, 0.27]


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


class ImageTower(nn.Module):
    """Pixels `[n, 3, side, side]` (normalized by MEAN and STD) to unit vectors `[n, 256]`: meaning, then appearance."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, STEM, 2)
        widths = [STEM, *[channels for channels, _ in STAGES]]
        self.stages = nn.ModuleList(Stage(widths[i], *stage) for i, stage in enumerate(STAGES))
        self.features = conv(widths[-1], FEATURES, side=1)
        self.meaning = nn.Linear(FEATURES, MEANING)
        self.appearance = nn.Linear(FEATURES + widths[2], APPEARANCE)

    def parts(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Meaning `[n, 192]` and appearance `[n, 64]`, both unit length, and the pooled features `[n, 640]`."""
        x = self.stages[0](F.relu(self.stem(x)))
        middle = self.stages[1](x)
        x = F.relu(self.features(self.stages[2](middle)))
        features = x.mean((2, 3))
        seen = torch.cat([features, middle.mean((2, 3))], 1)
        return F.normalize(self.meaning(features).float(), dim=1), F.normalize(self.appearance(seen).float(), dim=1), features

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        meaning, appearance, _ = self.parts(x)
        return torch.cat([MEANING_SHARE**0.5 * meaning, (1 - MEANING_SHARE) ** 0.5 * appearance], 1)
