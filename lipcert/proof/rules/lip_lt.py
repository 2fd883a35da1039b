r"""The loop-transformation rule: norms of composed affine maps, over any graph of affine and elementwise operators.

Theorem. Let v_k = phi_k(z_k), z_k = sum_i R_ki v_i be the lifted form (`proof.lifted`; v_0 = x, the output is the last
z), and let phi_k have slopes in [alpha_k, beta_k], entry by entry. For any centres m_k put

    M_k = diag(m_k),    P_k = diag(p_k),    p_k = max(|alpha_k - m_k|, |beta_k - m_k|),    P_0 = I
    A_kj = R_kj + sum_{i > j} R_ki M_i A_ij,    j < k
    g_0 = 1,    g_k = sum_{j < k} ||A_kj P_j|| g_j.

Then ||dz_k|| <= g_k ||dx|| for every k, and for the output. Proof. phi_k - M_k has slopes in [-p_k, p_k], so for two
inputs dv_k = M_k dz_k + P_k dw_k with |dw_k| <= |dz_k| entry by entry, hence ||dw_k|| <= ||dz_k||. By induction over
k (with dw_0 = dx), dz_k = sum_i R_ki dv_i = sum_{j < k} A_kj P_j dw_j; take norms.

With m the middle of the slopes this is LipLT (Fazlyab, Entesari, Roy & Chellappa 2023, "Certified robustness via
dynamic margin maximization and improved Lipschitz regularization"), there for chains and one slope interval; the
graphs and the free centres are this rule's. With all m = 0 nothing is composed and the product of the norms is left.

Order. On chains and sums, with centres that are equal within a layer, m_k the middle of the hull of its slopes,
|m_k| + max p_k is the largest slope b_k in size. The triangle inequality gives g_k <= sum_i ||R_ki|| b_i g_i: never
above the product of norms. And no choice of centres beats the best multipliers: see `bounds.lip_lt`.

Rounding. Each A_kj is held as a float64 matrix and a number e with ||A_kj - matrix|| <= e. One step through
S = R_ki M_i turns e into ||S|| e plus the norm of the radii of that one product. (Radii entry by entry would grow
with ||  |S|  ||, which ruins deep networks.) All norms are claims of the witness, proved by `proof.norms`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lipcert.network.enclosure import Enclosure, Float
from lipcert.network.graph import Network
from lipcert.network.operators import Dense
from lipcert.proof.certificate import Witness
from lipcert.proof.claims import Norm
from lipcert.proof.lifted import MAX_ENTRIES, Lifted, Row, lift
from lipcert.proof.norms import operator_norm
from lipcert.proof.refusal import Refused
from lipcert.proof.rounding import difference_down, product_up, sqrt_up, sum_up, total_up
from lipcert.proof.rules.base import Derivation, Rule

NormOf = Callable[[Enclosure, float], float]
"""From a matrix and a number e to a bound of the l2 norm of every matrix within e of it, in the l2 norm."""


class LoopTransformation(Rule):
    """Norms of composed affine maps around free centres of the activations.

    Witness arrays: ``centres`` (N,) float64, all neurons of the lifted form in node order; ``norms`` (k,) float64,
    upper bounds of the norms that `loop_bound` asks for, in its order.
    """

    id: ClassVar[str] = "loop-transformation/v1"
    norms: ClassVar[frozenset[Norm]] = frozenset({"l2"})

    def prove(self, network: Network, norm: Norm, witness: Witness) -> Derivation:
        """Derive the bound; cost for l layers: l^2 / 2 matrix products and as many proofs of norms."""
        lifted = lift(network)
        centres, claims = read_centres(lifted, witness)
        bound = loop_bound(lifted, centres, lambda matrix, spread: _proved(matrix, spread, claims))
        if next(claims, None) is not None:
            raise Refused("the witness has more norms than the network needs")
        return Derivation(bound)


def read_centres(lifted: Lifted, witness: Witness) -> tuple[list[Float], Iterator[float]]:
    """Return the centres of each block, and the claimed norms.

    Raises:
        Refused: the witness is not of the form that the rule reads.
    """
    if set(witness) != {"centres", "norms"}:
        raise Refused("the witness has the arrays 'centres' and 'norms'")
    centres, norms = np.asarray(witness["centres"]), np.asarray(witness["norms"])
    sizes = lifted.sizes[1:]
    if centres.dtype.kind != "f" or centres.shape != (sum(sizes),) or not np.isfinite(centres).all():
        raise Refused(f"the network needs {sum(sizes)} finite centres")
    if norms.dtype.kind != "f" or norms.ndim != 1:
        raise Refused("'norms' are real numbers")
    return np.split(centres.astype(np.float64), np.cumsum(sizes)[:-1]), iter(norms.tolist())


def _proved(matrix: Enclosure, spread: float, claims: Iterator[float]) -> float:
    """Return the next claim, proved: it is what is derived with, to the last bit, on every machine."""
    claim = next(claims, None)
    if claim is None:
        raise Refused("the witness has fewer norms than the network needs")
    op = as_dense(matrix)
    operator_norm(op, op.weight.shape[1:], op.weight.shape[:1], "l2", difference_down(claim, spread))
    return claim


def as_dense(matrix: Enclosure) -> Dense:
    """Return a matrix as an operator, for `proof.norms`."""
    return Dense(matrix, Enclosure(np.zeros(matrix.shape[0])))


@dataclass(frozen=True, eq=False)
class Composed:
    """A composed map A_kj.

    Attributes:
        matrix: (n_k, n_j). spread: ||A_kj - matrix|| <= spread.
    """

    matrix: Float
    spread: float

    @staticmethod
    def of(matrix: Enclosure, more: float = 0.0) -> Composed:
        """Turn radii into a spread, and add to it what else is known of the distance."""
        radius = 0.0
        if matrix.rad is not None:  # ||X||^2 <= ||X||_1 ||X||_inf
            rows, columns = (float(total_up(matrix.rad, axis=axis).max(initial=0.0)) for axis in (1, 0))
            radius = sqrt_up(product_up(rows, columns))
        return Composed(matrix.mid, sum_up([radius, more]))

    def behind(self, step: Enclosure, size: float) -> Composed:
        """Return S A for a step with ||S|| <= size."""
        if step.shape[0] * self.matrix.shape[1] > MAX_ENTRIES:
            raise Refused(f"a composed map has {step.shape[0]} x {self.matrix.shape[1]} entries: cut the network")
        return Composed.of(step @ Enclosure(self.matrix), product_up(size, self.spread))

    def plus(self, other: Composed) -> Composed:
        """Return the sum of two maps."""
        return Composed.of(Enclosure(self.matrix) + Enclosure(other.matrix), sum_up([self.spread, other.spread]))

    def norm(self, radii: Float, norm_of: NormOf) -> float:
        """Return a bound of ||A P||, P = diag(radii)."""
        widest = float(radii.max(initial=0.0))
        return norm_of(Enclosure(self.matrix) * Enclosure(radii), product_up(self.spread, widest))


def loop_bound(lifted: Lifted, centres: list[Float], norm_of: NormOf) -> float:
    """Return the bound of the module's theorem, rounded up; `norm_of` is asked for all norms in a fixed order."""
    rows = [*(block.row for block in lifted.blocks), lifted.output]
    last = {i: k for k, row in enumerate(rows, start=1) for i in row}
    radii = [np.ones(lifted.inputs)]
    for block, centre in zip(lifted.blocks, centres, strict=True):
        sides = (Enclosure(side) - Enclosure(centre) for side in (block.alpha, block.beta))
        radii.append(np.maximum(*(side.magnitude() for side in sides)))
    gains = [1.0]
    paths: dict[int, Mapping[int, Composed]] = {}
    with np.errstate(all="ignore"):  # what is not finite is refused where norms are proved
        for k, row in enumerate(rows, start=1):
            composed = _compose(row, paths, centres, norm_of)
            terms = [product_up(path.norm(radii[j], norm_of), gains[j]) for j, path in sorted(composed.items())]
            gains.append(sum_up(terms))
            paths = {i: path for i, path in {**paths, k: composed}.items() if last.get(i, 0) > k}
    return gains[-1]


def _compose(
    row: Row, paths: Mapping[int, Mapping[int, Composed]], centres: list[Float], norm_of: NormOf
) -> Mapping[int, Composed]:
    """Return A_kj of one row for all j that it reaches."""
    terms = {j: Composed.of(matrix) for j, matrix in row.items()}
    for i, matrix in sorted(row.items()):
        if i == 0 or not centres[i - 1].any():
            continue
        step = matrix * Enclosure(centres[i - 1])
        size = norm_of(step, 0.0)
        for j, path in paths[i].items():
            term = path.behind(step, size)
            terms[j] = terms[j].plus(term) if j in terms else term
    return terms
