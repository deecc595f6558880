"""What a learned model is for."""

from shortrun.tasks.encode import Encoding, encode
from shortrun.tasks.info import info
from shortrun.tasks.inpaint import Inpainting, inpaint
from shortrun.tasks.interpolate import Interpolation, interpolate
from shortrun.tasks.reconstruct import Reconstruction, reconstruct
from shortrun.tasks.sample import sample
from shortrun.tasks.traverse import Traversal, traverse
from shortrun.tasks.tune import Curves, divergence_curves, tune

__all__ = [
    "Curves",
    "Encoding",
    "Inpainting",
    "Interpolation",
    "Reconstruction",
    "Traversal",
    "divergence_curves",
    "encode",
    "info",
    "inpaint",
    "interpolate",
    "reconstruct",
    "sample",
    "traverse",
    "tune",
]
