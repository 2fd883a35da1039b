"""The conformance suite that every method, also a third party's, must pass."""

from lipcert.testing.conformance import check_method, check_order

__all__ = ["check_method", "check_order"]
