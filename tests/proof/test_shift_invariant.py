"""The torus, the symbols on it and the rule of all frequencies, against explicit matrices and Jacobians."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import lower_bound_by_sampling

from lipcert.bounds.registry import find_method
from lipcert.network import Builder, Network
from lipcert.network.linear import dense_matrix
from lipcert.network.operators import AvgPool, Conv, Dense, Elementwise, Reshape, Scale, Sum
from lipcert.proof.embedding import embed
from lipcert.proof.inequality import add_output, assemble, group
from lipcert.proof.refusal import Refused
from lipcert.proof.rules import RULES
from lipcert.proof.subject import subject
from lipcert.proof.torus import Torus, other_pieces, zero_piece
from lipcert.testing.build import RELU, chain, conv, dense, exact, matrices
from lipcert.testing.zoo import zoo

RULE = RULES["shift-invariant/v1"]
SERVED = ("convolutions, global average, layers", "circular convolutions", "1d convolutions, grouped and dilated")
LEAKY = Elementwise("leaky_relu", (np.array(0.2),))
SEEDS = st.integers(0, 2**32 - 1)


def random_convolution(rng: np.random.Generator, before: tuple[int, ...], circular: bool) -> Conv:
    """A stride-1 convolution of any kind that leaves a map."""
    channels, *size = before
    groups = int(rng.choice([g for g in (1, 2) if channels % g == 0]))
    kernel = [int(k) for k in rng.integers(1, 4, len(size))]
    dilation = tuple(int(d) for d in rng.integers(1, 3, len(size)))
    reach = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    if circular:  # the map keeps its size
        pads = [(int(a := rng.integers(0, r + 1)), r - int(a)) for r in reach]
    else:
        pads = [
            (int(rng.integers(0, 3)), int(rng.integers(max(0, r - n + 1), r + 3)))
            for r, n in zip(reach, size, strict=True)
        ]
    layer = conv(int(rng.integers(2**31)), (2 * groups, channels // groups, *kernel), groups=groups, circular=circular)
    return replace(layer, padding=tuple(pads), dilation=dilation)


def random_network(seed: int) -> Network:
    """Up to three convolutions on one or two axes, with each kind of end."""
    rng = np.random.default_rng(seed)
    builder = Builder((int(rng.integers(1, 3)), *(int(n) for n in rng.integers(2, 5, int(rng.integers(1, 3))))))
    last, circular = 0, bool(rng.random() < 0.4)
    for _ in range(int(rng.integers(1, 4))):
        last = builder.add(random_convolution(rng, builder.nodes[last].shape, circular), last)
        if rng.random() < 0.8:
            last = builder.add([RELU, LEAKY, Elementwise("silu")][int(rng.integers(3))], last)
    if not any(isinstance(node.op, Elementwise) for node in builder.nodes):
        last = builder.add(RELU, last)
    end = int(rng.integers(3))
    channels, *size = builder.nodes[last].shape
    if end < 2:
        window = tuple(size)
        count = np.full((1,) * len(size), float(math.prod(size)))
        last = builder.add(AvgPool(window, (1,) * len(size), ((0, 0),) * len(size), count), last)
        last = builder.add(
            dense(matrices(seed % 1000, channels, 3)[0]), builder.add(Reshape(), last, shape=(channels,))
        )
    if end == 1:
        last = builder.add(dense(matrices(seed % 999, 3, 2)[0]), builder.add(RELU, last))
    return builder.build()


# --- the embedding -------------------------------------------------------------------------------------------


def circulant(torus: Torus, stencil) -> np.ndarray:
    """The stencil on the torus as a matrix (out, *grid) x (in, *grid), entry by entry."""
    out, inner, _ = stencil.weight.shape
    points = list(itertools.product(*(range(n) for n in torus.grid)))
    place = {p: i for i, p in enumerate(points)}
    matrix = np.zeros((out, len(points), inner, len(points)))
    for tap, shift in enumerate(itertools.product(*stencil.shifts)):
        for p in points:
            read = tuple((a + s) % n for a, s, n in zip(p, shift, torus.grid, strict=True))
            matrix[:, place[p], :, place[read]] += stencil.weight.mid[:, :, tap]
    return matrix.reshape(out * len(points), inner * len(points))


def inside(torus: Torus, shape: tuple[int, ...]) -> np.ndarray:
    """Which entries of (channels, *grid) belong to a map of this shape."""
    mask = np.zeros((shape[0], *torus.grid), dtype=bool)
    mask[tuple(slice(0, n) for n in shape)] = True
    return mask.ravel()


@settings(max_examples=60, deadline=None)
@given(SEEDS)
def test_on_its_map_a_circular_convolution_is_the_padded_one(seed: int) -> None:
    normal = subject(random_network(seed), "output")
    try:
        torus = embed(normal)
    except Refused:
        return
    convolutions = [(i, node) for i, node in enumerate(normal.nodes) if isinstance(node.op, Conv)]
    stencils = [*(layer.stencil for layer in torus.layers), *([torus.closing] if torus.closing else [])]
    by_weight = {stencil.weight.mid.tobytes(): stencil for stencil in stencils}
    for _, node in convolutions:
        before = normal.nodes[node.inputs[0]].shape
        wanted = dense_matrix(node.op, before, node.shape)
        found = [
            circulant(torus, s)[np.ix_(inside(torus, node.shape), inside(torus, before))]
            for s in by_weight.values()
            if s.channels == (node.shape[0], before[0])
        ]
        assert any(np.array_equal(wanted, matrix) for matrix in found)


def test_grids() -> None:
    one = ((1, 1), (1, 1))
    padded = chain((1, 28, 28), conv(0, (2, 1, 3, 3), padding=one), RELU, conv(1, (2, 2, 3, 3), padding=one), RELU)
    assert embed(padded).grid == (29, 29)
    bare = chain((1, 9, 7), conv(0, (2, 1, 3, 3)), RELU, conv(1, (2, 2, 3, 3)), RELU)
    assert embed(bare).grid == (9, 7)
    around = chain((1, 6, 5), conv(0, (2, 1, 3, 3), padding=one, circular=True), LEAKY)
    torus = embed(around)
    assert torus.grid == (6, 5)
    assert torus.layers[0].alpha.tolist() == [0.2, 0.2]  # nothing is masked
    assert embed(chain((1, 6), conv(0, (2, 1, 3), padding=((1, 1),)), LEAKY)).layers[0].alpha.tolist() == [0.0, 0.0]


REFUSED = {
    "a stride": chain((1, 6), conv(0, (2, 1, 3), stride=2), RELU),
    "a dense layer on the map": chain((6,), dense(matrices(0, 6, 3)[0]), RELU),
    "no activation": chain((1, 6), conv(0, (2, 1, 3))),
    "no convolution": chain((2, 3), RELU),
    "windows": chain(
        (1, 6), conv(0, (2, 1, 3)), RELU, AvgPool((2,), (2,), ((0, 0),), np.full(2, 2.0)), conv(1, (2, 2, 2)), RELU
    ),
    "an average over a part of the map": chain(
        (1, 6), conv(0, (2, 1, 3)), RELU, AvgPool((3,), (2,), ((0, 0),), np.full(1, 3.0))
    ),
    "circles of two sizes": chain(
        (1, 6),
        conv(0, (2, 1, 3), padding=((1, 1),), circular=True),
        RELU,
        conv(1, (2, 2, 3)),
        RELU,
        conv(2, (2, 2, 3), padding=((1, 1),), circular=True),
        RELU,
    ),
    "a factor for each position": chain(
        (1, 3), conv(0, (1, 1, 1)), RELU, Scale(exact(np.ones((1, 3)) * 2), exact(0.0))
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_theorem_does_not_cover_is_refused(name: str) -> None:
    with pytest.raises(Refused):
        embed(REFUSED[name])
    assert find_method("lipsdp-conv").refuses(REFUSED[name], "l2")


def test_branches_are_refused() -> None:
    builder = Builder((1, 6))
    inner = builder.add(RELU, builder.add(conv(0, (1, 1, 3), padding=((1, 1),)), 0))
    builder.add(Sum((1, 1)), inner, 0)
    with pytest.raises(Refused, match="branches"):
        embed(builder.build())


# --- frequencies ---------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(SEEDS)
def test_symbols_are_enclosed(seed: int) -> None:
    """Against sums in extended precision, whose own error is a thousandth of the radii."""
    try:
        torus = embed(subject(random_network(seed), "output"))
    except Refused:
        return
    for layer in torus.layers:
        real, imaginary, radius = torus.symbol(layer.stencil, slice(None))
        weight = layer.stencil.weight.mid.astype(np.longdouble)
        for index, w in enumerate(torus.frequencies.T):
            turns = [
                sum(np.longdouble(int(a * s) % n) / n for a, s, n in zip(w, shift, torus.grid, strict=True))
                for shift in itertools.product(*layer.stencil.shifts)
            ]
            angle = 2 * np.arccos(np.longdouble(-1)) * np.array(turns)
            slack = np.longdouble(2.0) ** -60 * np.abs(weight).sum(axis=2)
            assert (np.abs((weight * np.cos(angle)).sum(axis=2) - real[index]) <= radius + slack).all()
            assert (np.abs((weight * np.sin(angle)).sum(axis=2) - imaginary[index]) <= radius + slack).all()


def whole_matrix(torus: Torus, multipliers: list[np.ndarray], target: float) -> np.ndarray:
    """Z on the torus, position by position: the multiplier rule for circulant matrices and repeated multipliers."""
    points = math.prod(torus.grid)
    rows = [circulant(torus, layer.stencil) for layer in torus.layers]
    slopes = [(np.repeat(a, points), np.repeat(b, points)) for a, b in torus.slopes[: len(rows)]]
    slopes += torus.slopes[len(rows) :]
    values = [np.repeat(m, points) for m in multipliers[: len(rows)]]
    last = np.eye(torus.channels[-1] * points) if torus.closing is None else circulant(torus, torus.closing)
    if torus.tail is not None:
        pool = np.kron(np.eye(torus.channels[-1]), np.full((1, points), float(torus.pooling.mid) / math.sqrt(points)))
        tail = [*(block.row for block in torus.tail.blocks), torus.tail.output]
        chained = [row[k].mid for k, row in enumerate(tail)]
        chained[0] = chained[0] @ pool
        rows, last = [*rows, *chained[:-1]], chained[-1]
        values = [*values, *multipliers[len(values) :]]
    sizes = [rows[0].shape[1], *(r.shape[0] for r in rows)]
    ends = np.cumsum(sizes)
    z = np.zeros((ends[-1], ends[-1]))
    z[: sizes[0], : sizes[0]] = np.eye(sizes[0])
    for k, (r, (a, b), m) in enumerate(zip(rows, slopes, values, strict=True)):
        here, before = slice(ends[k], ends[k + 1]), slice(ends[k] - sizes[k], ends[k])
        z[here, here] += np.diag(2 * m)
        z[here, before] -= ((a + b) * m)[:, None] * r
        z[before, here] -= (((a + b) * m)[:, None] * r).T
        z[before, before] += r.T @ ((2 * a * b * m)[:, None] * r)
    z[ends[-2] :, ends[-2] :] -= target * last.T @ last
    return z


def piece_matrices(piece, multipliers: list[np.ndarray], target: float) -> np.ndarray:
    """Z of a piece at its centres, as a stack of dense matrices."""
    blocks = assemble(piece, multipliers)
    add_output(blocks, piece, target)
    diagonal, below, _ = group(blocks, piece)
    ends = np.cumsum([0, *(block.shape[-1] for block in diagonal)])
    z = np.zeros((*diagonal[0].shape[:-2], ends[-1], ends[-1]))
    for k, block in enumerate(diagonal):
        z[..., ends[k] : ends[k + 1], ends[k] : ends[k + 1]] = block
    for k, block in enumerate(below):
        z[..., ends[k + 1] : ends[k + 2], ends[k] : ends[k + 1]] = block
        z[..., ends[k] : ends[k + 1], ends[k + 1] : ends[k + 2]] = block.swapaxes(-1, -2)
    return z


@settings(max_examples=40, deadline=None)
@given(SEEDS)
def test_all_frequencies_together_are_the_matrix_of_the_torus(seed: int) -> None:
    """Every eigenvalue of the pieces is one of the whole, and the other way round."""
    try:
        torus = embed(subject(random_network(seed), "output"))
    except Refused:
        return
    rng = np.random.default_rng(seed)
    multipliers = [rng.uniform(0.1, 2.0, len(alpha)) for alpha, _ in torus.slopes]
    whole = np.linalg.eigvalsh(whole_matrix(torus, multipliers, 0.3))
    doubled = [np.tile(values, 2) for values in multipliers[: len(torus.layers)]]
    parts = [piece_matrices(zero_piece(torus), multipliers, 0.3)]
    parts += [piece_matrices(piece, doubled, 0.3) for piece in other_pieces(torus)]
    found = np.concatenate([np.linalg.eigvalsh(part).ravel() for part in parts])
    size = np.abs(whole).max()
    assert all(np.abs(whole - value).min() <= 1e-11 * size for value in found)
    assert all(np.abs(found - value).min() <= 1e-11 * size for value in whole)


# --- the rule ------------------------------------------------------------------------------------------------


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_bounds_are_never_below_a_jacobian(seed: int) -> None:
    network = random_network(seed)
    normal = subject(network, "output")
    method = find_method("lipsdp-conv")
    if method.refuses(normal, "l2") is not None:
        return
    bound = RULE.derive(normal, "l2", method.propose(normal, "l2", 1.0).witness).bound
    assert bound >= lower_bound_by_sampling(network, "l2", np.random.default_rng(seed), 20)


@pytest.mark.parametrize("name", SERVED)
def test_witnesses_that_were_tampered_with(name: str) -> None:
    normal = subject(zoo()[name], "output")
    witness = dict(find_method("lipsdp-conv").propose(normal, "l2", None).witness)
    RULE.derive(normal, "l2", witness)
    values, target = witness["multipliers"], witness["inverse_square"]
    worse = {
        "a claim lowered by 1e-4": {"inverse_square": target * (1 + 2e-4)},
        "NaN": {"multipliers": np.full_like(values, math.nan)},
        "infinite": {"inverse_square": np.array([math.inf])},
        "negative": {"multipliers": -values},
        "all zero": {"multipliers": 0.0 * values},
        "a hundred times": {"multipliers": 100.0 * values},
        "one missing": {"multipliers": values[1:]},
        "F zero": {"inverse_square": np.array([0.0])},
        "an array more": {"grid": np.array([3.0])},
    }
    for change in worse.values():
        with pytest.raises(Refused):
            RULE.derive(normal, "l2", {**witness, **change})
    with pytest.raises(Refused):
        RULE.derive(normal, "linf", witness)


def test_with_circular_padding_the_ties_cost_nothing() -> None:
    """The optimum over all multipliers is reached by shift-invariant ones: means over all shifts are as good."""
    network = zoo()["circular convolutions"]
    normal = subject(network, "output")
    values = []
    for name in ("lipsdp", "lipsdp-conv"):
        proposal = find_method(name).propose(normal, "l2", None)
        values.append(RULES[proposal.rule].derive(normal, "l2", proposal.witness).bound)
    assert values[1] == pytest.approx(values[0], rel=2e-6)


def test_ties_and_the_torus_never_gain() -> None:
    for name in SERVED:
        normal = subject(zoo()[name], "output")
        tied, free = (find_method(m).propose(normal, "l2", None).witness for m in ("lipsdp-conv", "lipsdp"))
        assert tied["inverse_square"] <= free["inverse_square"] * (1 + 1e-5)


def test_a_single_layer_by_hand() -> None:
    """y = mean of relu(w x) over 4 positions, circular padding, one tap: the constant is w / 2."""
    average = AvgPool((4,), (1,), ((0, 0),), np.full(1, 4.0))
    network = chain((1, 4), Conv(exact(np.full((1, 1, 1), 3.0)), exact(0.0), (1,), ((0, 0),), (1,)), RELU, average)
    normal = subject(network, "output")
    proposal = find_method("lipsdp-conv").propose(normal, "l2", None)
    bound = RULE.derive(normal, "l2", proposal.witness).bound
    assert 1.5 <= bound <= 1.5 * (1 + 1e-5)
    assert isinstance(normal.nodes[-1].op, AvgPool)
    assert Dense not in {type(node.op) for node in normal.nodes}
