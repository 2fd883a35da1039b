"""What a network is: operators, the graph, its normal form, and (in `readers`) how it is read from files."""

from lipcert.network.builder import Builder
from lipcert.network.enclosure import Enclosure
from lipcert.network.evaluate import evaluate
from lipcert.network.graph import Network, Node, Source

__all__ = ["Builder", "Enclosure", "Network", "Node", "Source", "evaluate"]
