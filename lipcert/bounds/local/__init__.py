"""Local bounds: what holds around one input, batched over samples.

Where things are, lowest first; everything is torch, on any device, in float32 or float64:

* `region`: the ball around each sample (`Ball`), and the least value of linear functions on it.
* `view`: a network as local methods see it (`View`): its normal form, each affine operator as a `LinearMap`
  (apply, adjoint, magnitudes) from `bounds.torch_linear`. Every affine application of this room goes through it.
* `curves`, `contacts`, `lines`, `relaxations`, `selections`: linear bounds of activations on a box.
* `intervals`: boxes of all nodes by interval propagation and norms.
* `backward`: linear bounds from any node back to the input, under given relaxations; `patches`: rows of convolutions
  kept as windows on that way; `tiled`: many of them side by side, on a CPU; `products`: their inner products with
  points; `second_look`: better lines per margin; `hopes`: samples of which nothing will be proved.
* `margins`: from bounds to margins of the label against every rival.
* `sectors`, `choices`: slopes of activations on a box; which entries a sorting or a maximum may copy.
* `masked_norms`, `reaches`, `pruning`: l2 norms without what is constant on the region.
* `gradients`, `gradient_lines`: boxes of gradients, and linear bounds through the backward pass.
* `noise`, `covariance`, `improvement`, `rounds`: multipliers of a region, what they prove, and better ones.
* `kinks`, `ellipsoid`, `ascent`: a network with one kink per neuron around a sample, what multipliers and cuts prove of
  it on balls and parts of them, and better ones; `trees`, `tree_proposal`: parts, and what is derived again of them.
* `cuts`, `domains`: linear bounds on parts of a region, and how it is cut into parts.
* `crown`, `alpha_crown`, `pruned`, `jacobian`, `anchored`, `branching`: the methods made of these; `method`,
  `registry`: their common face; `radius`: the largest radius that a method certifies.

Level of everything here: numerical. It holds in real arithmetic; the rounding of these computations is not counted.
At level verified, `proof.local` derives the margins of the methods again from what is proposed here
(`LocalMethod.derived`); `certify` makes certificates of samples of it.
"""
