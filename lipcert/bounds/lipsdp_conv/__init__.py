"""LipSDP for stretches of stride-1 convolutions: one small matrix inequality per frequency, multipliers shared."""
