"""How Lipschitz bounds pass through the nodes that are not single-input affine operators.

For a norm p and inputs with bounds L_1..L_k (each from the network's input to that node):

* elementwise activation, slopes in [alpha, beta]: max(|alpha|, |beta|) * L_1, entry by entry;
* sum: L_1 + ... + L_k, the triangle inequality;
* concatenation, and entrywise maximum or minimum (|max_i a_i - max_i b_i| <= max_i |a_i - b_i|): the p-norm of
  (L_1, ..., L_k);
* sorting: rearrangement is non-expansive in every p-norm, factor 1;
* max pooling: |max a - max b| is at most the p-norm of a - b on the window, and an input entry lies in at most
  `overlap` windows: factor overlap^(1/p);
* softmax: the Jacobian diag(s) - s s' is symmetric with row sums of absolute values 2 s_i (1 - s_i) <= 1/2:
  factor 1/2 in every p-norm;
* log-softmax: the Jacobian is I - 1 s'. Its norm is convex in s, so largest at a vertex s = e_k: column k is
  minus the all-ones vector with 0 at k, so the l1 norm is max(1, n - 1), the linf norm 2 (row i: 1 + 1), and the
  l2 norm sqrt(n), as it is a projection whose complement 1 e_k' has norm sqrt(n).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from lipcert.network.activations import slope_bound
from lipcert.network.graph import Node, Shape
from lipcert.network.operators import Concat, Elementwise, Extremum, MaxPool, Softmax, Sort, Sum
from lipcert.proof.claims import Norm
from lipcert.proof.refusal import Refused
from lipcert.proof.rounding import norm_up, sqrt_up, sum_up


def joining_norm(node: Node, norm: Norm) -> Norm:
    """Return the norm of the vector of several inputs' bounds that bounds a node: l1 is their sum, linf the largest."""
    return norm if isinstance(node.op, (Concat, Extremum)) else "l1"


def join(node: Node, norm: Norm, bounds: Sequence[float]) -> float:
    """Combine the bounds of the inputs of a node that is no single-input affine operator, rounded up."""
    match joining_norm(node, norm):
        case "l1":
            return sum_up(bounds)
        case "l2":
            return norm_up(bounds)
        case "linf":
            return max(bounds)


def activation_law(node: Node, source: Shape, norm: Norm) -> tuple[float, bool]:
    """Return (number, root): the factor of an activation is the number, or its square root; 1 for sums and the like.

    Raises:
        Refused: no theorem here covers the operator.
    """
    match node.op:
        case Elementwise():
            return slope_bound(node.op), False
        case Sort() | Sum() | Concat() | Extremum():
            return 1.0, False
        case MaxPool():
            overlap = 1 if norm == "linf" else window_overlap(node.op, source)
            return float(overlap), norm == "l2"
        case Softmax():
            size = node.shape[node.op.axis]
            if not node.op.log:
                return 0.5, False
            return {"l1": float(max(1, size - 1)), "l2": float(size), "linf": 2.0}[norm], norm == "l2"
    raise Refused(f"the product rule has no theorem for {node.op.kind} at '{node.name}'")


def activation_factor(node: Node, source: Shape, norm: Norm) -> float:
    """Return the factor of an activation, or 1 for sums and concatenations, rounded up."""
    number, root = activation_law(node, source, norm)
    return sqrt_up(number) if root else number


def window_overlap(op: MaxPool, source: Shape) -> int:
    """Return the largest number of windows that share one input entry, counted exactly."""
    counts = []
    for size, k, s, (before, after), d in zip(source[1:], op.window, op.stride, op.padding, op.dilation, strict=True):
        windows = (size + before + after - d * (k - 1) - 1) // s + 1
        touched = (s * np.arange(windows)[:, None] + d * np.arange(k) - before).ravel()
        inside = touched[(touched >= 0) & (touched < size)]
        counts.append(int(np.bincount(inside, minlength=1).max()))
    return math.prod(counts)
