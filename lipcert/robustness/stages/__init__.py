"""The stages of a run, from cheap to dear: which there are, what each decides, and how samples go through them."""
