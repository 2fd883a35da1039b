"""All methods, in the order in which `compare` shows them, and how `auto` chooses."""

from __future__ import annotations

from dataclasses import dataclass

from lipcert.bounds.absolute import Absolute
from lipcert.bounds.chain import obstacle as chain_obstacle
from lipcert.bounds.compositional import Compositional, describe
from lipcert.bounds.cutting import Tool
from lipcert.bounds.eclipse import Eclipse
from lipcert.bounds.eclipse_fast import EclipseFast
from lipcert.bounds.effort import BEGUN, CHANNEL_START, ESTIMATES, MOST_BYTES, beyond_memory
from lipcert.bounds.gershgorin import Gershgorin
from lipcert.bounds.lip_lt import LipLt
from lipcert.bounds.lipsdp.method import LipSdp
from lipcert.bounds.lipsdp_conv.method import LipSdpConv
from lipcert.bounds.lipsdp_cvxpy import LipSdpCvxpy
from lipcert.bounds.lipsdp_layer import LipSdpLayer
from lipcert.bounds.lipsdp_solvers import LipSdpClarabel, LipSdpMosek, LipSdpScs
from lipcert.bounds.method import Method
from lipcert.bounds.product import Product
from lipcert.errors import UsageError, suggestion
from lipcert.network.graph import Network
from lipcert.proof.claims import Norm

WHOLE: tuple[Method, ...] = (  # methods that look at a network as a whole
    Product(),
    Absolute(),
    LipLt(),
    Gershgorin(),
    EclipseFast(),
    Eclipse(),
    LipSdp(),
    LipSdpConv(),
    LipSdpCvxpy(),
    LipSdpLayer(),
)
GAINS = {"lipsdp": 3.0, "lipsdp-conv": 2.5, "eclipse-fast": 2.0, "product": 0.0}  # see `cutting.Tool`
COMPOSITIONAL = Compositional(
    sorted(
        (Tool(m, GAINS[m.name], BEGUN.get(m.name, ESTIMATES[m.name])) for m in WHOLE if m.name in GAINS),
        key=lambda tool: -tool.gain,
    )
)

METHODS: tuple[Method, ...] = (*WHOLE, COMPOSITIONAL)

VARIANTS: tuple[Method, ...] = (LipSdpScs(), LipSdpClarabel(), LipSdpMosek())
"""Methods that run only where they are named: the same bounds as one above, by one solver."""

SECONDS = 60.0  # that the interior-point method may take by its estimate, where no time limit is given
ALWAYS = 1.0  # seconds that it is given whatever the limit
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
    named = (*METHODS, *VARIANTS)
    for method in named:
        if method.name == name:
            return method
    from lipcert.bounds.local.registry import LOCAL_METHODS  # late: a long import, for the message only

    if any(method.name == name for method in LOCAL_METHODS):
        raise UsageError(f"'{name}' is a local method, it looks around samples: `lipcert certify --method {name}`")
    raise UsageError(f"there is no method '{name}': {suggestion(name, (method.name for method in named))}")


def choose_method(network: Network, norm: Norm, time_limit: float | None = None) -> Choice:
    """Return the method that `auto` would take for a normal form, without running it.

    =====  =============================  =============  ==============================================
    norm   network                        method         because
    =====  =============================  =============  ==============================================
    l1     any                            absolute       never above the product, at the cost of a pass
    linf   any                            absolute       the same
    l2     few neurons, or enough time    lipsdp         the best bound of its theorem, in seconds or the limit
    l2     stride-1 convolutions          lipsdp-conv    the best multipliers per channel, whatever the image
    l2     elementwise, moderate width    eclipse-fast   on chains never above the product, n^3 per layer
    l2     parts of it are of these kinds compositional  never above the product, minutes or the limit
    l2     anything else                  product        serves every network
    =====  =============================  =============  ==============================================
    """
    if norm != "l2":
        return Choice(find_method("absolute"), "never above the product of the norms, at the cost of one pass")
    solver = find_method("lipsdp")
    if solver.refuses(network, norm) is None and beyond_memory(solver.name, network) is None:
        need = ESTIMATES[solver.name](network)
        seconds, limit = need.seconds, SECONDS if time_limit is None else time_limit
        if seconds <= max(limit, ALWAYS) and need.bytes <= MOST_BYTES:
            time = "in seconds" if seconds <= SECONDS else f"in about {seconds:.0f} s"
            return Choice(solver, f"{network.hidden_neurons} hidden neurons: the best multipliers, {time}")
    in_time = time_limit is None or time_limit >= CHANNEL_START
    if in_time and find_method("lipsdp-conv").refuses(network, norm) is None:
        return Choice(find_method("lipsdp-conv"), "stride-1 convolutions: the best multipliers for each channel")
    sections = COMPOSITIONAL.sections(network, norm, time_limit)
    obstacle = find_method("eclipse-fast").refuses(network, norm)
    if any(section.tools[0].method is solver for section in sections):
        obstacle = obstacle or "the interior-point method may need more time than there is"
    sizes = [node.size for _, node in network.activation_nodes()]
    if obstacle is None and sum(size**3 for size in sizes) > MODERATE:
        obstacle = "the layers are wide; ask for 'eclipse-fast' if there is time"
    seconds = ESTIMATES["eclipse-fast"](network).seconds if obstacle is None else 0.0
    if time_limit is not None and seconds > time_limit:  # it knows no limit of its own
        obstacle = f"'eclipse-fast' would need about {seconds:.0f} s of {time_limit:g} s"
    if obstacle is None and chain_obstacle(network) is None:
        return Choice(find_method("eclipse-fast"), "a chain of moderate width: never above the product of the norms")
    obstacle = obstacle or "'eclipse-fast' may be above the product where branches join"
    if any(section.gains for section in sections):
        return Choice(COMPOSITIONAL, f"{obstacle}, but stretches can be bounded: {describe(network, sections)}")
    return Choice(find_method("product"), f"it serves every network; no multiplier method, as {obstacle}")
