"""The experiments of the paper and our own, each from one command: a file each, and a line here."""

EXPERIMENTS = {
    "figure5": "the best step size as the model learns, and the curves behind it (Figure 5 of the paper)",
    "step_sizes": "the models that fixed and tuned step sizes learn, measured side by side",
}
"""Modules of this room and what each is about; its class `Arguments` has its options and runs it."""
