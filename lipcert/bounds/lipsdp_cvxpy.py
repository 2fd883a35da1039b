r"""`lipsdp-cvxpy`: LipSDP through CVXPY in banded form, a second way to the optimum of `lipsdp`.

The matrix Z of the multiplier rule is block tridiagonal on a chain. It is positive semidefinite if and only if
it is a sum of positive semidefinite matrices on two neighbouring blocks each (chordal decomposition), that is if
there are symmetric Q_1 .. Q_{l-1} with

    [ Q_{k-1} + 2 W_k' Lambda_k alpha_k beta_k W_k    -W_k' Lambda_k (alpha_k + beta_k) ]
    [ .                                               2 Lambda_k - Q_k                  ]  >=  0,   k = 1 .. l,

Q_0 = I and Q_l = F C'C; F is maximised. An input wider than the first layer is replaced by the triangle of QR factors
(only W_1 W_1' counts). Block k is measured in units of g_k, a power of two near the size that `eclipse-fast` gives
it: W_k -> W_k g_{k-1} / g_k, lambda_k -> lambda_k g_k^2, F -> F g_{l+1}^2, so that all multipliers are of order 1.
They are capped: those of dead and of linear neurons would be infinite.

The solver's status and value are not believed. Its multipliers, clipped to be non-negative, are mixed with those of
`eclipse-fast` in several shares (the feasible set is convex, and those lie inside), the best mixture is proposed,
and the rule decides. Where nothing of the solver is of use, there is no bound.

Source: LipSDP, Fazlyab et al. 2019; banded by chordal decomposition: Chordal-LipSDP, Xue et al. 2022.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np

from lipcert.bounds.chain import Chain, chain_of, obstacle
from lipcert.bounds.conic import Attempt, ask, solvers_for, triangle
from lipcert.bounds.eclipse_fast import EclipseFast
from lipcert.bounds.method import Method, Proposal, Solver
from lipcert.bounds.targets import forms, propose_target, provable_target
from lipcert.errors import InconclusiveError
from lipcert.network.activations import slope_interval
from lipcert.network.enclosure import Float
from lipcert.network.graph import Network
from lipcert.network.operators import Elementwise, Operator
from lipcert.proof.claims import Norm
from lipcert.proof.lifted import Lifted
from lipcert.proof.rules.multipliers import Multipliers

MOST_ENTRIES = 600_000  # of the triangles of all matrices; beyond, SCS takes hours, the others tens of GiB
MOST_PRODUCTS = 40_000_000  # coefficients of W' Lambda alpha beta W, needed where alpha beta is not 0
CAP = 2.0**14  # of scaled multipliers
SHARES = (0.0, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 0.5)  # of `eclipse-fast`, in the mixtures
SAME = 1e-9  # mixtures whose F differs by less, relative, are equally good: the smallest share is taken


@dataclass(frozen=True, eq=False)
class Scaled:
    """A chain in units in which all multipliers are of order 1.

    Attributes:
        units: g_k^2 by which multipliers of layer k are divided to return. output: g_{l+1}^2, likewise for F.
    """

    chain: Chain
    units: list[float]
    output: float


class LipSdpCvxpy(Method):
    """The best bound of the multiplier rule, by general conic solvers."""

    name: ClassVar[str] = "lipsdp-cvxpy"
    summary: ClassVar[str] = "all multipliers jointly optimal, by general conic solvers (MOSEK, Clarabel, SCS)"
    norms: ClassVar[frozenset[Norm]] = Multipliers.norms
    cost: ClassVar[str] = "one conic program with a matrix of side 2 n per layer: seconds to hours, see `lipsdp`"
    solvers: ClassVar[tuple[str, ...]] = ()
    """The solvers to ask, best first; none named: all that suit the size."""

    def refuses(self, network: Network, norm: Norm) -> str | None:
        """Return why the network is not a chain of affordable size, or None; looks at shapes only."""
        reason = obstacle(network)
        if reason is not None:
            return reason
        pairs = neighbours(network)
        entries = sum(triangle(before + after) for before, after in pairs)
        if entries > MOST_ENTRIES:
            return f"its program has {entries} matrix entries, too many for general solvers ({MOST_ENTRIES} at most)"
        curved = [_is_curved(node.op) for _, node in network.activation_nodes()]
        products = sum(after * before**2 for (before, after), bent in zip(pairs, curved, strict=True) if bent)
        if products > MOST_PRODUCTS:
            return f"its program has {products} coefficients, too many for general solvers ({MOST_PRODUCTS} at most)"
        return None

    def propose(self, network: Network, norm: Norm, time_limit: float | None) -> Proposal:
        """Propose the best mixture of the solver's multipliers with those of `eclipse-fast`."""
        begin, limit = time.monotonic(), math.inf if time_limit is None else time_limit
        lifted, form = forms(network)
        chain = chain_of(lifted)
        with np.errstate(all="ignore"):  # what is not finite is refused by the rule
            try:
                plain = EclipseFast().multipliers(lifted)
            except np.linalg.LinAlgError:
                raise InconclusiveError("the layers' gains over- or underflow float64") from None
            target = provable_target(form, plain)
            if not all(matrix.any() for matrix in (*chain.weights, chain.last)):
                note = "a layer is zero: any multipliers prove the bound, no solver was asked"
                return propose_target(plain, target, None, (note,))
            scaled = scale(chain, plain, target)
            attempt, found = self._solve(scaled, lambda: limit - (time.monotonic() - begin))
            if found is None:
                raise InconclusiveError(f"no solver gave usable multipliers ({'; '.join(attempt.failures)})")
            return _nudge(form, plain, found, attempt, scaled.output)

    def unknowns(self, sizes: list[int]) -> list[Any]:
        """Return the multipliers of each layer, (n_k,) and not negative, as CVXPY expressions."""
        import cvxpy as cp

        return [cp.Variable(size, nonneg=True) for size in sizes]

    def _solve(self, scaled: Scaled, left: Callable[[], float]) -> tuple[Attempt, list[Float] | None]:
        """Return what the solvers said, and their multipliers, clipped and in the units of the network."""
        import cvxpy as cp

        chain = scaled.chain
        multipliers = self.unknowns([len(alpha) for alpha in chain.alpha])
        target = cp.Variable(nonneg=True)
        inner = [cp.Variable((len(a),) * 2, symmetric=True) for a in chain.alpha[:-1]]
        edges = [np.eye(chain.weights[0].shape[1]), *inner, target * (chain.last.T @ chain.last)]
        conditions = [part / CAP <= 1.0 for part in multipliers]  # a bound of CAP itself would spoil the scaling of SCS
        for k, (values, ends) in enumerate(zip(multipliers, pairwise(edges), strict=True)):
            conditions.append(_band(chain, k, values, ends) >> 0)
        problem = cp.Problem(cp.Maximize(target), conditions)
        largest = max(triangle(sum(weight.shape)) for weight in chain.weights)
        attempt = ask(problem, self.solvers or solvers_for(largest, with_mosek=True), left())
        if attempt.solver is None:
            return attempt, None
        found = [np.maximum(np.asarray(part.value, dtype=np.float64).ravel(), 0.0) for part in multipliers]
        return attempt, [part / unit for part, unit in zip(found, scaled.units, strict=True)]


def neighbours(network: Network) -> list[tuple[int, int]]:
    """Return the sizes of the two blocks of each matrix of the program, for a chain."""
    sizes = [node.size for _, node in network.activation_nodes()]
    return list(pairwise([min(network.nodes[0].size, sizes[0]), *sizes]))


def _is_curved(op: Operator) -> bool:
    """Whether W' Lambda alpha beta W enters the program."""
    assert isinstance(op, Elementwise)  # `obstacle` refuses all others
    alpha, beta = slope_interval(op)
    return bool((alpha * beta).any())


def scale(chain: Chain, multipliers: list[Float], target: float) -> Scaled:
    """Return the chain in the units that feasible multipliers and their F suggest, its input reduced."""
    exponents = [0, *(_half(float(part.min())) for part in multipliers), _half(target)]
    first = chain.weights[0]
    if first.shape[1] > first.shape[0]:
        first = np.linalg.qr(first.T)[1].T
    matrices = [first, *chain.weights[1:], chain.last]
    moved = [np.ldexp(w, before - after) for w, (before, after) in zip(matrices, pairwise(exponents), strict=True)]
    units = [math.ldexp(1.0, 2 * e) for e in exponents[1:]]
    return Scaled(replace(chain, weights=moved[:-1], last=moved[-1]), units[:-1], units[-1])


def _half(value: float) -> int:
    """Return e with 2^e near value^(-1/2)."""
    if not (math.isfinite(value) and value > 0):
        raise InconclusiveError("the layers' gains over- or underflow float64")
    return -(math.frexp(value)[1] // 2)


def _band(chain: Chain, k: int, values: Any, ends: tuple[Any, Any]) -> Any:
    """Return the matrix of layer k (from 0) as a CVXPY expression."""
    import cvxpy as cp

    weight, alpha, beta = chain.weights[k], chain.alpha[k], chain.beta[k]
    first, last = ends
    if (alpha * beta).any():
        n = weight.shape[1]
        products = (weight[:, :, None] * weight[:, None, :]).reshape(len(weight), n * n)
        first = first + cp.reshape(products.T @ cp.multiply(2.0 * alpha * beta, values), (n, n), order="C")
    crossing = -cp.multiply((weight * (alpha + beta)[:, None]).T, cp.reshape(values, (1, len(alpha)), order="C"))
    return cp.bmat([[first, crossing], [crossing.T, 2.0 * cp.diag(values) - last]])


def _nudge(lifted: Lifted, plain: list[Float], found: list[Float], attempt: Attempt, unit: float) -> Proposal:
    """Propose the best mixture that can be proved; `plain` are feasible multipliers.

    Raises:
        InconclusiveError: none can.
    """
    mixtures = {w: [(1 - w) * a + w * b for a, b in zip(found, plain, strict=True)] for w in SHARES}
    targets = {share: provable_target(lifted, mixed) for share, mixed in mixtures.items()}
    enough = max(targets.values()) * (1.0 - SAME)
    claimed = math.sqrt(unit / attempt.value) if attempt.value > 0 else math.nan
    usable = [share for share in SHARES if targets[share] > 0]
    if not usable:
        said = f"{attempt.solver} says '{attempt.status}', but its multipliers prove nothing"
        raise InconclusiveError(f"{said}: allow more time, or use 'lipsdp'")
    solver = Solver(f"cvxpy {attempt.solver}", attempt.status)
    proposals = []
    for share in sorted(usable, key=lambda s: (targets[s] < enough, s if targets[s] >= enough else -targets[s])):
        mixed = f" after mixing with a share of {share:g} of those of 'eclipse-fast'" if share else ""
        for choice in propose_target(mixtures[share], targets[share], solver).choices():
            proved = float(choice.witness["inverse_square"][0]) ** -0.5
            said = f"{attempt.solver} says '{attempt.status}' and {claimed:.9g}; its multipliers prove {proved:.9g}"
            proposals.append(replace(choice, notes=(said + mixed, *attempt.failures)))
    return proposals[0].or_else(proposals[1:])
