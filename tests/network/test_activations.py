"""The activations' values and slopes, against ball arithmetic (python-flint) and torch.

The slope constants are proved here on the whole real line: by interval subdivision of f' on [-R, R], and by a
decay argument, written out at `TAILS`, outside. The functions are written once more for this, as power series
over balls; their derivatives come from series arithmetic, not from a formula.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import flint
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from lipcert.errors import UnsupportedError, UsageError
from lipcert.network.activations import SELU_ALPHA, SELU_SCALE, SOFTPLUS_GAP, TABLE, slope_bound, slope_interval
from lipcert.network.operators import Elementwise

Series = Callable[[flint.arb_series], flint.arb_series]


def op(name: str, *parameters: float | np.ndarray) -> Elementwise:
    return Elementwise(name, tuple(np.asarray(p, dtype=np.float64) for p in parameters))


def interval(name: str, *parameters: float) -> tuple[float, float]:
    alpha, beta = slope_interval(op(name, *parameters))
    return float(alpha), float(beta)


@pytest.fixture(autouse=True)
def precision():
    before, flint.ctx.prec = flint.ctx.prec, 128
    yield
    flint.ctx.prec = before


# --- the smooth activations as power series over balls ------------------------------------------------------


def sigmoid(s: flint.arb_series) -> flint.arb_series:
    return 1 / (1 + (-s).exp())


def tanh(s: flint.arb_series) -> flint.arb_series:
    return 1 - 2 / (1 + (2 * s).exp())


def near(value: str) -> flint.arb:
    """A decimal constant, and every float64 that may stand for it."""
    return flint.arb(value) + flint.arb(0, 1e-15)


def gelu(s: flint.arb_series) -> flint.arb_series:
    return s * (1 + (s / flint.arb(2).sqrt()).erf()) / 2


def gelu_tanh(s: flint.arb_series) -> flint.arb_series:
    root = (2 / flint.arb.pi()).sqrt() + flint.arb(0, 1e-15)
    return s * (1 + tanh(root * (s + near("0.044715") * s * s * s))) / 2


def mish(s: flint.arb_series) -> flint.arb_series:
    return s * (1 - 2 / ((1 + s.exp()) * (1 + s.exp()) + 1))


@dataclass(frozen=True)
class Smooth:
    """series: f. tail: bound, for x >= RADIUS, of |f'(x) - 1| and |f'(-x)|."""

    series: Series
    tail: Callable[[flint.arb], flint.arb]


def exp(x: flint.arb) -> flint.arb:
    return x.exp()


# For x >= 4. The left tail follows from f'(-x) = 1 - f'(x) where f = x g, g(-x) = 1 - g(x). Each bound falls
# with x, its logarithmic derivative being below 3 / x - 1 < 0.
#   gelu: 1 - g <= e^(-x^2/2), x g' = x e^(-x^2/2) / sqrt(2 pi).
#   silu: 1 - s <= e^-x, x s (1 - s) <= x e^-x.
#   gelu_tanh: 1 - g <= e^(-2u), x g' = 2 x u' e^(2u) / (1 + e^(2u))^2 <= 2 x u' e^(-2u), and 2u >= 1.5 x,
#     u' <= 0.8 + 0.11 x^2 <= x^2.
#   mish: with q = w^2 + 2 w + 2, f' = 1 - 2 / q + 4 x w (w + 1) / q^2. Right, w = e^x: 2 / q <= 2 e^-2x, and the
#     last term <= 4 x e^-2x. Left, w = e^x <= 1: |f'| = |w (w + 2) / q + 4 x w (w + 1) / q^2| <= 1.5 w + 2 |x| w.
RADIUS = 10
TAILS = {
    "gelu": Smooth(gelu, lambda r: (1 + r) * exp(-r * r / 2)),
    "gelu_tanh": Smooth(gelu_tanh, lambda r: (1 + 2 * r**3) * exp(flint.arb("-1.5") * r)),
    "silu": Smooth(lambda s: s * sigmoid(s), lambda r: (1 + r) * exp(-r)),
    "mish": Smooth(mish, lambda r: (2 + 4 * r) * exp(-r)),
}


def derivatives(f: Series, x: flint.arb) -> tuple[flint.arb, flint.arb]:
    """Enclose f' and f'' over a ball."""
    flint.ctx.cap = 3
    found = f(flint.arb_series([x, 1], 3))
    return found[1], 2 * found[2]


def ball(value: Fraction) -> flint.arb:
    return flint.arb(flint.fmpq(value.numerator, value.denominator))


def lies_between(f: Series, alpha: float, beta: float, piece: tuple[Fraction, Fraction]) -> bool:
    """Whether f' is enclosed in [alpha, beta] over a piece, by its values or by its mean value form."""
    low, high = map(ball, piece)
    across, middle = low.union(high), (low + high) / 2
    try:
        slope, curvature = derivatives(f, across)
        forms = (slope, derivatives(f, middle)[0] + curvature * (across - middle))
    except ValueError:  # a ball too wide to divide by
        return False
    return any(flint.arb(alpha) <= form and form <= flint.arb(beta) for form in forms)


def prove_between(f: Series, alpha: float, beta: float) -> int:
    """Prove alpha <= f' <= beta on [-RADIUS, RADIUS] by bisection; return the number of pieces looked at."""
    work = [(Fraction(k), Fraction(k + 1)) for k in range(-RADIUS, RADIUS)]
    pieces = 0
    while work:
        low, high = work.pop()
        pieces += 1
        if not lies_between(f, alpha, beta, (low, high)):
            assert high - low > Fraction(1, 2**40), f"f' leaves [{alpha}, {beta}] near {float(low)}"
            work += [(low, (low + high) / 2), ((low + high) / 2, high)]
    return pieces


@pytest.mark.parametrize("name", TAILS)
def test_slopes_are_proved_on_the_real_line(name: str) -> None:
    alpha, beta = interval(name)
    assert prove_between(TAILS[name].series, alpha, beta) < 5000
    tail = TAILS[name].tail(flint.arb(RADIUS))
    assert flint.arb(alpha) <= -tail
    assert 1 + tail <= flint.arb(beta)


@pytest.mark.parametrize("name", TAILS)
def test_a_slightly_smaller_interval_is_not_proved(name: str) -> None:
    alpha, beta = interval(name)
    for narrower in ((alpha + 1e-12, beta), (alpha, beta - 1e-12)):
        with pytest.raises(AssertionError, match="leaves"):
            prove_between(TAILS[name].series, *narrower)


@pytest.mark.parametrize("name", TAILS)
def test_slopes_are_tight(name: str) -> None:
    alpha, beta = interval(name)
    f = TAILS[name].series
    points = [Fraction(k, 2**8) for k in range(-3 * 2**8, 3 * 2**8 + 1)]
    for fineness in (2**12, 2**16):  # a grid, then finer ones around the best points
        slopes = {x: float(derivatives(f, ball(x))[0]) for x in points}
        least, most = min(slopes, key=slopes.__getitem__), max(slopes, key=slopes.__getitem__)
        points = [x + Fraction(k, fineness) for x in (least, most) for k in range(-32, 33)]
    slopes_here = [derivatives(f, ball(x))[0] for x in points]
    assert any(slope >= flint.arb(beta) - 1e-9 for slope in slopes_here)
    assert any(slope <= flint.arb(alpha) + 1e-9 for slope in slopes_here)


def test_closed_forms_of_the_constants() -> None:
    one, pi = flint.arb(1), flint.arb.pi()
    gelu_top = (1 + one.erf()) / 2 + (-one).exp() / pi.sqrt()
    for name, top in (("gelu", gelu_top), ("erf", 2 / pi.sqrt())):
        assert top <= flint.arb(interval(name)[1]) <= top + 1e-13
    for name in ("gelu", "gelu_tanh", "silu"):  # f'(x) + f'(-x) = 1
        alpha, beta = interval(name)
        assert abs(Fraction(alpha) + Fraction(beta) - 1) <= Fraction(1, 10**15)


def test_smooth_slopes_between_simple_limits() -> None:
    """Where f' is one of these, the interval is that of its values, by the range of sigmoid and tanh."""
    for name in ("tanh", "softsign", "logsigmoid", "tanhshrink"):
        assert interval(name) == (0.0, 1.0)
    assert interval("sigmoid") == (0.0, 0.25)
    assert interval("sin") == interval("cos") == interval("abs") == (-1.0, 1.0)
    for name, f in (("sigmoid", sigmoid), ("tanh", tanh)):
        prove_between(f, -1e-12, interval(name)[1] + 1e-12)


# --- parameters ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "parameters", "expected"),
    [
        ("relu", (), (0.0, 1.0)),
        ("leaky_relu", (0.01,), (0.01, 1.0)),
        ("leaky_relu", (-0.5,), (-0.5, 1.0)),
        ("leaky_relu", (3.0,), (1.0, 3.0)),
        ("leaky_relu", (1.0,), (1.0, 1.0)),
        ("elu", (1.0,), (0.0, 1.0)),
        ("elu", (4.0,), (0.0, 4.0)),
        ("elu", (-2.0,), (-2.0, 1.0)),
        ("celu", (2.5,), (0.0, 1.0)),
        ("softplus", (3.0,), (0.0, 1.0)),
        ("softplus", (-3.0,), (0.0, 1.0)),
        ("clip", (0.0, 6.0), (0.0, 1.0)),
        ("clip", (-math.inf, 1.0), (0.0, 1.0)),
        ("clip", (-math.inf, math.inf), (1.0, 1.0)),
        ("clip", (1.0, 0.5), (0.0, 0.0)),
        ("hardsigmoid", (0.2, 0.5), (0.0, 0.2)),
        ("hardsigmoid", (-0.2, 0.5), (-0.2, 0.0)),
        ("hardswish", (), (-0.5, 1.5)),
        ("softshrink", (0.5,), (0.0, 1.0)),
    ],
)
def test_exact_slope_intervals(name: str, parameters: tuple[float, ...], expected: tuple[float, float]) -> None:
    assert interval(name, *parameters) == expected
    assert slope_bound(op(name, *parameters)) == max(map(abs, expected))


def test_selu_rounds_its_product_outward() -> None:
    exact = Fraction(SELU_SCALE) * Fraction(SELU_ALPHA)
    _, beta = interval("selu")
    assert exact <= Fraction(beta) <= exact * (1 + Fraction(1, 2**51))


def test_softplus_gap_covers_the_jump_at_the_threshold() -> None:
    jump = (1 + flint.arb(-20).exp()).log()
    assert jump <= flint.arb(SOFTPLUS_GAP) <= jump * (1 + flint.arb("1e-8"))
    x = torch.tensor([20.0, math.nextafter(20.0, 21.0)], dtype=torch.float64)
    deployed = functional.softplus(x)
    smooth = TABLE["softplus"].function(x.numpy(), np.array(1.0))
    assert deployed[0] > deployed[1]  # torch's form does jump
    assert (np.abs(deployed.numpy() - smooth) <= SOFTPLUS_GAP + 1e-14).all()


def test_parameter_arrays_give_slopes_entry_by_entry() -> None:
    slopes = np.array([-0.5, 0.25, 2.0])[:, None]
    alpha, beta = slope_interval(op("leaky_relu", slopes))
    np.testing.assert_array_equal(alpha, np.minimum(1, slopes))
    np.testing.assert_array_equal(beta, np.maximum(1, slopes))
    assert slope_bound(op("leaky_relu", slopes)) == 2.0
    alpha, beta = slope_interval(op("clip", np.zeros((2, 1)), np.ones(3)))
    assert alpha.shape == beta.shape == (2, 3)
    alpha, beta = slope_interval(op("hardsigmoid", np.ones(3), np.zeros((2, 1))))
    assert alpha.shape == beta.shape == (2, 3)


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        (op("leaky_relu", math.nan), UsageError),
        (op("leaky_relu", [0.1, math.nan]), UsageError),
        (op("clip", math.nan, 1.0), UsageError),
        (op("elu"), UsageError),
        (op("relu", 1.0), UsageError),
        (op("leaky_relu", math.inf), UnsupportedError),
        (op("elu", -math.inf), UnsupportedError),
        (op("celu", -1.0), UnsupportedError),
        (op("celu", 0.0), UnsupportedError),
        (op("softplus", 0.0), UnsupportedError),
        (op("softplus", math.inf), UnsupportedError),
        (op("clip", math.inf, math.inf), UnsupportedError),
        (op("clip", -math.inf, -math.inf), UnsupportedError),
        (op("softshrink", -0.5), UnsupportedError),
        (op("hardsigmoid", math.inf, 0.0), UnsupportedError),
        (op("hardshrink", 0.5), UnsupportedError),
        (op("exp"), UnsupportedError),
    ],
)
def test_inadmissible_parameters_are_refused(wrong: Elementwise, error: type[Exception]) -> None:
    for ask in (slope_interval, slope_bound):
        with pytest.raises(error, match="conv1"):
            ask(wrong, "conv1")


# --- every row, by sampling ---------------------------------------------------------------------------------

EXAMPLES: dict[str, list[tuple[float, ...]]] = {
    "leaky_relu": [(0.01,), (-0.7,), (1.7,)],
    "elu": [(1.0,), (4.0,), (-0.5,)],
    "celu": [(1.0,), (0.25,), (3.0,)],
    "softplus": [(1.0,), (0.125,), (-2.0,)],
    "clip": [(-1.0, 1.0), (0.0, math.inf), (-math.inf, math.inf), (2.0, 1.0)],
    "hardsigmoid": [(0.2, 0.5), (-0.3, 0.1)],
    "softshrink": [(0.5,), (0.0,)],
}
ROWS = [(name, parameters) for name in TABLE for parameters in EXAMPLES.get(name, [()])]


@pytest.mark.parametrize(("name", "parameters"), ROWS)
@given(data=st.data())
def test_difference_quotients_lie_in_the_interval(name: str, parameters: tuple[float, ...], data) -> None:
    """Over points that are far apart; the room allowed is the rounding error of the two values."""
    a, b = (np.array(data.draw(st.floats(-30, 30))) for _ in range(2))
    if abs(a - b) < 1e-3:
        return
    activation = op(name, *parameters)
    values = [TABLE[name].function(x, *activation.params) for x in (a, b)]
    quotient = (values[0] - values[1]) / (a - b)
    room = 1e-12 * (1 + abs(values[0]) + abs(values[1])) / abs(a - b)
    alpha, beta = slope_interval(activation)
    assert alpha - room <= quotient <= beta + room


@pytest.mark.parametrize(("name", "parameters"), ROWS)
def test_functions_are_quiet_and_finite_at_the_ends_of_float32(name: str, parameters: tuple[float, ...]) -> None:
    large = float(np.finfo(np.float32).max)
    x = np.array([-large, -1e4, -800.0, -1e-300, -0.0, 0.0, 1e-300, 800.0, 1e4, large])
    activation = op(name, *parameters)
    y = TABLE[name].function(x, *activation.params)
    assert y.dtype == np.float64
    assert y.shape == x.shape
    assert np.isfinite(y).all()
    for entry, value in zip(x, y, strict=True):  # 0-d arrays too
        single = TABLE[name].function(np.array(entry), *activation.params)
        assert np.shape(single) == ()
        assert single == pytest.approx(value, rel=1e-15, abs=0.0)


TORCH: dict[str, Callable[..., torch.Tensor]] = {
    "relu": functional.relu,
    "leaky_relu": functional.leaky_relu,
    "elu": functional.elu,
    "selu": functional.selu,
    "celu": functional.celu,
    "gelu": functional.gelu,
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "silu": functional.silu,
    "mish": functional.mish,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "softplus": lambda x, beta: functional.softplus(x, beta, threshold=1000),
    "softsign": functional.softsign,
    "clip": torch.clamp,
    "abs": torch.abs,
    "hardsigmoid": lambda x, alpha, beta: torch.clamp(alpha * x + beta, 0, 1),
    "hardswish": functional.hardswish,
    "logsigmoid": functional.logsigmoid,
    "tanhshrink": functional.tanhshrink,
    "softshrink": functional.softshrink,
    "erf": torch.erf,
    "sin": torch.sin,
    "cos": torch.cos,
}


@pytest.mark.parametrize(("name", "parameters"), ROWS)
def test_functions_agree_with_torch(name: str, parameters: tuple[float, ...]) -> None:
    x = np.concatenate([np.linspace(-60, 60, 4001), np.random.default_rng(0).normal(size=1000)])
    expected = TORCH[name](torch.from_numpy(x), *parameters).numpy()
    found = TABLE[name].function(x, *op(name, *parameters).params)
    np.testing.assert_allclose(found, expected, rtol=1e-13, atol=1e-15)


def test_hard_sigmoid_of_torch_is_a_clip_and_a_scale() -> None:
    x = np.linspace(-5, 5, 1001)
    found = TABLE["clip"].function(x + 3.0, np.array(0.0), np.array(6.0)) / 6.0
    np.testing.assert_allclose(found, functional.hardsigmoid(torch.from_numpy(x)).numpy(), rtol=0, atol=1e-15)


def test_the_table_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        TABLE["exp"] = TABLE["relu"]  # type: ignore[index]
