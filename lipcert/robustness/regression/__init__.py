"""Networks whose outputs are numbers: how far each output can move when the input does."""

from lipcert.robustness.regression.inputs import load_inputs
from lipcert.robustness.regression.run import bound_changes
from lipcert.robustness.regression.summary import make_changes_report
from lipcert.robustness.settings import Units

__all__ = ["Units", "bound_changes", "load_inputs", "make_changes_report"]
