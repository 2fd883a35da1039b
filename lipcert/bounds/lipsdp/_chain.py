"""The chain of dense layers as the interior-point method sees it, and its matrix Z(lambda, F).

For y = C phi_l(W_l ... phi_1(W_1 x)) and neuron i of layer k let r_i be row i of W_k (it reads layer k-1),
sigma_i = alpha_i + beta_i, pi_i = alpha_i beta_i. Then (math.md section 2)

    B_i = p_i q_i' + q_i p_i' = 2 e_i e_i' - sigma_i (e_i r_i' + r_i e_i') + 2 pi_i r_i r_i'         (1)
    Z(lambda, F) = E_x' E_x + sum_i lambda_i B_i - F C'C                                            (2)

is block tridiagonal over (x, v_1, ..., v_l), with T_k = diag(lambda of layer k):

    Z[0,0] = I + W_1' 2 pi T_1 W_1,   Z[k,k] = 2 T_k + W_{k+1}' 2 pi T_{k+1} W_{k+1},
    Z[l,l] = 2 T_l - F C'C,           Z[k,k-1] = -sigma T_k W_k.                                    (3)

The unknowns are kept in one vector y = (lambda_1, ..., lambda_l, F) of N + 1 numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch

from lipcert.bounds.lipsdp._tridiag import Band


@dataclass(frozen=True)
class Chain:
    """Hidden layers W_1..W_l, last map C, and per layer the slope bounds alpha <= beta."""

    weights: list[torch.Tensor]
    last: torch.Tensor
    alpha: list[torch.Tensor]
    beta: list[torch.Tensor]
    push: float = 0.0
    """Weight of -log lambda_i in the barrier for every neuron (only the start uses it)."""

    @cached_property
    def sigma(self) -> list[torch.Tensor]:
        """alpha + beta, per layer."""
        return [a + b for a, b in zip(self.alpha, self.beta, strict=True)]

    @cached_property
    def pi(self) -> list[torch.Tensor | None]:
        """alpha * beta per layer; None for a layer where it vanishes altogether (slopes [0, 1])."""
        products = [a * b for a, b in zip(self.alpha, self.beta, strict=True)]
        return [p if bool((p != 0).any()) else None for p in products]

    @cached_property
    def signed(self) -> torch.Tensor:
        """Weights of -log lambda_i: 1 where alpha beta > 0, as lambda >= 0 is then a constraint of its own."""
        own = [(a * b > 0).to(a.dtype) for a, b in zip(self.alpha, self.beta, strict=True)]
        return torch.cat(own) + self.push

    @cached_property
    def sizes(self) -> list[int]:
        """Widths n_0, n_1, ..., n_l of the blocks of Z."""
        return [self.weights[0].shape[1]] + [w.shape[0] for w in self.weights]

    @cached_property
    def neurons(self) -> int:
        """N, the number of multipliers."""
        return sum(self.sizes[1:])

    @cached_property
    def degree(self) -> float:
        """nu: the order of Z plus the number of constraints lambda >= 0; the gap is nu mu on the path."""
        return float(sum(self.sizes)) + float(self.signed.sum())

    @cached_property
    def gram(self) -> torch.Tensor:
        """C'C."""
        return self.last.mT @ self.last

    def split(self, lam: torch.Tensor) -> list[torch.Tensor]:
        """One vector of N numbers as one vector per layer."""
        return list(torch.split(lam, self.sizes[1:]))

    def band(self, y: torch.Tensor, constant: float) -> Band:
        """The blocks (3) for y, with `constant` times E_x'E_x: 1 gives Z(y), 0 its linear part.

        N w^2 flops where alpha beta != 0, N w otherwise.
        """
        lam = self.split(y[:-1])
        eye = torch.eye(self.sizes[0], dtype=y.dtype, device=y.device)
        diag = [constant * eye] + [torch.diag(2.0 * t) for t in lam]
        low = []
        for k, (w, t, sigma, pi) in enumerate(zip(self.weights, lam, self.sigma, self.pi, strict=True)):
            low.append((-sigma * t)[:, None] * w)
            if pi is not None:
                diag[k] = diag[k] + w.mT @ ((2.0 * pi * t)[:, None] * w)
        diag[-1] = diag[-1] - y[-1] * self.gram
        return Band(diag, low)

    def rescaled(self, scale: list[torch.Tensor], last: float) -> Chain:
        """The same chain in units v_k = scale_k u_k and y = u / last: a congruence of Z."""
        before = [torch.ones_like(self.weights[0][0]), *scale[:-1]]
        weights = [w * s[None, :] / d[:, None] for w, s, d in zip(self.weights, before, scale, strict=True)]
        return Chain(weights, self.last * scale[-1][None, :] * last, self.alpha, self.beta)
