"""Where the chains of training images are kept between two visits, in memory or on disk.

Source: Han, Lu, Zhu, Wu, "Alternating Back-Propagation for Generator Network", AAAI 2017, arXiv 1606.08571.
"""

from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from jaxtyping import Float32
from torch import Tensor

from shortrun.errors import InputError
from shortrun.files import replacing
from shortrun.learners.learner import Flat, Rows


class ChainStore:
    """One row of latents for each training image, (images, d) in float32 on the CPU.

    path: of the .npy file that holds them, made anew; None keeps them in memory. It is no part of a model: nothing
    of it is a parameter or a buffer. With several processes each has a store of its own (rank: which process this is),
    and all stores hold the same numbers.
    """

    def __init__(self, images: int, dim: int, path: Path | None = None, rank: int = 0) -> None:
        if path is None:
            self.z = torch.zeros(images, dim)
            return
        path = path if rank == 0 else path.with_name(f"{path.stem}_{rank}{path.suffix}")
        # the mapping stays with the file when it gets its name; a file of that name is not written into
        with replacing(path) as temporary:
            mapped = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.float32, shape=(images, dim))
        self.z = torch.from_numpy(mapped)

    def __len__(self) -> int:
        return len(self.z)

    def read(self, rows: Rows) -> Flat:
        """Return the latents of images, (n, d); raise InputError where one of them is not kept."""
        outside = [int(row) for row in rows.tolist() if not 0 <= row < len(self.z)]
        if outside:
            raise InputError("rows", f"{outside[0]} of {len(self.z)} images", f"write 0 to {len(self.z) - 1}")
        return self.z[rows.cpu()]

    def write(self, rows: Rows, z: Flat) -> None:
        """Put back the latents of images, those of all processes in each of them.

        rows: (n,), different from one another, and from those of the other processes; z: (n, d). With several
        processes all have to call this, with as many images each.
        """
        rows, z = everywhere(rows.to(z.device)), everywhere(z.float())
        self.z[rows.cpu()] = z.cpu()

    def load(self, z: Float32[Tensor, "images d"]) -> None:
        """Put in place the latents of all images; raise ValueError where their number or size is another."""
        if z.shape != self.z.shape:
            raise ValueError(f"chains: got {tuple(z.shape)}, the run has {tuple(self.z.shape)}")
        self.z.copy_(z)


def everywhere(part: Tensor) -> Tensor:
    """Return the parts that the processes have, one after the other, in each process."""
    if not (dist.is_available() and dist.is_initialized()):
        return part
    parts = [torch.empty_like(part) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, part.contiguous())
    return torch.cat(parts)


def process_rank() -> int:
    """Return which of the processes this is, 0 where there is one."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0
