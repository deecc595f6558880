"""How good a learned model is."""

from shortrun.evaluation.reconstruction import reconstruction_figures

__all__ = ["reconstruction_figures"]
