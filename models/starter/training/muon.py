"""Muon, an optimizer for matrices of weights: the momentum of the gradient, with all its singular values brought near 1.

Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/: five steps of a quintic Newton-Schulz iteration. Updates have the
root mean square of AdamW's (Liu et al. 2025, arXiv:2502.16982), so the two share a rate. torch.optim.Muon rounds to bfloat16,
which most processors do not compute with, and takes no kernels of convolutions.
"""

import torch

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
STEPS = 5
RMS = 0.2  # of an update, as AdamW's are


def orthogonalized(matrix: torch.Tensor) -> torch.Tensor:
    """`[rows, columns]` to a matrix with the same singular vectors, and singular values of about .7 to 1.2."""
    a, b, c = COEFFICIENTS
    x = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(STEPS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if matrix.shape[0] > matrix.shape[1] else x


class Muon(torch.optim.Optimizer):
    """For parameters of two dimensions and more; those after the first count as one."""

    def __init__(self, parameters, lr: float, momentum: float = 0.95, weight_decay: float = 0.0) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                kept = state["momentum"].lerp_(parameter.grad, 1 - group["momentum"])
                ahead = parameter.grad.lerp(kept, group["momentum"])  # Nesterov's
                update = orthogonalized(ahead.flatten(1))
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                size = RMS * max(update.shape) ** 0.5
                parameter.add_(update.view_as(parameter), alpha=-group["lr"] * size)
