"""Train the digits example and write its files beside this script.

Run it as ``python train.py``: about 40 seconds of one core, deterministic for a given machine and torch
build. ``python train.py --cross-validate`` trains on folds of the training part instead, and writes nothing;
the recipe's numbers were chosen that way, not on the test images.

The recipe in three sentences. All layers but the last are kept (semi-)orthogonal, so that the product of
their spectral norms, which is the global Lipschitz bound of the features, stays at 1. The loss does not see
logits but signed l2 radii: the margin over each rival class, divided by the norm of the difference of the two
last-layer rows. A cross-entropy over those radii, shifted by a target radius, pushes every training image's
certified radius upwards.
"""

from __future__ import annotations

import argparse
import io
import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from model import build
from safetensors.torch import save as safetensors_bytes
from sklearn.datasets import load_digits
from sklearn.model_selection import StratifiedKFold, train_test_split
from torch import Tensor, nn
from torch.nn import functional as F

HERE = Path(__file__).resolve().parent
OPSET = 18
CLASSES = 10
RADII = (0.0, 0.25, 0.5, 1.0)  # 0 stands for clean accuracy


@dataclass(frozen=True)
class Recipe:
    """Numbers of the training run; radii and noise are in the units of the image, l2, pixels in [0, 1]."""

    epochs: int = 800
    batch: int = 128
    learning_rate: float = 1e-2
    target_radius: float = 1.0  # what the loss asks for, beyond the 0.5 that we look at most
    temperature: float = 0.1  # how soft the maximum over rivals is
    noise: float = 0.05  # standard deviation of Gaussian noise on training images
    seed: int = 0


@dataclass(frozen=True)
class Images:
    """Images (N, 1, 8, 8), float32 in [0, 1], with labels (N,), int64."""

    x: Tensor
    y: Tensor

    def take(self, rows: np.ndarray) -> Images:
        """Return the images of the given rows (M,)."""
        index = torch.from_numpy(rows)
        return Images(self.x[index], self.y[index])


# ---------------------------------------------------------------------------------------------- the data


def load() -> Images:
    """Return the 1797 digits that scikit-learn carries; pixel / 16 is exact in float32."""
    digits = load_digits()
    x = torch.from_numpy((digits.images / 16.0).astype(np.float32))[:, None]
    return Images(x.contiguous(), torch.from_numpy(digits.target.astype(np.int64)))


def split(data: Images) -> tuple[Images, Images]:
    """Split into a training part (two thirds) and a test part (one third), stratified, seed 0."""
    rows = np.arange(len(data.y))
    train_rows, test_rows = train_test_split(rows, test_size=1 / 3, random_state=0, stratify=data.y.numpy())
    return data.take(train_rows), data.take(test_rows)


# ---------------------------------------------------------------------------------------------- training


def feature_layers(net: nn.Sequential) -> list[nn.Conv2d | nn.Linear]:
    """Return the affine layers below the last one; these are the ones kept orthogonal."""
    return [layer for layer in list(net)[:-1] if isinstance(layer, nn.Conv2d | nn.Linear)]


def tall(weight: Tensor) -> Tensor:
    """View a weight (out, in, ...) as a matrix with at least as many rows as columns.

    For a convolution whose stride equals its kernel size, without padding, the patches do not overlap: the
    whole operator is this matrix once per patch, so an orthogonal matrix makes an orthogonal operator.
    """
    matrix = weight.flatten(1)
    return matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T


def store_tall(target: Tensor, matrix: Tensor) -> None:
    """Write ``matrix``, shaped as ``tall(target)``, back into ``target`` (out, in, ...)."""
    rows = target.shape[0]
    target.copy_((matrix if matrix.shape[0] == rows else matrix.T).reshape(target.shape))


def nearest_orthogonal(matrix: Tensor, steps: int) -> Tensor:
    """Return the orthogonal factor of a tall matrix (m, n) by Newton-Schulz steps.

    They converge for singular values below sqrt(3). A step along the tangent space only lengthens them, and
    at the learning rate used here by less than that, so a few steps after each update are enough.
    """
    for _ in range(steps):
        matrix = 1.5 * matrix - 0.5 * matrix @ (matrix.T @ matrix)
    return matrix


@torch.no_grad()
def project_gradients(net: nn.Sequential) -> None:
    """Drop from each feature layer's gradient the part that would leave the orthogonal matrices."""
    for layer in feature_layers(net):
        gradient = layer.weight.grad
        assert gradient is not None
        w, g = tall(layer.weight), tall(gradient)
        inner = w.T @ g
        store_tall(gradient, g - w @ (inner + inner.T) / 2)


@torch.no_grad()
def retract(net: nn.Sequential) -> None:
    """Pull each feature layer back onto the orthogonal matrices after an optimiser step."""
    for layer in feature_layers(net):
        store_tall(layer.weight, nearest_orthogonal(tall(layer.weight), steps=4))


@torch.no_grad()
def polish(net: nn.Sequential) -> None:
    """Bring the feature layers to orthogonality up to float32 rounding, computing in float64."""
    for layer in feature_layers(net):
        store_tall(layer.weight, nearest_orthogonal(tall(layer.weight).double(), steps=12))


def signed_radii(logits: Tensor, labels: Tensor, last: Tensor) -> Tensor:
    """Return (N, 10): the label's margin over each rival, over the norm of the difference of their rows.

    ``logits`` (N, 10), ``labels`` (N,), ``last`` (10, features). Where the features are 1-Lipschitz, no
    perturbation shorter than entry j makes class j win over the label. The label's own entry is 0.
    """
    # The tiny constant keeps the square root differentiable at the label's own, zero, difference.
    distances = ((last[:, None] - last[None]).square().sum(-1) + 1e-12).sqrt()
    margins = logits.gather(1, labels[:, None]) - logits
    return margins / distances[labels]


def radius_loss(radii: Tensor, labels: Tensor, recipe: Recipe) -> Tensor:
    """Return the mean of t * log(1 + sum over rivals of exp((target - radius) / t)), ``radii`` (N, 10)."""
    own = F.one_hot(labels, CLASSES).bool()
    excess = ((recipe.target_radius - radii) / recipe.temperature).masked_fill(own, 0.0)
    return recipe.temperature * excess.logsumexp(1).mean()


def initialise(net: nn.Sequential) -> None:
    """Start every affine layer at a random (semi-)orthogonal matrix and zero bias."""
    for layer in net:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.orthogonal_(layer.weight)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)


def train(data: Images, recipe: Recipe) -> nn.Sequential:
    """Train a fresh network on ``data`` and return it in eval mode, plain weights only."""
    torch.manual_seed(recipe.seed)
    net = build()
    initialise(net)
    last = net[-1]
    assert isinstance(last, nn.Linear)
    batches = -(-len(data.y) // recipe.batch)
    steps = recipe.epochs * batches
    optimiser = torch.optim.Adam(net.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, recipe.learning_rate, total_steps=steps, pct_start=0.1, cycle_momentum=False
    )
    for _ in range(recipe.epochs):
        for rows in torch.randperm(len(data.y)).chunk(batches):
            x, y = data.x[rows], data.y[rows]
            logits = net(x + recipe.noise * torch.randn_like(x))
            optimiser.zero_grad()
            radius_loss(signed_radii(logits, y, last.weight), y, recipe).backward()
            project_gradients(net)
            optimiser.step()
            schedule.step()
            retract(net)
    polish(net)
    return net.eval()


# ---------------------------------------------------------------------------------------------- the check


def operator_norm(layer: nn.Conv2d | nn.Linear, shape: torch.Size) -> float:
    """Return the spectral norm of the whole affine operator on inputs (1, ...) of ``shape``, by dense SVD.

    The matrix comes from pushing the standard basis through, so stride and padding count as they are.
    """
    size = shape.numel()
    basis = torch.eye(size, dtype=torch.float64).reshape(size, *shape[1:])
    columns = (layer(basis) - layer(torch.zeros_like(basis[:1]))).flatten(1)
    return float(torch.linalg.matrix_norm(columns, 2))


@torch.no_grad()
def certified_radii(net: nn.Sequential, data: Images) -> tuple[float, Tensor]:
    """Return the features' Lipschitz bound and each image's radius (N,); negative where misclassified.

    Everything runs in float64 on the float32 weights. It is a measurement, not a proof: neither the SVD's
    nor the margins' rounding is bounded. The proof is lipcert's to give.
    """
    twin = build().double()
    twin.load_state_dict(net.state_dict())
    bound, x = 1.0, data.x[:1].double()
    for layer in list(twin)[:-1]:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            bound *= operator_norm(layer, x.shape)
        x = layer(x)
    last = twin[-1]
    assert isinstance(last, nn.Linear)
    radii = signed_radii(twin(data.x.double()), data.y, last.weight) / bound
    own = F.one_hot(data.y, CLASSES).bool()
    return bound, radii.masked_fill(own, torch.inf).amin(1)


def accuracies(radii: Tensor) -> list[float]:
    """Return the share of the radii (N,) above each of ``RADII``; the first share is clean accuracy."""
    return [float((radii > radius).double().mean()) for radius in RADII]


def report(title: str, shares: list[float]) -> None:
    """Print clean accuracy and certified accuracy at each radius."""
    certified = ", ".join(f"{share:.4f} at {eps:g}" for eps, share in zip(RADII[1:], shares[1:], strict=True))
    print(f"{title}: clean {shares[0]:.4f}; certified (float64 SVD check, not a proof) {certified}")


# ---------------------------------------------------------------------------------------------- the files


def write(name: str, content: bytes) -> None:
    """Write a file beside this script, whole or not at all."""
    temporary = HERE / f".{name}.{os.getpid()}.tmp"
    try:
        temporary.write_bytes(content)
        temporary.replace(HERE / name)
    finally:
        temporary.unlink(missing_ok=True)
    print(f"wrote {name}: {len(content)} bytes")


def onnx_bytes(net: nn.Sequential, example: Tensor) -> bytes:
    """Return the network as an ONNX file with a free batch axis and the weights inside."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns that torchvision is not installed
    program = torch.onnx.export(
        net,
        (example,),
        input_names=["images"],
        output_names=["logits"],
        opset_version=OPSET,
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    model = program.model_proto
    # The exporter notes source lines of the machine it ran on and its own names; they mean nothing elsewhere.
    graph = model.graph
    for part in (*graph.node, *graph.input, *graph.output, *graph.value_info):
        part.ClearField("metadata_props")
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def check_onnx(content: bytes, net: nn.Sequential, data: Images) -> None:
    """Fail unless onnxruntime computes the module's logits, for the whole set and for one image alone."""
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    for x in (data.x, data.x[:1]):
        (logits,) = session.run(None, {"images": x.numpy()})
        with torch.no_grad():
            np.testing.assert_allclose(logits, net(x).numpy(), rtol=1e-5, atol=1e-5)


def npz_bytes(data: Images) -> bytes:
    """Return the images and labels as a compressed npz file."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, images=data.x.numpy(), labels=data.y.numpy())
    return buffer.getvalue()


def cross_validate(data: Images, recipe: Recipe) -> None:
    """Print the accuracies on held-out thirds of ``data``, averaged."""
    folds = StratifiedKFold(3, shuffle=True, random_state=1).split(data.x.numpy(), data.y.numpy())
    shares = []
    for inside, outside in folds:
        _, radii = certified_radii(train(data.take(inside), recipe), data.take(outside))
        shares.append(accuracies(radii))
    report("mean over three folds of the training part", np.mean(shares, axis=0).tolist())


def main() -> None:
    """Train, measure and write, or cross-validate the recipe."""
    parser = argparse.ArgumentParser(description="Train the digits example.")
    parser.add_argument("--cross-validate", action="store_true", help="measure the recipe, write nothing")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # one thread sums in one order
    torch.use_deterministic_algorithms(True)
    training, test = split(load())
    recipe = Recipe()
    if arguments.cross_validate:
        cross_validate(training, recipe)
        return
    start = time.perf_counter()
    net = train(training, recipe)
    print(f"trained on {len(training.y)} images in {time.perf_counter() - start:.1f} s")
    bound, radii = certified_radii(net, test)
    print(f"Lipschitz bound of the features: {bound:.9f}")
    report(f"{len(test.y)} test images", accuracies(radii))
    content = onnx_bytes(net, test.x[:2])
    check_onnx(content, net, test)
    write("digits.onnx", content)
    write("digits.safetensors", safetensors_bytes(net.state_dict()))
    write("test.npz", npz_bytes(test))


if __name__ == "__main__":
    main()
