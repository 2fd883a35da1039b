"""Verified local bounds: what holds around one input, with every rounding error counted, batched over samples.

Lowest first; everything is numpy in float64:

* `arithmetic`: sums with their errors; NaN and infinity spoil one sample, not the batch.
* `region`: the ball around each sample (`Region`), and the least value of linear functions on it.
* `straight`: lines below and above piecewise linear activations, for any slopes.
* `affine`: affine nodes on boxes and on linear functions.
* `boxes`: interval propagation; `backward`: linear functions sent back to the input.
* `evaluator`: margins made of these; `proposal`: the slopes that a method may suggest to it.

A method of `bounds.local` proposes (which samples are worth it, with which slopes); this room derives.
"""

from lipcert.proof.local.evaluator import Evaluator
from lipcert.proof.local.proposal import NOTHING, Ints, Proposal, Slopes
from lipcert.proof.local.region import Region

__all__ = ["NOTHING", "Evaluator", "Ints", "Proposal", "Region", "Slopes"]
