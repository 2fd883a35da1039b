"""The records of a run: one line per sample, appended batch by batch, merged from all processes that share it."""
