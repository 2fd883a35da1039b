r"""Chains that share their multipliers: the matrices Z_w(lambda, F), and the barrier of all of them.

    z_k = K_k(w) v_{k-1},  v_k = phi_k(z_k),  k = 1 .. l,    y = C v_l        for each frequency w

With r_i row i of K_k(w), p_i = e_i - alpha_i r_i*, q_i = e_i - beta_i r_i*, sigma = alpha + beta, pi = alpha beta,

    Z_w(lambda, F) = E_x* E_x + sum_i lambda_i (p_i q_i* + q_i p_i*) - F C*C                          (1)

is Hermitian and block tridiagonal, with T_k = diag(lambda of layer k):

    Z[0,0] = I + K_1* 2 pi T_1 K_1,  Z[k,k] = 2 T_k + K_{k+1}* 2 pi T_{k+1} K_{k+1},  Z[k,k-1] = -sigma T_k K_k.

With y = (lambda, F), the barrier is phi(y) = - sum_w log det Z_w(y) - sum of log lambda_i (alpha_i beta_i > 0), and
with V = Z^-1

    dphi/dlambda_i = - sum_w 2 Re p_i* V q_i          dphi/dF = sum_w tr(C V C*)                      (2)
    H_ij = sum_w 2 Re [(p_i* V p_j) conj(q_i* V q_j) + (p_i* V q_j)(p_j* V q_i)]                      (3)
    H_iF = - sum_w 2 Re (C V p_i)* (C V q_i)          H_FF = sum_w ||C V C*||_F^2                     (4)

A group is a stack of chains of one kind: all w, or w = 0 with the tail behind it and all others without an output.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import torch

from lipcert.bounds.lipsdp_conv._bands import Factor, factorise, inverse_band, inverse_dense

Tensors = list[torch.Tensor]
CHUNK = 2**22  # complex numbers in one stack of inverses


@dataclass(frozen=True)
class Group:
    """Stacks of chains.

    Attributes:
        weights: K_k, (count, n_k, n_{k-1}) complex128. last: C, (count, m, n_l), or None where there is no output.
    """

    weights: Tensors
    last: torch.Tensor | None

    def __len__(self) -> int:
        return len(self.weights[0])

    @property
    def sizes(self) -> list[int]:
        """Sizes of the blocks of Z, the input first."""
        return [self.weights[0].shape[2], *(w.shape[1] for w in self.weights)]

    def chosen(self, index: torch.Tensor | slice) -> Group:
        """Return some chains of the stack."""
        last = None if self.last is None else self.last[index]
        return Group([w[index] for w in self.weights], last)

    def chunks(self) -> Iterator[Group]:
        """Yield parts whose inverses are stacks of at most about `CHUNK` numbers."""
        step = max(1, CHUNK // sum(self.sizes) ** 2)
        for start in range(0, len(self), step):
            yield self.chosen(slice(start, start + step))


@dataclass(frozen=True)
class Family:
    """Groups and the slopes that they share; a group with fewer layers uses the first ones.

    Attributes:
        alpha, beta: (n_k,) float64 for each layer of the longest group, which comes first.
        push: weight of -log lambda_i in the barrier for every multiplier (only the start uses it).
    """

    groups: list[Group]
    alpha: Tensors
    beta: Tensors
    push: float = 0.0

    @cached_property
    def sizes(self) -> list[int]:
        """Number of multipliers of each layer."""
        return [len(a) for a in self.alpha]

    @cached_property
    def signed(self) -> torch.Tensor:
        """Weights of -log lambda_i: 1 where alpha beta > 0, as lambda >= 0 is then a constraint of its own."""
        return torch.cat([(a * b > 0).to(a.dtype) for a, b in zip(self.alpha, self.beta, strict=True)]) + self.push

    @cached_property
    def degree(self) -> float:
        """Order of all Z together, and the number of constraints lambda >= 0: the gap is so many times mu."""
        return float(sum(len(g) * sum(g.sizes) for g in self.groups)) + float(self.signed.sum())

    @cached_property
    def _curved(self) -> list[torch.Tensor | None]:
        """2 alpha beta per layer, or None where it vanishes."""
        products = [2.0 * a * b for a, b in zip(self.alpha, self.beta, strict=True)]
        return [p if bool((p != 0).any()) else None for p in products]

    @cached_property
    def _own(self) -> torch.Tensor:
        """Which multipliers have a barrier of their own."""
        return self.signed > 0

    def split(self, lam: torch.Tensor) -> Tensors:
        """Return one vector per layer."""
        return list(torch.split(lam, self.sizes))

    def rescaled(self, lam: Tensors, f: float) -> Family:
        """Return the family in units in which these multipliers and F are 1: a congruence of every Z."""
        scale = [x.rsqrt() for x in lam]
        groups = []
        for group in self.groups:
            before = [torch.ones_like(group.weights[0][0, 0].real), *scale]
            weights = [w * b / s[:, None] for w, b, s in zip(group.weights, before, scale, strict=False)]
            last = None if group.last is None else group.last * before[len(weights)] * f**0.5
            groups.append(Group(weights, last))
        return replace(self, groups=groups)

    def with_chains(self, index: torch.Tensor) -> Family:
        """Return the family with only some chains of its last group."""
        return replace(self, groups=[*self.groups[:-1], self.groups[-1].chosen(index)])

    def factors(self, y: torch.Tensor) -> list[Factor] | None:
        """Return the factors of all Z(y), or None where y is not strictly feasible."""
        if bool(((y[:-1] <= 0) & self._own).any()):
            return None
        found = []
        for group in self.groups:
            factor = factorise(*self.band(group, y))
            if factor is None:
                return None
            found.append(factor)
        return found

    def band(self, group: Group, y: torch.Tensor) -> tuple[Tensors, Tensors]:
        """Return the blocks of Z(y) on the diagonal and below it, for each chain of a group."""
        lam = self.split(y[:-1])
        first = group.weights[0]
        diagonal = [torch.eye(first.shape[2], dtype=first.dtype).expand(len(group), -1, -1)]
        below = []
        for w, t, a, b, pi in zip(group.weights, lam, self.alpha, self.beta, self._curved, strict=False):
            below.append((-(a + b) * t)[:, None] * w)
            if pi is not None:
                diagonal[-1] = diagonal[-1] + w.mH @ ((pi * t)[:, None] * w)
            diagonal.append(torch.diag(2.0 * t).to(w.dtype).expand(len(group), -1, -1))
        if group.last is not None:
            diagonal[-1] = diagonal[-1] - y[-1] * (group.last.mH @ group.last)
        return diagonal, below

    def gradient(self, y: torch.Tensor, factors: list[Factor]) -> torch.Tensor:
        """Return (2)."""
        g = torch.zeros_like(y)
        own = self._own
        g[:-1][own] = -self.signed[own] / y[:-1][own]
        for group, factor in zip(self.groups, factors, strict=True):
            diagonal, below = inverse_band(factor)
            start = 0
            for k, (w, a, b, pi) in enumerate(zip(group.weights, self.alpha, self.beta, self._curved, strict=False)):
                form = 2.0 * (_diagonals(diagonal[k + 1]) - (a + b) * (below[k] * w.conj()).sum(2).real)
                if pi is not None:
                    form = form + pi * ((w @ diagonal[k]) * w.conj()).sum(2).real
                g[start : start + len(a)] -= form.sum(0)
                start += len(a)
            if group.last is not None:
                g[-1] += ((group.last @ diagonal[-1]) * group.last.conj()).sum().real
        return g

    def hessian(self, y: torch.Tensor) -> torch.Tensor:
        """Return (3) and (4), the whole symmetric matrix."""
        h = torch.diag(torch.cat([self.signed / y[:-1].square(), y.new_zeros(1)]))
        for group in self.groups:
            n = sum(group.sizes[1:])
            index = torch.cat([torch.arange(n), torch.tensor([len(y) - 1])])
            for part in group.chunks():
                factor = factorise(*self.band(part, y))
                if factor is None:
                    raise ArithmeticError("a point that was inside is not")
                h[index[:, None], index] += self._second(part, inverse_dense(factor))
        return h

    def _second(self, group: Group, v: torch.Tensor) -> torch.Tensor:
        """Return (3) and (4) of one stack; v: (count, n, n)."""
        sizes = group.sizes
        ends = torch.cumsum(torch.tensor(sizes), 0).tolist()
        inputs, n = sizes[0], ends[-1] - sizes[0]
        alpha, beta = (torch.cat(side)[:n].to(v.dtype) for side in (self.alpha, self.beta))
        blocks = [slice(end - size, end) for size, end in zip(sizes, ends, strict=True)]
        crossed = torch.cat([v[:, :, blocks[k]] @ w.mH for k, w in enumerate(group.weights)], dim=2)  # V r
        vq = v[:, :, inputs:] - beta * crossed
        rows = torch.cat([w @ vq[:, blocks[k]] for k, w in enumerate(group.weights)], dim=1)  # r* V q
        pq, qq = vq[:, inputs:], vq[:, inputs:] - beta[:, None] * rows
        vp = v[:, :, inputs:]
        pp = vp[:, inputs:]
        if bool((alpha != 0).any()):
            vp = vp - alpha * crossed
            pq = pq - alpha[:, None] * rows
            pp = vp[:, inputs:]
            pp = pp - alpha[:, None] * torch.cat([w @ vp[:, blocks[k]] for k, w in enumerate(group.weights)], dim=1)
        h = v.new_zeros((n + 1, n + 1), dtype=torch.float64)
        h[:n, :n] = 2.0 * (_real_sum(pp, qq) + _real_sum(pq, pq.mH))
        if group.last is not None:
            left, right = group.last @ vp[:, blocks[-1]], group.last @ vq[:, blocks[-1]]
            h[n, :n] = h[:n, n] = -2.0 * (left.conj() * right).real.sum((0, 1))
            h[n, n] = (group.last @ v[:, blocks[-1], blocks[-1]] @ group.last.mH).abs().square().sum()
        return h


def _diagonals(stack: torch.Tensor) -> torch.Tensor:
    return torch.diagonal(stack, dim1=-2, dim2=-1).real


def _real_sum(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return sum_w Re a conj(b), entry by entry."""
    return torch.view_as_real(a.resolve_conj()).mul(torch.view_as_real(b.resolve_conj())).sum((0, 3))
