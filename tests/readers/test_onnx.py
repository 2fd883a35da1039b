"""The ONNX reader on real networks: what it reads is what onnxruntime computes."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from onnx_models import session

from lipcert.network import evaluate
from lipcert.network.readers.onnx.file import read_onnx

NETWORKS = [
    "acasxu/ACASXU_run2a_1_1_batch_2000",
    "acasxu/ACASXU_run2a_1_9_batch_2000",
    "acasxu/ACASXU_run2a_2_3_batch_2000",
    "acasxu/ACASXU_run2a_3_3_batch_2000",
    "acasxu/ACASXU_run2a_4_5_batch_2000",
    "acasxu/ACASXU_run2a_5_8_batch_2000",
    "glipsdp/cnn_C16_CH8",
    "glipsdp/cnn_C17_CH16",
    "glipsdp/cnn_C3_CH32",
    "glipsdp/cnn_C3_CH8",
    "glipsdp/cnn_C5_CH16",
    "glipsdp/cnn_C5_CH8",
    "glipsdp/cnn_C9_CH32",
    "glipsdp/cnn_C9_CH8",
    "glipsdp/mlp_L17_W16",
    "glipsdp/mlp_L17_W64",
    "glipsdp/mlp_L33_W32",
    "glipsdp/mlp_L33_W64",
    "glipsdp/mlp_L3_W16",
    "glipsdp/mlp_L3_W32",
    "glipsdp/mlp_L3_W64",
    "glipsdp/mlp_L5_W16",
    "glipsdp/mlp_L5_W64",
    "glipsdp/mlp_L65_W32",
    "glipsdp/mlp_L9_W32",
    "marabou/cnn_max_mninst2",
    "marabou/mnist2x10",
    "marabou/mnist5x20_leaky_relu",
    "marabou/softmax-last-layer",
    "vnncomp2020/logsig_100_100_30_20_onnx",
    "vnncomp2020/logsig_1024_onnx",
    "vnncomp2020/logsig_200_50_onnx",
    "vnncomp2020/logsig_256_100_50_onnx",
    "vnncomp2020/tansig_200_50_onnx",
    "vnncomp2020/tansig_256_100_50_onnx",
    "vnncomp2020/tansig_256_onnx",
    "vnncomp2021/Convnet_maxpool",
    "vnncomp2021/cifar_base_kw",
    "vnncomp2021/cifar_wide_kw",
    "vnncomp2021/marabou_cifar10_large",
    "vnncomp2021/marabou_cifar10_small",
    "vnncomp2021/mnist-net_256x2",
    "vnncomp2021/mnist-net_256x6",
    "vnncomp2021/mnist_relu_9_200",
    "vnncomp2021/resnet_2b",
]  # every ONNX file of the manifest but the one with attention, which is refused
CONVOLUTIONAL = ("cnn", "cifar", "Convnet", "resnet")
STATISTICS = {  # preprocessing as the manifest words it -> mean, standard deviation in units of [0, 1]
    "pixel/255, no normalisation": ([0.0], [1.0]),
    "raw pixel 0..255 (mean image subtracted inside the graph)": ([0.0], [1 / 255]),
    "(pixel/255-0.1307)/0.3081": ([0.1307], [0.3081]),
    "(pixel/255-[.485,.456,.406])/[.225,.225,.225]": ([0.485, 0.456, 0.406], [0.225] * 3),
    "(pixel/255-[.4914,.4822,.4465])/[.2471,.2435,.2616]": ([0.4914, 0.4822, 0.4465], [0.2471, 0.2435, 0.2616]),
}


@pytest.fixture(scope="module")
def manifest(shared_data):
    with (shared_data / "MANIFEST.csv").open() as file:
        return {row["file"]: row for row in csv.DictReader(file)}


def test_every_network_of_the_manifest_is_here(manifest):
    files = {name for name, row in manifest.items() if row["form"].startswith("onnx")}
    assert files == {f"models/{name}.onnx" for name in [*NETWORKS, "marabou/self-attention-mnist"]}


def samples(row, network, folder, count):
    """Return the first test samples as the network takes them, and their labels."""
    if row["n_samples"] == "0":
        return np.random.default_rng(1).uniform(-0.5, 0.5, (count, *network.input_shape)).astype(np.float32), None
    data = np.load(folder / "datasets" / ("mnist_test.npz" if "MNIST" in row["task"] else "cifar10_test.npz"))
    mean, std = STATISTICS[row["preprocessing"]]
    images = data["images"][:count] / np.float32(255)
    images = (images - np.float32(mean).reshape(-1, 1, 1)) / np.float32(std).reshape(-1, 1, 1)
    if row["input_shape"].startswith("N,H,W"):
        images = images.transpose(0, 2, 3, 1)
    return images.reshape(count, *network.input_shape).astype(np.float32), data["labels"][:count]


@pytest.mark.parametrize("name", NETWORKS)
def test_real_networks(name, manifest, shared_data):
    row = manifest[f"models/{name}.onnx"]
    path = shared_data / row["file"]
    network = read_onnx(path)
    assert network.dtype == "float32"
    assert network.hidden_neurons == int(row["n_hidden_neurons"])
    heavy = any(word in name for word in CONVOLUTIONAL)
    real, labels = samples(row, network, shared_data, 4 if heavy else 200)
    low, high = real.min(), real.max()
    noise = np.random.default_rng(0).uniform(low, high, (2, *network.input_shape)).astype(np.float32)
    x = np.concatenate([noise, real])
    found = session(path)
    stated = found.get_inputs()[0].shape
    dims = [d if isinstance(d, int) else 1 for d in stated]
    name_in = found.get_inputs()[0].name
    expected = np.stack([found.run(None, {name_in: v.reshape(dims)})[0].reshape(network.output_shape) for v in x])
    computed = evaluate(network, x.astype(np.float64))
    assert np.abs(computed - expected).max() <= 1e-5 * np.abs(expected).max()
    if labels is not None and not heavy:
        accuracy = (computed[2:].argmax(axis=1) == labels).mean()
        assert abs(accuracy - float(row["clean_accuracy"])) < 0.06  # 200 of 10000: three standard deviations
