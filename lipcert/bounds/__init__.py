"""Methods that propose bounds, the engine that has them derived, and lower bounds beside them."""
