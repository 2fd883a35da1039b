"""`lipsdp-cvxpy` with one solver only: to compare solvers, and to be told what a missing one lacks."""

from __future__ import annotations

from typing import ClassVar

from lipcert.bounds.conic import mosek_missing, triangle
from lipcert.bounds.lipsdp_cvxpy import LipSdpCvxpy, neighbours
from lipcert.network.graph import Network
from lipcert.proof.claims import Norm

MOST_GIB_CLARABEL = 4.0
CLARABEL_BYTES = 41  # for each pair of entries of one matrix; measured on three matrices of side 128: 7.8 GiB


class LipSdpScs(LipSdpCvxpy):
    """The program of `lipsdp-cvxpy`, by SCS."""

    name: ClassVar[str] = "lipsdp-cvxpy:scs"
    summary: ClassVar[str] = "all multipliers jointly optimal, by SCS alone"
    solvers: ClassVar[tuple[str, ...]] = ("SCS",)


class LipSdpClarabel(LipSdpCvxpy):
    """The program of `lipsdp-cvxpy`, by Clarabel."""

    name: ClassVar[str] = "lipsdp-cvxpy:clarabel"
    summary: ClassVar[str] = "all multipliers jointly optimal, by Clarabel alone"
    solvers: ClassVar[tuple[str, ...]] = ("CLARABEL",)

    def refuses(self, network: Network, norm: Norm) -> str | None:
        """Return why the network is no chain of affordable size, or None; its factors are dense for each matrix."""
        reason = super().refuses(network, norm)
        if reason is not None:
            return reason
        need = (
            CLARABEL_BYTES / 2**30 * sum(float(triangle(before + after)) ** 2 for before, after in neighbours(network))
        )
        if need <= MOST_GIB_CLARABEL:
            return None
        return f"Clarabel's factors would need about {need:.0f} GiB ({MOST_GIB_CLARABEL:g} at most)"


class LipSdpMosek(LipSdpCvxpy):
    """The program of `lipsdp-cvxpy`, by MOSEK."""

    name: ClassVar[str] = "lipsdp-cvxpy:mosek"
    summary: ClassVar[str] = "all multipliers jointly optimal, by MOSEK alone"
    solvers: ClassVar[tuple[str, ...]] = ("MOSEK",)

    def refuses(self, network: Network, norm: Norm) -> str | None:
        """Return what is missing of MOSEK, or why the network is no chain of affordable size, or None."""
        missing = mosek_missing()
        if missing is not None:
            return f"MOSEK is {missing.detail}; {missing.remedy}"
        return super().refuses(network, norm)
