"""All methods, in the order in which `compare` shows them, and how `auto` chooses."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from lipcert.bounds.absolute import Absolute
from lipcert.bounds.eclipse import Eclipse
from lipcert.bounds.eclipse_fast import EclipseFast
from lipcert.bounds.gershgorin import Gershgorin
from lipcert.bounds.lipsdp.method import LipSdp
from lipcert.bounds.lipsdp_cvxpy import LipSdpCvxpy
from lipcert.bounds.method import Method
from lipcert.bounds.product import Product
from lipcert.errors import UsageError
from lipcert.network.graph import Network
from lipcert.proof.claims import Norm

METHODS: tuple[Method, ...] = (
    Product(),
    Absolute(),
    Gershgorin(),
    EclipseFast(),
    Eclipse(),
    LipSdp(),
    LipSdpCvxpy(),
)

FEW = 1200  # hidden neurons for which the interior-point method takes seconds
MODERATE = 2e10  # sum of n^3 over the activation layers: up to half a minute on one core


@dataclass(frozen=True)
class Choice:
    """Which method `auto` takes, and why."""

    method: Method
    reason: str


def find_method(name: str) -> Method:
    """Return the method of this name.

    Raises:
        UsageError: there is none; the nearest name is suggested.
    """
    for method in METHODS:
        if method.name == name:
            return method
    names = [method.name for method in METHODS]
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(names)}"
    raise UsageError(f"there is no method '{name}': {hint}")


def choose_method(network: Network, norm: Norm, time_limit: float | None = None) -> Choice:
    """Return the method that `auto` would take for a normal form, without running it.

    =====  =============================  ============  ==============================================
    norm   network                        method        because
    =====  =============================  ============  ==============================================
    l1     any                            absolute      never above the product, at the cost of a pass
    linf   any                            absolute      the same
    l2     few neurons                    lipsdp        the best bound of its theorem, in seconds
    l2     elementwise, moderate width    eclipse-fast  on chains never above the product, n^3 per layer
    l2     anything else                  product       serves every network
    =====  =============================  ============  ==============================================
    """
    if norm != "l2":
        return Choice(find_method("absolute"), "never above the product of the norms, at the cost of one pass")
    obstacle = find_method("eclipse-fast").refuses(network, norm)
    neurons = sum(node.size for _, node in network.activation_nodes())
    if neurons <= FEW and find_method("lipsdp").refuses(network, norm) is None:
        return Choice(find_method("lipsdp"), f"{neurons} hidden neurons: the best multipliers, in seconds")
    if obstacle is None and sum(node.size**3 for _, node in network.activation_nodes()) > MODERATE:
        obstacle = "the layers are wide; ask for 'eclipse-fast' if there is time"
    if obstacle is None:
        return Choice(find_method("eclipse-fast"), "moderate width: on chains never above the product of the norms")
    return Choice(find_method("product"), f"it serves every network; no multiplier method, as {obstacle}")
