"""From bounds to verdicts: data, forward passes with their rounding, margins, radii, attacks, and whole runs."""
