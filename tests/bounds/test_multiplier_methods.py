"""`eclipse` and `lipsdp-cvxpy`: their order among the methods, and that no solver can lie them below the truth."""

import math
import subprocess
import sys

import numpy as np
import pytest
from oracles import lower_bound_by_sampling

from lipcert.bounds import conic, eclipse, lipsdp_cvxpy
from lipcert.bounds.chain import layer_gain, propagate
from lipcert.bounds.eclipse import Eclipse, Layer, choose
from lipcert.bounds.eclipse_fast import EclipseFast
from lipcert.bounds.engine import bound
from lipcert.bounds.lipsdp_cvxpy import LipSdpCvxpy
from lipcert.bounds.registry import METHODS
from lipcert.errors import InconclusiveError, UsageError
from lipcert.network import Builder
from lipcert.network.operators import Dense, Elementwise, Scale, Sum
from lipcert.network.readers import load
from lipcert.proof.subject import subject
from lipcert.testing.build import RELU, dense, exact, matrices, mlp

LEAKY = Elementwise("leaky_relu", (np.array(0.01),))
STEEP = Elementwise("leaky_relu", (np.array(-0.4),))
NETS = {
    "ReLU": mlp(matrices(100, 5, 7, 6, 3)),
    "leaky": mlp(matrices(101, 4, 6, 6, 5), LEAKY),
    "slopes of both signs": mlp(matrices(102, 4, 6, 5, 2), STEEP),
    "tanh": mlp(matrices(103, 4, 6, 3), Elementwise("tanh")),
    "silu": mlp(matrices(104, 3, 5, 4, 3), Elementwise("silu")),
    "wide input and output": mlp(matrices(105, 20, 5, 4, 15)),
    "bottleneck": mlp(matrices(106, 6, 2, 7, 3)),
    "deep": mlp([2.0 * w for w in matrices(107, 4, 5, 5, 5, 5, 5, 2)]),
    "uneven scales": mlp([w * f for w, f in zip(matrices(108, 4, 6, 5, 3), (2.0**40, 2.0**-40, 1e-3), strict=True)]),
}
NEW = ("eclipse", "lipsdp-cvxpy")
ROOM = 1.0 + 1e-6  # between values that were found numerically


@pytest.mark.parametrize("name", NETS)
def test_the_ladder_and_the_truth(name):
    network = NETS[name]
    found = {m: bound(network, m).value for m in ("product", "eclipse-fast", "eclipse", "lipsdp", "lipsdp-cvxpy")}
    assert found["lipsdp"] <= found["eclipse"] * ROOM
    assert found["eclipse"] <= found["eclipse-fast"] * ROOM
    assert found["eclipse-fast"] <= found["product"] * ROOM
    assert found["lipsdp-cvxpy"] == pytest.approx(found["lipsdp"], rel=1e-4)
    truth = lower_bound_by_sampling(network, "l2", np.random.default_rng(0), samples=100)
    assert all(value >= truth for value in found.values())


def test_eclipse_gains_over_the_closed_form():
    gains = [bound(NETS[n], "eclipse-fast").value / bound(NETS[n], "eclipse").value for n in ("ReLU", "deep", "leaky")]
    assert min(gains) > 1.01


@pytest.mark.parametrize("mean", [0.0, 1.0])
@pytest.mark.parametrize("slopes", [(0.0, 1.0), (0.01, 1.0), (-0.4, 1.0), (0.5, 0.5)])
def test_one_layer_against_random_search(slopes, mean):
    """No random multipliers make smaller what enters the next layer, and with it the objective."""
    rng = np.random.default_rng(7)
    first, behind = rng.normal(size=(4, 3)), rng.normal(size=(3, 4))
    alpha, beta = np.full(4, slopes[0]), np.full(4, slopes[1])
    layer = Layer(layer_gain(np.eye(3), first), behind, alpha, beta, mean)
    inverse, attempt, note = choose(layer, math.inf)
    assert attempt.solver == "CLARABEL" and note is None
    best = objective(layer, inverse)
    start = EclipseFast().layer(layer.gain, alpha, beta)
    for factor in np.exp(rng.normal(size=(3000, 4)) * rng.choice([0.1, 0.5, 1.0], size=(3000, 1))):
        for base in (start, inverse):
            assert objective(layer, base * factor) >= best * (1.0 - 1e-7)


def objective(layer, inverse):
    r = 0.5 * (layer.beta - layer.alpha)
    if np.linalg.eigvalsh(np.diag(inverse) - r[:, None] * layer.gain * r)[0] <= 0:
        return math.inf
    entering = layer.behind @ propagate(layer.gain, inverse, layer.alpha, layer.beta) @ layer.behind.T
    return np.linalg.norm(entering, 2) + layer.mean * np.trace(entering) / len(entering)


@pytest.mark.parametrize(("file", "published"), [("mlp_L3_W16", 6.277), ("mlp_L5_W16", 18.16)])
def test_eclipse_reaches_the_published_values(shared_data, file, published):
    """The published values are those of slopes [0, 1]; the networks' own slopes are [0.01, 1]."""
    leaky = load(shared_data / "models" / "glipsdp" / f"{file}.onnx", input_shape=(1, 28, 28))
    weights = [node.op.weight.mid for node in subject(leaky, "output").nodes if isinstance(node.op, Dense)]
    assert bound(leaky, "eclipse").value <= published
    assert bound(mlp(weights), "eclipse").value <= published


def lies(honest):
    """What a bad solver may leave in its variables."""
    rng = np.random.default_rng(3)
    return {
        "nan": np.full_like(honest, math.nan),
        "inf": np.full_like(honest, math.inf),
        "zero": np.zeros_like(honest),
        "negative": -np.abs(honest),
        "tiny": honest * 1e-12,
        "huge": honest * 1e12,
        "random": rng.exponential(size=honest.shape),
        "noise": honest * (1 + 0.1 * rng.normal(size=honest.shape)),
    }


KINDS = tuple(lies(np.ones(1)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", NEW)
def test_a_lying_solver_proves_nothing_untrue(method, kind, monkeypatch):
    """It says 'optimal', with a value far too good, and hands out wrong numbers."""

    def lie(problem, solvers, seconds):
        attempt = conic.ask(problem, solvers, seconds)
        for variable in problem.variables():
            variable.save_value(lies(np.asarray(variable.value, dtype=float))[kind])
        return conic.Attempt(attempt.solver, "optimal", attempt.value * 1e6, ())

    monkeypatch.setattr(eclipse, "ask", lie)
    monkeypatch.setattr(lipsdp_cvxpy, "ask", lie)
    for name in ("ReLU", "leaky"):
        best = bound(NETS[name], "lipsdp").value
        try:
            found = bound(NETS[name], method)
        except InconclusiveError:
            assert method == "lipsdp-cvxpy"
            continue
        assert found.value >= best * (1 - 1e-6)
        assert found.notes or kind == "noise"  # a little worse than the best is still better than the closed form
        if method == "eclipse":
            assert found.value <= bound(NETS[name], "eclipse-fast").value * ROOM


def test_numbers_that_are_not_finite_are_no_answer(monkeypatch):
    """`ask` itself goes on to the next solver, and in the end says why there is none."""
    import cvxpy as cp

    variable = cp.Variable(2)
    problem = cp.Problem(cp.Minimize(cp.sum(variable)), [variable >= 1])

    def broken(solver, **_):
        if solver == "SCS":
            raise cp.error.SolverError("no licence\nand more")
        variable.save_value(np.array([1.0, math.nan]))

    monkeypatch.setattr(problem, "solve", broken)
    attempt = conic.ask(problem, ("CLARABEL", "SCS"), 10.0)
    assert attempt.solver is None
    assert [text.partition(":")[0] for text in attempt.failures] == ["CLARABEL", "SCS"]
    assert attempt.failures[1] == "SCS: no licence"
    assert conic.ask(problem, ("SCS",), 0.0).failures == ("SCS: no time was left",)


def test_the_next_solver_is_asked_and_the_failure_reported(monkeypatch):
    import cvxpy as cp

    honest = cp.Problem.solve

    def no_clarabel(self, solver=None, **options):
        if solver == "CLARABEL":
            raise cp.error.SolverError("it broke")
        return honest(self, solver=solver, **options)

    monkeypatch.setattr(cp.Problem, "solve", no_clarabel)
    found = bound(NETS["ReLU"], "lipsdp-cvxpy")
    assert found.solver.name == "cvxpy SCS"
    assert any("CLARABEL: it broke" in note for note in found.notes)
    assert found.value == pytest.approx(bound(NETS["ReLU"], "lipsdp").value, rel=1e-4)


def test_no_time_is_said_and_never_hidden():
    with pytest.raises(InconclusiveError, match="no time was left"):
        bound(NETS["ReLU"], "lipsdp-cvxpy", time_limit=0.0)
    found = bound(NETS["ReLU"], "eclipse", time_limit=0.0)
    assert found.value <= bound(NETS["ReLU"], "eclipse-fast").value * ROOM
    assert sum("closed form" in note and "no time was left" in note for note in found.notes) == 2
    assert found.solver is None


def test_the_note_sets_the_claim_beside_the_proof():
    found = bound(NETS["ReLU"], "lipsdp-cvxpy")
    assert found.solver.name == "cvxpy CLARABEL" and found.solver.status == "optimal"
    assert "CLARABEL says 'optimal'" in found.notes[0] and f"prove {found.value:.7g}" in found.notes[0]


@pytest.mark.parametrize("method", NEW)
def test_linear_and_dead_neurons(method):
    weights = matrices(110, 4, 6, 5, 3)
    weights[0][2] = 0.0
    weights[1][:, 4] = 0.0
    slopes = Elementwise("leaky_relu", (np.array([1.0, 0.2, 0.0, 1.0, -0.5, 1.0]),))
    builder = Builder((4,))
    last = 0
    for op in (dense(weights[0]), slopes, dense(weights[1]), RELU, dense(weights[2])):
        last = builder.add(op, last)
    network = builder.build()
    found = bound(network, method).value
    assert found >= lower_bound_by_sampling(network, "l2", np.random.default_rng(1), samples=100)
    assert found <= bound(network, "eclipse-fast").value * ROOM


def test_a_layer_of_zeros():
    network = mlp([matrices(111, 3, 4)[0], np.zeros((4, 4)), matrices(112, 4, 2)[0]])
    assert all(0.0 <= bound(network, method).value < 1e-40 for method in NEW)


def test_too_large_networks_are_refused_with_the_limit():
    wide = subject(mlp([np.ones((700, 2)), np.ones((2, 700))]), "output")
    assert "600 at most" in Eclipse().refuses(wide, "l2")
    large = subject(mlp([np.ones((1200, 2)), np.ones((2, 1200))]), "output")
    assert "600000 at most" in LipSdpCvxpy().refuses(large, "l2")
    weights = [np.ones((300, 300)), np.ones((300, 300)), np.ones((2, 300))]
    assert LipSdpCvxpy().refuses(subject(mlp(weights), "output"), "l2") is None
    assert "40000000 at most" in LipSdpCvxpy().refuses(subject(mlp(weights, LEAKY), "output"), "l2")


def test_graphs_are_refused():
    builder = Builder((3,))
    inner = builder.add(RELU, builder.add(dense(matrices(113, 3, 3)[0]), 0))
    builder.add(Sum((1, 1)), 0, inner)
    for method in NEW:
        with pytest.raises(UsageError, match="not a chain"):
            bound(builder.build(), method)


def test_the_order_of_the_registry():
    names = ["product", "absolute", "gershgorin", "eclipse-fast", "eclipse", "lipsdp", "lipsdp-cvxpy", "lipsdp-layer"]
    assert [method.name for method in METHODS if method.name in names] == names


def test_weights_that_are_not_exact_cost_little():
    """Scaled weights are enclosed; the methods work on centres, the rule on enclosures."""
    weights = matrices(114, 4, 5, 3)
    builder = Builder((4,))
    last = builder.add(Dense(exact(weights[0]), exact(np.zeros(5))), 0)
    last = builder.add(Scale(exact(1.0) / exact(3.0), exact(0.0)), last)
    last = builder.add(Dense(exact(weights[1]), exact(np.zeros(3))), builder.add(RELU, last))
    network = builder.build()
    reference = bound(mlp([weights[0] / 3.0, weights[1]]), "lipsdp").value
    assert bound(network, "lipsdp-cvxpy").value == pytest.approx(reference, rel=1e-6)


def test_cvxpy_is_imported_late():
    code = "import sys, lipcert.bounds.registry; assert 'cvxpy' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
