"""The README.md beside a saved model: what it is, what it learned from, what it reached, and how to load it.

Source of the form: Mitchell et al., "Model Cards for Model Reporting", 2019, arXiv 1810.03993.
"""

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from shortrun.config import LearnerConfig
from shortrun.learners.declared import Declared
from shortrun.progress import duration

RECORD = "record.json"
"""Beside a saved model: what was known of its training, so that a model that is saved again still tells it."""
LICENCES = {
    "digits": "CC BY 4.0 (Alpaydin and Kaynak, UCI)",
    "coloured_digits": "CC BY 4.0 (made from Alpaydin and Kaynak's digits, UCI)",
    "mnist": "CC BY-SA 3.0 (LeCun and Cortes)",
    "fashion_mnist": "MIT (Zalando Research)",
    "svhn": "for non-commercial use only (Netzer et al.)",
    "celeba": "for non-commercial research only (Liu et al.)",
}
"""Of the named data sets, as those who publish them say it."""
UNKNOWN = "unknown"

Rows = Iterable[tuple[str, Any]]


def model_card(
    kind: type[Declared],
    description: LearnerConfig,
    record: Mapping[str, Any],
    data: ModelCardData,
    repo_id: str | None = None,
    data_license: str | None = None,
    notes: str | None = None,
) -> ModelCard:
    """Return the card of a model.

    kind: the learner's class.
    description: of the learner.
    record: what is known of its training, as `shortrun.training.record` has it; empty where nothing is.
    data: of the head of the card; the rest is added to a copy of it.
    repo_id: where the model lies on the hub; None for a folder.
    data_license: of the images; None for what is known of a named data set.
    notes: more words of the user's own, in Markdown.
    """
    of_data: Mapping[str, Any] = record.get("data", {})
    source = of_data.get("source", UNKNOWN)
    licence = data_license or LICENCES.get(source if of_data.get("named") else "", UNKNOWN)
    head = ModelCardData(**{**data.to_dict(), **({"datasets": [source]} if of_data.get("hub") else {})})
    name = (
        repo_id.split("/")[-1] if repo_id else f"{description.learner} of {source}" if record else description.learner
    )
    first = inspect.cleandoc(kind.__doc__ or "").splitlines()[:1]
    parts = [
        f"# {name}",
        *first,
        notes or "",
        "## Load",
        loading(description, repo_id),
        "## Data",
        table([("source", source), *_images(description, of_data), ("licence of the images", licence)]),
        "## Figures",
        _figures(record),
        "## Training",
        table(_training(record)) or "Nothing is recorded of it.",
        "## Settings",
        table([("model", kind.describe_model(description)), ("inference", kind.describe_settings(description))]),
        _settings(record),
        "## Limits",
        "\n".join(f"- {words}" for words in limits(kind, description, record)),
    ]
    return ModelCard(f"---\n{head.to_yaml()}\n---\n\n" + "\n\n".join(part for part in parts if part) + "\n")


def loading(description: LearnerConfig, repo_id: str | None) -> str:
    """Return the lines of Python that load a model, draw images and latents.

    description: of the learner.
    repo_id: where it lies on the hub; None for the present folder.
    """
    own = ", decoder=decoder" if description.own_decoder else ""
    where = f'"{repo_id}"{own})' if repo_id else f'"."{own})  # the folder that this file is in'
    c, h, w = description.image_shape
    lines = [
        "import torch, shortrun",
        "",
        *(["decoder = ...  # the module of its author, which the weights are for"] if own else []),
        f"learner = shortrun.Learner.from_pretrained({where}",
        "rng = torch.Generator().manual_seed(0)",
        f"images = shortrun.sample(learner, 16, rng)  # (16, {c}, {h}, {w}) in [-1, 1]",
        f"z = shortrun.encode(learner, images, rng).z  # (16, {sum(description.model.latents)}) latents",
    ]
    if description.learner == "glow":
        lines[-1] = "z = shortrun.encode(learner, images, rng).z  # latents, as many as pixels"
    return "\n".join(["```python", *lines, "```"])


def table(rows: Rows) -> str:
    """Return a table of two columns in Markdown, without a head; empty without rows."""
    lines = [f"| {name} | {str(value).replace('|', chr(92) + '|')} |" for name, value in rows]
    return "\n".join(["| | |", "| --- | --- |", *lines]) if lines else ""


def _images(description: LearnerConfig, of_data: Mapping[str, Any]) -> Rows:
    yield "size", "x".join(map(str, description.image_shape)) + " (channels x height x width)"
    floats = {"unit": "floats in [0, 1]", "signed": "floats in [-1, 1]", None: "floats"}[description.pixel_range]
    yield "pixels of the source", f"{description.levels} levels" if description.levels else floats
    yield "pixels of the model", "[-1, 1], in and out"
    for name in ("training images", "test images", "classes", "settings"):
        if value := of_data.get(name):
            yield name, f"{value:,}" if isinstance(value, int) else value


def _figures(record: Mapping[str, Any]) -> str:
    rows = record.get("figures") or []
    if not rows:
        return "None are recorded."
    words = f"Of the {record.get('split', 'test')} images."
    warning = f"Warning: {record['warning']}." if record.get("warning") else ""
    return "\n\n".join(part for part in (words, table((name, value) for name, value in rows), warning) if part)


def _training(record: Mapping[str, Any]) -> Rows:
    training: Mapping[str, Any] = record.get("training", {})
    if "seconds" in training:
        yield "time", f"{duration(training['seconds'])} ({training['seconds']:g} s)"
    if "cpu_seconds" in training:
        yield "processor time", f"{training['cpu_seconds']:g} s"
    for name in ("updates", "parameters"):
        if name in training:
            yield name, f"{training[name]:,}"
    if machine := record.get("machine"):
        yield "machine", ", ".join(f"{name} {value}" for name, value in machine.items())
    for name in ("date", "shortrun"):
        if name in record:
            yield name, record[name]


def _settings(record: Mapping[str, Any]) -> str:
    settings: Mapping[str, Any] = record.get("settings", {})
    if not settings:
        return ""
    lines = "\n".join(f"{name} = {value}" for name, value in settings.items())
    return f"<details><summary>All settings</summary>\n\n```\n{lines}\n```\n\n</details>"


def limits(kind: type[Declared], description: LearnerConfig, record: Mapping[str, Any]) -> Iterable[str]:
    """Give what a user has to know before relying on a model, in sentences.

    kind: the learner's class.
    description: of the learner.
    record: what is known of its training.
    """
    c, h, w = description.image_shape
    yield f"It takes and makes images of {c}x{h}x{w} alone, like those that it learned from."
    yield "What it makes of other images, and of images that are shifted, turned or scaled, has not been measured."
    if kind.has_chain:
        yield (
            "Latents are the ends of short chains of finitely many steps: they are random, and only near to draws of "
            "the posterior. The same seed gives the same latents on the same machine."
        )
    if kind.has_encoder:
        yield "Latents come from an encoder, which is only near to the posterior."
    if not kind.has_prior:
        yield "It has no prior: new images come from a density that was fitted to the latents of training images."
    if not record.get("figures"):
        yield "No figures are recorded of it."
    elif record.get("split") == "train":
        yield "Its figures are of images that it learned from: there were no others."
    failed = record.get("training", {}).get("failed_chains", 0)
    if failed:
        yield f"{failed:,} chains stayed non-finite while it learned."
    yield "Whether its samples repeat training images has not been measured."
    yield "The images may be biased as their source is; that has not been looked at."
