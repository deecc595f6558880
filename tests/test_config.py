import dataclasses
import json
import math
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st

from shortrun.config import (
    Config,
    DataConfig,
    InferenceConfig,
    LearnerConfig,
    ModelConfig,
    TrainingConfig,
    absolute,
    checked_settings,
    load_config,
    recipe_names,
)
from shortrun.errors import InputError
from shortrun.mapping import from_mapping, to_mapping

# beartype, which checks the dataclasses here, picks the items it looks at by chance
pytestmark = pytest.mark.filterwarnings("ignore:Do not use the `random` module inside strategies")

COUNT = st.integers(1, 10_000)
POSITIVE = st.floats(1e-6, 1e6)
OPTIONAL_COUNT = st.none() | COUNT


@st.composite
def schedules(draw: st.DrawFn, values: st.SearchStrategy[float]) -> tuple[tuple[float, float], ...]:
    shares = sorted(draw(st.lists(st.floats(0, 1), max_size=4)))
    return tuple((share, draw(values)) for share in shares)


@st.composite
def models(draw: st.DrawFn) -> ModelConfig:
    likelihood: Any = draw(st.sampled_from(["gaussian", "bernoulli", "logistic"]))
    return ModelConfig(
        latents=tuple(draw(st.lists(COUNT, min_size=1, max_size=5))),
        parameterization=draw(st.sampled_from(["ladder", "conditional"])),
        blocks=draw(st.sampled_from(["dense", "conv"])),
        width=draw(COUNT),
        depth=draw(st.integers(1, 1_000)),
        skip=draw(st.booleans()),
        likelihood=likelihood,
        sigma=draw(POSITIVE),
        learn_sigma=likelihood == "gaussian" and draw(st.booleans()),
    )


@st.composite
def inferences(draw: st.DrawFn, layers: int) -> InferenceConfig:
    each = st.lists(POSITIVE, min_size=layers, max_size=layers).map(tuple)
    return InferenceConfig(
        steps=draw(COUNT),
        step_size=draw(POSITIVE | each),
        step_decay=draw(POSITIVE),
        noise=draw(st.booleans()),
        retries=draw(st.integers(0, 9)),
    )


@st.composite
def configs(draw: st.DrawFn) -> Config:
    model = draw(models())
    has_schedule = model.likelihood == "gaussian" and not model.learn_sigma
    data = st.builds(
        DataConfig,
        source=st.sampled_from(["digits", "mnist", "hub:some/one"]) | st.text(),
        dir=st.none() | st.text(st.characters(exclude_categories=["Cs", "Cc"])).map(Path),
        image_size=OPTIONAL_COUNT,
        crop=OPTIONAL_COUNT,
        train_limit=OPTIONAL_COUNT,
        test_limit=OPTIONAL_COUNT,
        test_fraction=st.floats(0.01, 0.99),
        binarize=st.booleans(),
    )
    training = st.builds(
        TrainingConfig,
        epochs=COUNT,
        batch_size=COUNT,
        learning_rate=POSITIVE,
        learning_rate_schedule=schedules(st.floats(0, 10)),
        sigma_schedule=schedules(POSITIVE) if has_schedule else st.just(()),
        step_size_schedule=schedules(POSITIVE),
        clip_norm=POSITIVE,
        ema_decay=st.floats(0, 1, exclude_max=True),
        precision=st.sampled_from(["auto", "float32", "bfloat16"]),
        seed=st.integers(0, 2**63 - 1),
        threads=OPTIONAL_COUNT,
        log_steps=COUNT,
        picture_epochs=COUNT,
        checkpoint_seconds=POSITIVE,
    )
    return Config(draw(data), model, draw(inferences(len(model.latents))), draw(training))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("config") / "config.toml"


def written_and_read(config: Config, file: Path) -> Config:
    file.write_text(tomli_w.dumps(to_mapping(config)), encoding="utf-8")
    return load_config(str(file))


@settings(max_examples=100, deadline=None)
@given(config=configs())
def test_what_is_written_is_read_back(file: Path, config: Config) -> None:
    checked_settings(config)
    assert written_and_read(config, file) == config
    assert from_mapping(Config, json.loads(json.dumps(to_mapping(config))), "") == config


@settings(max_examples=50, deadline=None)
@given(configs(), st.tuples(COUNT, COUNT, COUNT), OPTIONAL_COUNT, st.booleans())
def test_a_saved_models_description_is_read_back(
    config: Config, shape: tuple[int, int, int], levels: int | None, own: bool
) -> None:
    description = LearnerConfig(shape, levels, own, config.model, config.inference)
    assert from_mapping(LearnerConfig, json.loads(json.dumps(to_mapping(description))), "") == description


@pytest.mark.parametrize("name", recipe_names())
def test_recipe_is_valid_and_survives_a_round_trip(name: str, file: Path) -> None:
    config = load_config(name)
    checked_settings(config)
    assert written_and_read(config, file) == config
    assert config != Config()


def test_recipes_are_in_the_package() -> None:
    assert {"digits", "coloured_digits", "mnist", "fashion_mnist", "svhn", "celeba64"} <= set(recipe_names())


def test_a_recipe_sets_what_it_says_and_leaves_the_rest() -> None:
    config = load_config("digits")
    assert config.data == DataConfig(source="digits")
    assert config.model.sigma == 0.1
    assert config.training.clip_norm == TrainingConfig().clip_norm
    assert from_mapping(Config, {}, "") == Config()


def test_none_is_left_out() -> None:
    mapping = to_mapping(Config(data=DataConfig(crop=3)))
    assert mapping["data"]["crop"] == 3
    assert "dir" not in mapping["data"]
    assert "threads" not in mapping["training"]
    assert "width" not in mapping["encoder"]
    tables = [table for table in mapping.values() if isinstance(table, dict)]
    assert None not in [value for table in [mapping, *tables] for value in table.values()]
    assert to_mapping(Config(data=DataConfig(dir=Path("a") / "b")))["data"]["dir"] == "a/b"


def test_a_recipe_holds_other_values_for_other_learners(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(
        "[model]\nsigma = 0.2\nwidth = 30\n[learners.vae.model]\nsigma = 0.4\n[learners.glow.glow]\nwidth = 8\n"
    )
    own, vae, glow = (load_config(str(path), learner) for learner in (None, "vae", "glow"))
    assert (own.learner, own.model.sigma, own.model.width, own.glow.width) == ("short_run", 0.2, 30, 128)
    assert (vae.learner, vae.model.sigma, vae.model.width, vae.glow.width) == ("vae", 0.4, 30, 128)
    assert (glow.learner, glow.model.sigma, glow.glow.width) == ("glow", 0.2, 8)
    path.write_text('learner = "vae"\n' + path.read_text())
    assert load_config(str(path)) == vae
    assert load_config(str(path), "glow") == glow


@pytest.mark.parametrize(
    ("text", "learner", "words"),
    [
        ("", "vea", "learner: got 'vea'; did you mean 'vae'"),
        ('learner = "gan"', None, "learner: got 'gan'; choose one of"),
        ("[learners.vea.model]\nsigma = 1", None, "learners: got 'vea'; did you mean"),
        ("[learners.vae.model]\nsgima = 1", None, "learners.vae.model.sgima: unknown key"),
        ("[training]\nkl_schedule = [[0, -1], [1, 1]]", "vae", "training.kl_schedule: got -1.0; write 0 or more"),
        ("[training]\nupdates = 0", None, "training.updates: got 0"),
        ("[glow]\nscales = 0", None, "glow.scales: got 0"),
    ],
)
def test_a_table_for_learners_is_checked(text: str, learner: str | None, words: str, tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=r"^[^\n]*$") as error:
        load_config(str(path), learner)
    assert words in str(error.value)


def test_whole_numbers_become_floats_where_a_float_is_wanted() -> None:
    text = "[model]\nsigma = 1\n[inference]\nstep_size = [1, 0.5, 2]\n[training]\nsigma_schedule = [[0, 1], [1, 2]]"
    config = from_mapping(Config, tomllib.loads(text), "")
    numbers = [config.model.sigma, *config.inference.step_size, *config.training.sigma_schedule[1]]  # pyright: ignore
    assert numbers == [1.0, 1.0, 0.5, 2.0, 1.0, 2.0]
    assert {type(number) for number in numbers} == {float}
    assert type(from_mapping(InferenceConfig, {"step_size": 1}, "").step_size) is float
    assert type(from_mapping(InferenceConfig, {"steps": 3}, "").steps) is int


REFUSED = {
    "modle.width = 3": "modle: unknown key; did you mean 'model'?",
    "model.widht = 3": "model.widht: unknown key; did you mean 'width'?",
    "inference.stepsize = 0.1": "inference.stepsize: unknown key; did you mean 'step_size'?",
    "model.qqqq = 3": "model.qqqq: unknown key; choose one of blocks, components, depth, ",
    "model = 3": "model: got 3; write a table of ModelConfig",
    "data = 'mnist'": "data: got 'mnist'; write a table",
    "model.width = '64'": "model.width: got '64'; write a whole number",
    "model.width = 64.5": "model.width: got 64.5; write a whole number",
    "model.width = 64.0": "model.width: got 64.0; write a whole number",
    "model.width = true": "model.width: got True; write a whole number",
    "model.width = []": "model.width: got []; write a whole number",
    "model.sigma = true": "model.sigma: got True; write a number",
    "model.sigma = 'small'": "model.sigma: got 'small'; write a number",
    "model.skip = 1": "model.skip: got 1; write true or false",
    "model.skip = 'no'": "model.skip: got 'no'; write true or false",
    "model.latents = 8": "model.latents: got 8; write a list of whole numbers",
    "model.latents = ['8']": "model.latents: got ['8']; write a list of whole numbers",
    "model.latents = [8, 8.5]": "model.latents: got [8, 8.5]; write a list of whole numbers",
    "model.latents = [8, 'x']": "model.latents: got [8, 'x']; write a list of whole numbers",
    "model.latents = [8, true]": "model.latents: got [8, True]; write a list of whole numbers",
    "model.latents = [[8]]": "model.latents: got [[8]]; write a list of whole numbers",
    "model.latents = []": "model.latents: got none; write one size for each of 1 to 100 layers",
    "model.latents = [8, 0]": "model.latents: got 0; write a whole number from 1 to 10,000",
    "model.latents = [8, -2]": "model.latents: got -2; write a whole number from 1 to 10,000",
    "model.blocks = 'convs'": "model.blocks: got 'convs'; did you mean 'conv'?",
    "model.blocks = 3": "model.blocks: got 3; write text",
    "model.likelihood = 'Gaussian'": "model.likelihood: got 'Gaussian'; did you mean 'gaussian'?",
    "model.sigma = -0.3": "model.sigma: got -0.3; write a positive number",
    "model.sigma = nan": "model.sigma: got nan; write a positive number",
    "model.width = 0": "model.width: got 0; write a whole number from 1 to 1,000,000",
    "model.depth = -1": "model.depth: got -1; write a whole number from 1 to 1,000",
    "inference.step_size = 'x'": "inference.step_size: got 'x'; write a number or a list of numbers",
    "inference.step_size = [0.1, true, 0.1]": "inference.step_size: got [0.1, True, 0.1]; write a number or a list",
    "inference.step_size = [0.1, 0.2]": "inference.step_size: got 2 values for 3 layers",
    "inference.step_size = []": "inference.step_size: got 0 values for 3 layers",
    "inference.step_size = [0.1, -0.2, 0.1]": "inference.step_size: got -0.2; write a positive number",
    "inference.step_size = 0": "inference.step_size: got 0.0; write a positive number",
    "inference.step_size = inf": "inference.step_size: got inf; write a positive number",
    "inference.step_decay = 0.0": "inference.step_decay: got 0.0; write a positive number",
    "inference.steps = 0": "inference.steps: got 0; write a whole number of at least 1",
    "inference.retries = -1": "inference.retries: got -1; write a whole number of at least 0",
    "inference.candidates = 0": "inference.candidates: got 0; write 1 for a start from the prior",
    f"inference.step_decay = {10**400}": "inference.step_decay: got inf; write a positive number",
    "training.seed = -1": "training.seed: got -1; write a whole number from 0",
    f"training.seed = {2**63}": "training.seed: got 9223372036854775808; write a whole number from 0",
    "training.sigma_schedule = [0.1, 0.2]": "training.sigma_schedule: got [0.1, 0.2]; write a list of pairs",
    "training.sigma_schedule = [[0.0, 1.0, 2.0]]": "training.sigma_schedule: got [[0.0, 1.0, 2.0]]; write a list",
    "training.sigma_schedule = [[0.0, 0.2], [1.0, 'x']]": "training.sigma_schedule: got [[0.0, 0.2], [1.0, 'x']]",
    "training.sigma_schedule = [[0.0, 0.2], [1.0, 0.0]]": "training.sigma_schedule: got 0.0; write a positive number",
    "training.sigma_schedule = [[0.5, 0.2], [0.1, 0.1]]": "training.sigma_schedule: got shares [0.5, 0.1]",
    "training.step_size_schedule = [[0.0, 1.0], [1.5, 0.5]]": "training.step_size_schedule: got shares [0.0, 1.5]",
    "training.learning_rate_schedule = [[0.0, -1.0]]": "training.learning_rate_schedule: got -1.0; write 0 or more",
    "training.learning_rate_schedule = [[0.0, nan]]": "training.learning_rate_schedule: got nan; write 0 or more",
    "training.ema_decay = 1.0": "training.ema_decay: got 1.0; write a number from 0",
    "training.learning_rate = -1": "training.learning_rate: got -1.0; write a positive number",
    "training.batch_size = -5": "training.batch_size: got -5; write a whole number of at least 1",
    "training.threads = 0": "training.threads: got 0; write a whole number of at least 1",
    "training.precision = 'float16'": "training.precision: got 'float16'; write one of auto, float32, bfloat16",
    "training = {sigma_schedule = [[0.0, 0.1]]}\nmodel.learn_sigma = true": "training.sigma_schedule: sigma is learned",
    "data.test_fraction = 1.0": "data.test_fraction: got 1.0; write a number between 0 and 1",
    "data.image_size = 0": "data.image_size: got 0; write a whole number of at least 1",
    "training.checkpoint_seconds = 0.0": "training.checkpoint_seconds: got 0.0; write a positive number",
    f"training.seed = {10**400}": "training.seed: got 1000",
    "data.dir = 3": "data.dir: got 3; write a path",
    "data.source = 3": "data.source: got 3; write text",
}


@pytest.mark.parametrize(("text", "message"), REFUSED.items(), ids=lambda part: part[:60])
def test_what_cannot_be_used_is_refused_in_one_line(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        load_config(str(path))
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_a_missing_key_is_named() -> None:
    with pytest.raises(InputError, match=r"^config.json: has no 'image_shape'; add it"):
        from_mapping(LearnerConfig, {}, "config.json")


@pytest.mark.parametrize("values", [[1], "text", None, 3])
def test_what_is_no_table_is_refused(values: Any) -> None:
    with pytest.raises(InputError, match=r"^config.json: got .*; write a table of LearnerConfig"):
        from_mapping(LearnerConfig, values, "config.json")


@pytest.mark.parametrize(
    "content", [b"[model", b"a = ", b"width = 3\nwidth = 4", b"\xff\xfe\x00", b"\x89PNG\r\n\x1a\n"]
)
def test_what_is_not_toml_is_refused_in_one_line(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        load_config(str(path))
    message = str(caught.value)
    assert message.startswith(f"recipe: {path} is not TOML (")
    assert "\n" not in message


@pytest.mark.parametrize(
    ("recipe", "end"),
    [
        ("digit", "did you mean 'digits'?"),
        ("mnsit", "did you mean 'mnist'?"),
        ("fashion-mnist", "did you mean 'fashion_mnist'?"),
        ("zzzzzz", "choose one of celeba64, coloured_digits, digits, "),
    ],
)
def test_an_unknown_recipe_suggests_the_nearest(recipe: str, end: str) -> None:
    with pytest.raises(InputError) as caught:
        load_config(recipe)
    assert str(caught.value).startswith(f"recipe: got {recipe!r}; {end}")


@pytest.mark.parametrize("name", ["missing.toml", "a_folder.toml"])
def test_a_recipe_that_is_not_there(name: str, tmp_path: Path) -> None:
    (tmp_path / "a_folder.toml").mkdir()
    with pytest.raises(InputError, match=r"missing.toml does not exist|a_folder.toml does not exist"):
        load_config(str(tmp_path / name))


def test_numbers_of_the_command_line_are_checked_too() -> None:
    """The command line builds the dataclasses itself: only `checked_settings` stands between it and a run."""
    assert checked_settings(Config()) == Config()
    for config in (
        Config(model=ModelConfig(latents=())),
        Config(inference=InferenceConfig(step_size=(0.1, 0.2))),
        Config(training=TrainingConfig(clip_norm=math.nan)),
    ):
        with pytest.raises(InputError):
            checked_settings(config)


WRONG = [
    (ModelConfig, "latents", 8, "model.latents: got 8; write a list of whole numbers"),
    (ModelConfig, "latents", ("8",), "model.latents: got ('8',); write a list of whole numbers"),
    (ModelConfig, "skip", 1, "model.skip: got 1; write true or false"),
    (ModelConfig, "likelihood", "gausian", "model.likelihood: got 'gausian'; did you mean 'gaussian'?"),
    (ModelConfig, "sigma", "0.3", "model.sigma: got '0.3'; write a number"),
    (TrainingConfig, "epochs", "2", "training.epochs: got '2'; write a whole number"),
    (TrainingConfig, "epochs", True, "training.epochs: got True; write a whole number"),
    (InferenceConfig, "steps", 2.0, "inference.steps: got 2.0; write a whole number"),
    (DataConfig, "dir", 3, "data.dir: got 3; write a path"),
]


def by_hand(kind: Any, **values: Any) -> Any:
    """Return settings as a user's program makes them, without the checks of types that the tests add to dataclasses."""
    made = kind()
    for name, value in values.items():
        object.__setattr__(made, name, value)
    return made


@pytest.mark.parametrize(("kind", "name", "value", "message"), WRONG)
def test_wrong_types_and_words_are_refused_in_python_too(kind: type, name: str, value: Any, message: str) -> None:
    table = message.split(".")[0]
    with pytest.raises(InputError) as caught:
        checked_settings(by_hand(Config, **{table: by_hand(kind, **{name: value})}))
    assert str(caught.value).startswith(message)


def test_a_table_of_another_kind_and_an_unknown_learner_are_refused() -> None:
    with pytest.raises(InputError, match=r"^model: got \{'width': 3\}; write a table of ModelConfig"):
        checked_settings(by_hand(Config, model={"width": 3}))
    with pytest.raises(InputError, match=r"^learner: got 'vea'; did you mean 'vae'"):
        checked_settings(Config(learner="vea"))


def test_numbers_of_numpy_and_lists_become_plain_ones() -> None:
    model = by_hand(ModelConfig, latents=[np.int64(3), 4], sigma=np.float32(0.5), width=np.uint8(7))
    found = checked_settings(by_hand(Config, model=model)).model
    assert (found.latents, found.sigma, found.width) == ((3, 4), 0.5, 7)
    assert [type(value) for value in (*found.latents, found.sigma, found.width)] == [int, int, float, int]


def test_a_name_from_outside_is_taken_without_a_look_inside() -> None:
    config = Config(learner="mine:MyLearner", model=ModelConfig(likelihood="mine:Laplace", blocks="mine:decoder"))
    assert checked_settings(config) == config
    for word in (":Laplace", "mine:", "laplace"):
        with pytest.raises(InputError, match=r"^model.likelihood: got '.*'; .* \(or module:Name of your own\)$"):
            checked_settings(Config(model=ModelConfig(likelihood=word)))


def test_absolute_paths_and_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "images.npz").touch()
    monkeypatch.setenv("HOME", str(tmp_path))

    def made(**data: Any) -> DataConfig:
        return absolute(Config(data=DataConfig(**data)), {"digits"}).data

    assert made(source="own/images.npz").source == str(tmp_path / "own" / "images.npz")
    (tmp_path / "digits").mkdir()
    assert made(source="own").source == str(tmp_path / "own")
    assert made(source="~/own/images.npz").source == str(tmp_path / "own" / "images.npz")
    assert made(source="digits", dir=Path("own")) == DataConfig("digits", tmp_path / "own")
    assert made(dir=Path("~/own")).dir == tmp_path / "own"
    assert made(source="hub:some/one").source == "hub:some/one"
    assert dataclasses.replace(made(), dir=None) == DataConfig()
