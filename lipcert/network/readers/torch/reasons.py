"""Why operators of torch are refused, in words that say what to do."""

from __future__ import annotations

from lipcert.network.readers.common import NORMALISATION_REASON, PRODUCT_REASON

UNBOUNDED = "its slope has no global bound"
JUMPS = "chooses or jumps, so it has no slope bound"
DECOMPOSED = "; if this is part of an activation, export the model without run_decompositions()"

_GROUPS = {
    NORMALISATION_REASON: """
        layer_norm native_layer_norm group_norm native_group_norm instance_norm rms_norm _fused_rms_norm norm
        linalg_vector_norm linalg_norm var std var_mean std_mean _native_batch_norm_legit
        _native_batch_norm_legit_functional native_batch_norm
    """,
    PRODUCT_REASON: """
        scaled_dot_product_attention _scaled_dot_product_flash_attention baddbmm glu lstm gru bilinear einsum cdist
        outer _scaled_dot_product_flash_attention_for_cpu _native_multi_head_attention dot
    """,
    UNBOUNDED + DECOMPOSED: """
        exp expm1 exp2 log log1p log2 pow square sqrt rsqrt reciprocal cumprod prod tan sinh cosh logsumexp
    """,
    JUMPS + DECOMPOSED: """
        where gt lt ge le eq ne sign floor ceil round trunc frac heaviside hardshrink argmax argmin argsort
        masked_fill fmod remainder gather scatter bernoulli rand randn rand_like randn_like
    """,
}
_REASONS = {name: why for why, names in _GROUPS.items() for name in names.split()}


def reason(op: str) -> str:
    """Return why there is no rule for an operator."""
    return _REASONS.get(op, "there is no rule for this operator; replace it by supported layers")
