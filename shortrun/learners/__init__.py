"""Ways to learn a generator: each has loss, reconstruct and sample."""

from shortrun.learners.short_run import Inferred, ShortRun

__all__ = ["Inferred", "ShortRun"]
