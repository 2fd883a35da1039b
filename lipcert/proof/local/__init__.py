"""Verified local bounds: what holds around one input, with every rounding error counted, batched over samples.

Lowest first; everything is numpy in float64:

* `arithmetic`: sums with their errors; NaN and infinity spoil one sample, not the batch.
* `region`: the ball around each sample (`Region`), and the least value of linear functions on it.
* `straight`: lines below and above piecewise linear activations, for any slopes; `functions`, `bends`, `curved`: of
  curved ones; `selected`: of maxima; `secants`: slopes seen from the sample.
* `affine`: affine nodes on boxes and on linear functions; `entries` of their matrices.
* `boxes`: interval propagation; `surroundings`: boxes from values at the samples and Lipschitz bounds; `backward`:
  linear functions sent back to the input; `margins`: from boxes alone.
* `images`, `windows`, `sliding`, `costs`: coefficients at image nodes, sent either way, and what that costs; `laid`,
  `columns`: many functions of one node sent back side by side, and their `least` values; `drift`: what that may lose by
  rounding, known beforehand; `zonotope`: symbols sent forwards; `narrowing`: boxes by both.
* `differences`, `reach`, `anchored`: differences from the sample as functions of the input and of bounded noises, and
  how far multipliers let them move.
* `choices`, `masked_norms`, `measures`, `pruned`: norms without what is constant on the ball, and margins from them.
* `gradients`, `gradient_lines`, `jacobian`: boxes of gradients, lines that narrow them, and margins from them.
* `parts`: trees that cut regions into parts; `weighted`: functions less weighted cuts; `tilted`: sectors of ReLUs with
  products of constraints; `leaves`: margins on parts.
* `evaluator`: margins made of these; `proposal`: the slopes and multipliers that a method may suggest to it.
* `certificate`, `witness`, `checker`: claims about samples, in files that `lipcert check` checks.

A method of `bounds.local` proposes (which samples are worth it, with which slopes); this room derives.
"""

from lipcert.proof.local.certificate import BallClaim, LocalCertificate, Samples, any_certificate
from lipcert.proof.local.checker import LOCAL_RULES, check_local, derived_margins
from lipcert.proof.local.costs import Costs
from lipcert.proof.local.evaluator import Evaluator
from lipcert.proof.local.parts import Parts
from lipcert.proof.local.proposal import NOTHING, Ints, Mask, Proposal, Slopes
from lipcert.proof.local.region import Region
from lipcert.proof.local.witness import to_arrays as witness_of

__all__ = [
    "LOCAL_RULES",
    "NOTHING",
    "BallClaim",
    "Costs",
    "Evaluator",
    "Ints",
    "LocalCertificate",
    "Mask",
    "Parts",
    "Proposal",
    "Region",
    "Samples",
    "Slopes",
    "any_certificate",
    "check_local",
    "derived_margins",
    "witness_of",
]
