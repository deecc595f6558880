"""Is the inference good? What is measured of a learner's chains, what it means, and how it is shown."""

from shortrun.diagnosis.measure import diagnose
from shortrun.diagnosis.page import draw_diagnosis
from shortrun.diagnosis.text import summary
from shortrun.diagnosis.verdict import conclusion, verdict

__all__ = ["conclusion", "diagnose", "draw_diagnosis", "summary", "verdict"]
