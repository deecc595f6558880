"""The ranges of settings that types cannot say."""

import math

from shortrun.config.settings import DENSE, Config, InferenceConfig, TrainingConfig
from shortrun.errors import InputError


def validate(config: Config) -> None:
    """Check the ranges that types cannot say; raise InputError for the first value out of its range."""
    data, model, inference, training = config.data, config.model, config.inference, config.training
    step_sizes = inference.first_step_size(len(model.latents))
    at_least_one = [
        ("data.image_size", data.image_size),
        ("data.crop", data.crop),
        ("data.train_limit", data.train_limit),
        ("data.test_limit", data.test_limit),
        ("data.held_out", data.held_out),
        *(("model.latents", size) for size in model.latents),
        ("model.width", model.width),
        ("model.depth", model.depth),
        ("inference.steps", inference.steps),
        ("model.components", model.components),
        ("encoder.width", config.encoder.width),
        ("encoder.depth", config.encoder.depth),
        ("persistent.fresh_steps", config.persistent.fresh_steps),
        ("glow.scales", config.glow.scales),
        ("glow.flows", config.glow.flows),
        ("glow.width", config.glow.width),
        ("training.epochs", training.epochs),
        ("training.updates", training.updates),
        ("training.batch_size", training.batch_size),
        ("training.log_steps", training.log_steps),
        ("training.picture_epochs", training.picture_epochs),
        ("training.threads", training.threads),
    ]
    for name, count in at_least_one:
        if count is not None and count < 1:
            raise InputError(name, count, "write a whole number of at least 1")
    positive = [
        ("model.sigma", model.sigma),
        ("inference.tuning.start", inference.tuning.start),  # before the step sizes, which may be it
        *(("inference.step_size", size) for size in step_sizes),
        ("inference.step_decay", inference.step_decay),
        ("inference.tuning.share", inference.tuning.share),
        ("training.learning_rate", training.learning_rate),
        ("training.clip_norm", training.clip_norm),
        ("training.checkpoint_seconds", training.checkpoint_seconds),
        *(("training.sigma_schedule", value) for _, value in training.sigma_schedule),
        *(("training.step_size_schedule", value) for _, value in training.step_size_schedule),
    ]
    for name, value in positive:
        if not 0 < value < math.inf:
            raise InputError(name, value, "write a positive number")
    check_tuning(inference, training, sum(model.latents))
    if not model.latents:
        raise InputError("model.latents", "none", "write one size for each layer, top down, 8 16 32 for example")
    if len(step_sizes) not in (1, len(model.latents)):
        raise InputError(
            "inference.step_size",
            f"{len(step_sizes)} values for {len(model.latents)} layers",
            "write one, or one for each layer, top down",
        )
    if not 0 < data.test_fraction < 1:
        raise InputError("data.test_fraction", data.test_fraction, "write a number between 0 and 1")
    if not 0 <= training.ema_decay < 1:
        raise InputError("training.ema_decay", training.ema_decay, "write a number from 0 up to, not including, 1")
    if training.fit_images and training.fit_images < 10:
        raise InputError("training.fit_images", training.fit_images, "write 0 for none, or at least 10")
    if inference.retries < 0:
        raise InputError("inference.retries", inference.retries, "write 0 or more")
    if inference.candidates < 1:
        raise InputError(
            "inference.candidates",
            inference.candidates,
            ("write 1 for a start from the prior, or how many draws of it to choose the start among, 256 for example"),
        )
    if not 0 <= training.seed < 2**63:
        raise InputError("training.seed", training.seed, "write a whole number from 0 up to, not including, 2^63")
    if model.likelihood != "gaussian" and (model.learn_sigma or training.sigma_schedule):
        raise InputError(
            "model.likelihood",
            f"{model.likelihood}, which has no sigma",
            "drop model.learn_sigma and training.sigma_schedule, or choose gaussian",
        )
    if model.learn_sigma and training.sigma_schedule:
        raise InputError(
            "training.sigma_schedule", problem="sigma is learned (model.learn_sigma)", instead="write one or the other"
        )
    check_learner(config)
    for name in ("learning_rate_schedule", "sigma_schedule", "step_size_schedule", "kl_schedule"):
        if not all(0 <= value < math.inf for _, value in getattr(training, name)):
            raise InputError(f"training.{name}", "a negative or infinite value", "write 0 or more")
        at = [share for share, _ in getattr(training, name)]
        if at != sorted(at) or any(not 0 <= share <= 1 for share in at):
            raise InputError(f"training.{name}", f"shares {at}", "write them in [0, 1] and in rising order")


def check_tuning(inference: InferenceConfig, training: TrainingConfig, latents: int) -> None:
    """Check how the step size is to be tuned; raise InputError for the first value that cannot be."""
    tuning = inference.tuning
    if tuning.images < 2:
        raise InputError("inference.tuning.images", tuning.images, "write a whole number of at least 2")
    if not tuning.share < 1:
        raise InputError("inference.tuning.share", tuning.share, "write a number between 0 and 1, 0.08 for example")
    if tuning.tuner == "acceptance" and tuning.over != "one":
        raise InputError("inference.tuning.over", tuning.over, "acceptance tunes one step size: write one")
    if latents > DENSE and (tuning.tuner, tuning.estimator) == ("gradient", "conditional"):
        raise InputError(
            "inference.tuning.tuner",
            (
                f"gradient for the conditional estimator of {latents} latents, which has no reliable "
                f"derivative beyond {DENSE}"
            ),
            "write grid, or take marginal",
        )
    if inference.tuned and training.step_size_schedule:
        raise InputError(
            "training.step_size_schedule", problem="the step size is tuned", instead="write one or the other"
        )
    if inference.tuned and not inference.noise and (tuning.estimator != "conditional" or tuning.tuner == "acceptance"):
        raise InputError(
            "inference.noise",
            problem="without noise the chain's density is the conditional one",
            instead="write inference.tuning.estimator = conditional and a tuner of grid or gradient",
        )


def check_learner(config: Config) -> None:
    """Check that the settings are ones that the learner has; raise InputError for the first that it has not."""
    learner, model, inference, training = config.learner, config.model, config.inference, config.training
    wanted = {"ladder_vae": "conditional", "vlae": "ladder"}.get(learner)
    if wanted is not None and model.parameterization != wanted:
        raise InputError(
            "model.parameterization",
            model.parameterization,
            f"the learner {learner} is defined for {wanted}: write model.parameterization = {wanted}",
        )
    if learner == "glow" and (training.sigma_schedule or model.prior != "normal"):
        raise InputError(
            "learner", problem="glow has neither sigma nor a prior to learn", instead="drop those settings"
        )
    if learner != "short_run" and inference.tuned:
        raise InputError(
            "inference.step_size",
            problem=f"only short_run tunes it while learning, not {learner}",
            instead="write a number",
        )
    if learner not in ("short_run", "persistent") and training.step_size_schedule:
        raise InputError("training.step_size_schedule", problem=f"{learner} takes no Langevin steps", instead="drop it")
    if learner not in ("vae", "ladder_vae", "vlae") and training.kl_schedule:
        raise InputError(
            "training.kl_schedule",
            problem=f"{learner} has no encoder",
            instead="drop it, or choose vae, ladder_vae or vlae",
        )
    if model.prior == "mixture" and inference.tuned and inference.tuning.tuner == "acceptance":
        raise InputError(
            "inference.tuning.tuner",
            problem="by acceptance the steps and a learned mixture drive each other up",
            instead="write grid or gradient, a number for inference.step_size, or model.prior = normal",
        )
    if inference.candidates > 1 and learner not in ("short_run", "persistent"):
        raise InputError("inference.candidates", problem=f"{learner} starts no chains", instead="drop it")
    if model.prior == "mixture" and learner not in ("short_run", "persistent"):
        raise InputError(
            "model.prior", problem=f"{learner} has the divergence from N(0, I) in closed form", instead="write normal"
        )
