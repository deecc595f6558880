"""Ways to learn a model of images: each has loss, reconstruct and sample."""

from shortrun.learners.chain import ChainLearner
from shortrun.learners.encoder import EncoderLearner
from shortrun.learners.ladder_vae import LadderVae
from shortrun.learners.learner import Inferred, LatentLearner, Learner, frozen, learner_class
from shortrun.learners.persistent import Persistent
from shortrun.learners.short_run import ShortRun
from shortrun.learners.vae import Vae
from shortrun.learners.vlae import Vlae

__all__ = [
    "ChainLearner",
    "EncoderLearner",
    "Inferred",
    "LadderVae",
    "LatentLearner",
    "Learner",
    "Persistent",
    "ShortRun",
    "Vae",
    "Vlae",
    "frozen",
    "learner_class",
]
