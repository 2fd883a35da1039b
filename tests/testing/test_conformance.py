"""Every registered method passes the conformance suite."""

from __future__ import annotations

import pytest

from lipcert.bounds.method import Method
from lipcert.bounds.registry import METHODS, find_method
from lipcert.testing import check_method, check_order


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_every_method_conforms(method: Method) -> None:
    check_method(method)


@pytest.mark.parametrize(
    ("tighter", "looser", "norm"),
    [("eclipse-fast", "product", "l2"), ("absolute", "product", "l1"), ("absolute", "product", "linf")],
)
def test_order_of_the_methods(tighter: str, looser: str, norm: str) -> None:
    check_order(find_method(tighter), find_method(looser), norm)
