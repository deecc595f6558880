"""Ways to learn a model of images: each has loss, reconstruct and sample."""

from shortrun.learners.chain import ChainLearner
from shortrun.learners.declared import checked_for_learner
from shortrun.learners.encoder import EncoderLearner, with_encoder
from shortrun.learners.ladder_vae import LadderVae
from shortrun.learners.latent_learner import LatentLearner, with_generator
from shortrun.learners.learner import Inferred, Learner, frozen, learner_class
from shortrun.learners.persistent import Persistent
from shortrun.learners.rae import Rae
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
    "Rae",
    "ShortRun",
    "Vae",
    "Vlae",
    "checked_for_learner",
    "frozen",
    "learner_class",
    "with_encoder",
    "with_generator",
]
