"""Reading torch: modules, exported programs, and weights with a factory; `export` is the door."""
