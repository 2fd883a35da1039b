"""Reading an ONNX file.

The graph is walked once, in the order in which it is stored. Constant sub-graphs are folded, everything else
becomes nodes of the network. Nodes that cannot be read leave a stand-in, so that the rest of the graph is looked
at too, and all of them are reported at once. Only onnx and numpy are used, and nothing is executed.

The parts, from the file inwards: `onnx.store` opens it, `onnx.input` finds the shape of a sample, `onnx.walk` makes
the pass over the nodes with the tables of `onnx.operators` (for data) and `onnx.constants` (for constants), whose
handlers take an `call.Call` and add to an `graph.Graph`.
"""

from __future__ import annotations

from pathlib import Path

from lipcert.errors import Unsupported, UnsupportedError, UsageError, one_line
from lipcert.network.graph import Network
from lipcert.network.readers.onnx.store import open_model
from lipcert.network.readers.onnx.walk import Reading


def read_onnx(path: Path, input_shape: tuple[int, ...] | None = None) -> Network:
    """Read an ONNX file as a network.

    Args:
        path: the file; external data must lie in its folder.
        input_shape: shape of one sample. Needed only where the file leaves sizes open, or fixes the first axis to
            something other than 1.

    Returns:
        The network of real arithmetic with exactly the stored weights. Its `dtype` is the float type that data have
        in the graph: "float32", "float64", "float16", "bfloat16", or several joined by "+" where it casts.

    Raises:
        UsageError: the file is damaged or no ONNX model, holds NaN, or its input shape stays open.
        UnsupportedError: it has parts that cannot be read; all of them are listed.
    """
    try:
        model, source = open_model(Path(path))
        reading = Reading(model)
        kind = reading.run(input_shape)
        nodes = reading.result(str(path))
        return Network(tuple(nodes), kind, source, tuple(reading.graph.notes))
    except UnsupportedError as error:
        items = [Unsupported(one_line(i.where), one_line(i.what), one_line(i.why)) for i in error.items]
        raise UnsupportedError(items) from None
    except MemoryError:
        raise UsageError(f"{path} has sizes for which the memory does not suffice; it may be damaged") from None
