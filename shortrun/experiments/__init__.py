"""The experiments of the paper and our own, each from one command: a file each, and a line here."""

EXPERIMENTS = {
    "synthesis": "draws of models learned in several ways, and how good they are (Figure 1 of the paper)",
    "reconstruction": "what models learned in several ways make of test images (Figure 2)",
    "inpainting": "missing pixels of five kinds, filled in beside methods without a model (Figure 3)",
    "hierarchy": "one layer of latents varied with the others held, and what each layer holds (Figure 4)",
    "incomplete": "models that learn from images with hidden pixels, and what they complete",
    "figure5": "the best step size as the model learns, and the curves behind it (Figure 5 of the paper)",
    "anomaly": "images of a class that was left out of training, found by several scores",
    "restoration": "noisy, blurred and small images, restored beside methods without a model",
    "step_sizes": "the models that fixed and tuned step sizes learn, measured side by side",
}
"""Modules of this room and what each is about; its class `Arguments` has its options and runs it."""
PAPER = ("synthesis", "reconstruction", "inpainting", "hierarchy", "figure5")
"""Those that the paper has, in its order."""
