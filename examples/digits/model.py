"""The architecture of the digits example; the weights lie in ``digits.safetensors``."""

from __future__ import annotations

from torch import Tensor, nn


class Abs(nn.Module):
    """``|x|`` elementwise: 1-Lipschitz like ReLU, but its slope is +1 or -1, so it loses no gradient norm."""

    def forward(self, x: Tensor) -> Tensor:
        """Map a tensor of any shape to its absolute value, same shape."""
        return x.abs()


def build() -> nn.Sequential:
    """Return the untrained network in eval mode: images (N, 1, 8, 8) in [0, 1] to logits (N, 10).

    Load the trained weights with ``build().load_state_dict(safetensors.torch.load_file(path))``.
    """
    return nn.Sequential(
        nn.Conv2d(1, 8, kernel_size=2, stride=2),  # (N, 8, 4, 4)
        Abs(),
        nn.Flatten(),  # (N, 128)
        nn.Linear(128, 128),
        Abs(),
        nn.Linear(128, 128),
        Abs(),
        nn.Linear(128, 10),
    ).eval()
