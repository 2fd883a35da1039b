"""Certificates made wrong in every way: none that claims more than is true may be accepted, none may crash the checker.

A *mutant* is a certificate file, or its model, with one change. What becomes of it is its *fate*:

* ``rejected``: both engines refuse it;
* ``harmless``: it is accepted, and rightly: the exact engine proves the claim that the mutant makes, of the model that
  it is shown, and the claim is not below the largest slope found by looking (`testing.truth`; for countable networks
  that is the Lipschitz constant itself). A change of the note on who wrote the file is such a mutant;
* ``false``: it is accepted though its claim is below that slope;
* ``split``: float64 accepts what the exact engine does not;
* ``crashed``: something else was raised than the error for a malformed file.

The last three are faults of the checker.
"""

from lipcert.testing.mutations.case import Case
from lipcert.testing.mutations.fates import FAULTS, MUTATIONS, Fate, Mutant, fate_of, kill_rate, mutants

__all__ = ["FAULTS", "MUTATIONS", "Case", "Fate", "Mutant", "fate_of", "kill_rate", "mutants"]
