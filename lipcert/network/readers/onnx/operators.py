"""The operators of ONNX that can be read: one table for data, one (`FOLDS`) for constants.

A new operator is one function and one line here. Whatever stands in neither table is reported with a reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from lipcert.network.readers.common import NORMALISATION_REASON, PRODUCT_REASON
from lipcert.network.readers.onnx import activations, branches, conv, matrix, pieces, pooling, sources, sums
from lipcert.network.readers.onnx.call import Call, Handler
from lipcert.network.readers.onnx.moves import MOVES, move
from lipcert.network.readers.onnx.values import Refusal, Unknown, Value


def _cast(call: Call) -> Value:
    """A cast between float types is the identity on real numbers; its rounding is the runtime's."""
    kind = sources.float_kind(call)
    if kind not in sources.FLOAT_KINDS:
        raise Refusal(f"casts data to {kind}, which jumps")
    call.graph.kinds.add(kind)
    return sources.identity(call)


def _dropout(call: Call) -> list[Value]:
    """Dropout does nothing at inference; the mask is not supported."""
    training = call.has(2) and bool(call.whole(2).pure().any())
    if training or (call.graph.opset < 7 and not call.flag("is_test")):
        raise Refusal("drops entries at random (training mode); export the model in evaluation mode")
    return [sources.identity(call), Unknown()]


OPERATORS: Mapping[str, Handler] = MappingProxyType(
    {
        **dict.fromkeys(MOVES, move),
        **dict.fromkeys(activations.ACTIVATIONS, activations.activation),
        "Add": sums.add,
        "AveragePool": pooling.average_pool,
        "BatchNormalization": conv.batch_norm,
        "Cast": _cast,
        "CastLike": _cast,
        "Clip": activations.clip,
        "Concat": branches.concat,
        "Conv": conv.conv,
        "ConvTranspose": conv.conv_transpose,
        "Div": sums.divide,
        "Dropout": _dropout,
        "Gelu": activations.gelu,
        "Gemm": matrix.gemm,
        "GlobalAveragePool": pooling.global_pool("mean"),
        "GlobalMaxPool": pooling.global_pool("max"),
        "Greater": pieces.greater,
        "Identity": sources.identity,
        "LogSoftmax": branches.softmax,
        "MatMul": matrix.matmul,
        "Max": branches.maximum,
        "MaxPool": pooling.max_pool,
        "Mean": sums.mean,
        "Min": branches.minimum,
        "Mul": sums.multiply,
        "Neg": sums.negate,
        "PRelu": activations.prelu,
        "Pad": pooling.pad,
        "Pow": pieces.power,
        "ReduceMax": pooling.reduction("max"),
        "ReduceMean": pooling.reduction("mean"),
        "ReduceMin": pooling.reduction("min"),
        "ReduceSum": pooling.reduction("sum"),
        "Selu": activations.selu,
        "Shape": sources.shape,
        "Shrink": activations.shrink,
        "Size": sources.size,
        "Softmax": branches.softmax,
        "Sub": sums.subtract,
        "Sum": sums.add,
        "Swish": activations.swish,
        "TopK": branches.sort,
        "Where": pieces.where,
    }
)

_CONTROL = "is control flow; export the model with the branch or loop unrolled"
_GROUPS = {
    _CONTROL: "If Loop Scan SequenceMap",
    pieces.STEEP: """
        Exp Log Sqrt Reciprocal Tan Sinh Cosh Det Inverse ReduceProd ReduceSumSquare ReduceLogSumExp CumProd
    """,
    pieces.JUMPS: """
        Sign Floor Ceil Round ThresholdedRelu Hardmax Binarizer ArgMax ArgMin Equal Less GreaterOrEqual LessOrEqual Mod
        OneHot NonZero Not And Or
    """,
    "is part of a quantised model, whose steps jump; export the float model": """
        QuantizeLinear DequantizeLinear QLinearConv QLinearMatMul DynamicQuantizeLinear ConvInteger MatMulInteger
    """,
    NORMALISATION_REASON: """
        LayerNormalization GroupNormalization InstanceNormalization RMSNormalization MeanVarianceNormalization LRN
        LpNormalization
    """,
    PRODUCT_REASON: "Attention Einsum LSTM GRU RNN SwiGLU LinearAttention",
}
_REASONS = MappingProxyType({name: why for why, names in _GROUPS.items() for name in names.split()})


def reason(operator: str, on_constants: bool) -> str:
    """Return why an operator cannot be read, and what to do where something can be done."""
    known = _REASONS.get(operator, "there is no rule for this operator")
    if on_constants and known != _CONTROL:
        return "is applied to constants and is not folded; fold constants when exporting the model"
    return known
