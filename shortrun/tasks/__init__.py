"""What a learned model is for."""

from shortrun.tasks.encode import Encoding, encode
from shortrun.tasks.export import export
from shortrun.tasks.inpaint import Inpainting, inpaint, watch_inpainting
from shortrun.tasks.interpolate import Interpolation, interpolate
from shortrun.tasks.reconstruct import Reconstruction, reconstruct
from shortrun.tasks.restore import Restoration, restore
from shortrun.tasks.sample import sample
from shortrun.tasks.traverse import Traversal, traverse

__all__ = [
    "Encoding",
    "Inpainting",
    "Interpolation",
    "Reconstruction",
    "Restoration",
    "Traversal",
    "encode",
    "export",
    "inpaint",
    "interpolate",
    "reconstruct",
    "restore",
    "sample",
    "traverse",
    "watch_inpainting",
]
