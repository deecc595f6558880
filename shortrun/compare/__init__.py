"""Several learners trained and evaluated side by side, at equal epochs or equal wall-clock."""

from shortrun.compare.budget import Budget
from shortrun.compare.comparison import compare

__all__ = ["Budget", "compare"]
