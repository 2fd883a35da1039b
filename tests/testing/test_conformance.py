"""Every registered method passes the conformance suite."""

from __future__ import annotations

import pytest

from lipcert.bounds.method import Method
from lipcert.bounds.registry import METHODS, find_method
from lipcert.testing import check_method, check_order

# a general conic solver for each layer, or for each of some sixty networks
SLOW = {"eclipse", "lipsdp-cvxpy", "lipsdp-layer"}
CASES = [
    pytest.param(method, id=method.name, marks=[pytest.mark.slow] if method.name in SLOW else []) for method in METHODS
]


@pytest.mark.parametrize("method", CASES)
def test_every_method_conforms(method: Method) -> None:
    check_method(method)


@pytest.mark.parametrize(
    ("tighter", "looser", "norm"),
    [
        ("eclipse-fast", "product", "l2"),
        ("lipsdp", "eclipse-fast", "l2"),
        ("lipsdp", "gershgorin", "l2"),
        ("compositional", "product", "l2"),
        ("compositional", "eclipse-fast", "l2"),
        ("lip-lt", "product", "l2"),
        ("lipsdp", "lip-lt", "l2"),
        ("absolute", "product", "l1"),
        ("absolute", "product", "linf"),
    ],
)
def test_order_of_the_methods(tighter: str, looser: str, norm: str) -> None:
    check_order(find_method(tighter), find_method(looser), norm)
