"""Forward passes as they are executed, each with a rigorous bound of its distance to the real network."""
