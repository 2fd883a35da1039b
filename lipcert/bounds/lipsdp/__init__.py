"""LipSDP with neuron multipliers by a dedicated interior-point method: proposes multipliers, proves nothing."""

from lipcert.bounds.lipsdp._result import LipSdpResult, LipSdpStatus
from lipcert.bounds.lipsdp._solve import Progress, solve_lipsdp

__all__ = ["LipSdpResult", "LipSdpStatus", "Progress", "solve_lipsdp"]
