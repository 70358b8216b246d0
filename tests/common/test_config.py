"""Configuration: strict reading with messages that name the place, exact round trips, overrides."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from places import ROOT

from robossl.common.config import as_plain, config_hash, difference, from_mapping, load, override, to_yaml
from robossl.common.plugins import Registry
from robossl.errors import InputError
from robossl.training.run_config import OnlineKnnConfig, RunConfig


@runtime_checkable
class Builds(Protocol):
    def build(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Crop:
    size: int = 224  # pixels of the view
    scale: tuple[float, float] = (0.2, 1.0)


@dataclass(frozen=True, slots=True)
class Calm:
    temperature: float = 0.1
    crop: Crop = Crop()

    def build(self) -> str:
        return "calm"


@dataclass(frozen=True, slots=True)
class Wild:
    predictor: Literal["mlp", "none", "off"] = "mlp"

    def build(self) -> str:
        return "wild"


TABLE = Registry(
    "method",
    group="",
    built_in={"calm": f"{__name__}:Calm", "wild": f"{__name__}:Wild"},
    check=lambda found: "",
)


@dataclass(frozen=True, slots=True)
class Train:
    steps: int = 100  # of the global batch
    lr: float = 0.05
    bf16: bool = False
    sinks: tuple[str, ...] = ()
    clip: float | None = None
    workers: int | Literal["auto"] = "auto"
    weights: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, got {self.steps}")


@dataclass(frozen=True, slots=True)
class Run:
    method: Builds = field(metadata={"choices": TABLE})
    store: Path
    train: Train = Train()
    knn: Train | None = None
    crops: tuple[Crop, ...] = ()
    note: str = ""


MINIMAL = "method: {name: calm}\nstore: data/store\n"


def read(tmp_path: Path, text: str, schema: type[Any] = Run) -> Any:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    return load(path, schema)


def refusal(tmp_path: Path, text: str) -> str:
    with pytest.raises(InputError) as caught:
        read(tmp_path, text)
    return str(caught.value).removeprefix(f"{tmp_path}/")


def test_every_kind_of_value_is_read(tmp_path: Path) -> None:
    config = read(
        tmp_path,
        """
        method: {name: calm, temperature: 1, crop: {size: 64, scale: [0.08, 1]}}
        store: data/store
        train:
          steps: 010
          lr: 1e-3
          bf16: true
          sinks: [tensorboard, off]
          clip: null
          workers: auto
          weights: {a: 1, b: 2.5}
        knn: {workers: 2, clip: 3.0}
        crops: [{size: 1}, {}]
        note: "12"
        """,
    )
    assert config == Run(
        method=Calm(temperature=1.0, crop=Crop(size=64, scale=(0.08, 1.0))),
        store=Path("data/store"),
        train=Train(steps=10, lr=1e-3, bf16=True, sinks=("tensorboard", "off"), weights={"a": 1.0, "b": 2.5}),
        knn=Train(workers=2, clip=3.0),
        crops=(Crop(size=1), Crop()),
        note="12",
    )
    assert isinstance(config.method.temperature, float)


def test_defaults_are_the_dataclass_s_own(tmp_path: Path) -> None:
    assert read(tmp_path, MINIMAL) == Run(method=Calm(), store=Path("data/store"))
    assert read(tmp_path, "", Train) == Train()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            MINIMAL + "train:\n  stesp: 3\n",
            "run.yaml:4: unknown key in train 'stesp'; did you mean 'steps'? "
            "choose from steps, lr, bf16, sinks, clip, workers, weights",
        ),
        (
            MINIMAL + "zzz: 3\n",
            "run.yaml:3: unknown key 'zzz'; choose from method, store, train, knn, crops, note",
        ),
        (
            "method:\n  name: clam\nstore: x\n",
            "run.yaml:2: unknown method 'clam'; did you mean 'calm'? choose from calm, wild",
        ),
        (
            "method:\n  name: wild\n  temperature: 1\nstore: x\n",
            "run.yaml:3: unknown key in method 'temperature'; choose from predictor",
        ),
        ("method:\n  name: json:Calm\nstore: x\n", "run.yaml:2: the method 'json:Calm' cannot be imported (AttributeE"),
        ("method: {name: [a]}\nstore: x\n", "run.yaml:1: method.name must be text, got a list of 1; choose from calm"),
        ("method: {}\nstore: x\n", "run.yaml:1: method.name is missing; choose from calm, wild"),
        ("method: {name: calm}\n", "run.yaml:1: store is missing and has no default; give a path"),
        ("method: calm\nstore: x\n", "run.yaml:1: method must be a mapping, got 'calm'"),
        (MINIMAL + "store: y\n", "run.yaml:3: key 'store' is given twice; keep one"),
        (MINIMAL + "train: {lr: 1, lr: 2}\n", "run.yaml:3: key 'lr' is given twice in train; keep one"),
        (MINIMAL + "train: {steps: 4a}\n", "run.yaml:3: train.steps must be a whole number, got '4a'"),
        (MINIMAL + "train: {steps: 1.0}\n", "run.yaml:3: train.steps must be a whole number, got 1.0"),
        (MINIMAL + "train: {steps: true}\n", "run.yaml:3: train.steps must be a whole number, got true"),
        (MINIMAL + "train: {lr: true}\n", "run.yaml:3: train.lr must be a number, got true"),
        (MINIMAL + "train: {lr: '0.1'}\n", "run.yaml:3: train.lr must be a number, got '0.1'"),
        (MINIMAL + "train: {bf16: yes}\n", "run.yaml:3: train.bf16 must be true or false, got 'yes'"),
        (MINIMAL + "train: {bf16: 1}\n", "run.yaml:3: train.bf16 must be true or false, got 1"),
        (MINIMAL + "train: {lr: null}\n", "run.yaml:3: train.lr must be a number, got null"),
        (MINIMAL + "train:\n  lr:\n", "run.yaml:4: train.lr must be a number, got nothing"),
        (MINIMAL + "note: 12\n", "run.yaml:3: note must be text, got 12; put it in quotes"),
        (MINIMAL + "train: {sinks: wandb}\n", "run.yaml:3: train.sinks must be a list of text, got 'wandb'"),
        (
            MINIMAL + "train: {workers: all}\n",
            "run.yaml:3: train.workers must be a whole number or 'auto', got 'all'",
        ),
        (MINIMAL + "train: {weights: {a: b}}\n", "run.yaml:3: train.weights.a must be a number, got 'b'"),
        (
            "method:\n  name: calm\n  crop: {scale: [1, 2, 3]}\nstore: x\n",
            "run.yaml:3: method.crop.scale must be [a number, a number], got a list of 3",
        ),
        (
            "method: {name: wild, predictor: mpl}\nstore: x\n",
            "run.yaml:1: method.predictor must be one of 'mlp', 'none', 'off', got 'mpl'",
        ),
        (
            MINIMAL + "knn:\n  stepss: 3\n",
            "run.yaml:4: unknown key in knn 'stepss'; did you mean 'steps'? "
            "choose from steps, lr, bf16, sinks, clip, workers, weights",
        ),
        (MINIMAL + "crops: [{}, {size: x}]\n", "run.yaml:3: crops[1].size must be a whole number, got 'x'"),
        (MINIMAL + "train:\n  steps: 0\n", "run.yaml:4: train: steps must be at least 1, got 0"),
        (
            MINIMAL + "train: !!python/object:os.system {}\n",
            "run.yaml:3: tag 'tag:yaml.org,2002:python/object:os.system' is not allowed; leave it out",
        ),
        (MINIMAL + "train: {steps: !!int x}\n", "run.yaml:3: tag 'tag:yaml.org,2002:int' is not allowed"),
        (MINIMAL + "? [a]\n: 3\n", "run.yaml:3: a key must be text, got a list of 1"),
        ("- a\n", "run.yaml:1: the configuration must be a mapping, got a list of 1"),
        (
            "method: [\n",
            "run.yaml:2: this is not valid YAML: expected the node content, but found '<stream end>'",
        ),
        ("a: 1\n---\nb: 2\n", "run.yaml:2: this is not valid YAML: but found another document"),
        ("a: \x01\n", "run.yaml: this is not valid YAML: unacceptable character"),
    ],
)
def test_each_mistake_is_named_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    assert refusal(tmp_path, text).startswith(message)


def test_unreadable_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file or directory; pass a YAML file"):
        load(tmp_path / "none.yaml", Run)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not UTF-8"):
        load(tmp_path / "binary.yaml", Run)


def test_mappings_are_as_strict_and_name_no_file() -> None:
    assert from_mapping({"method": {"name": "wild"}, "store": "x"}, Run) == Run(method=Wild(), store=Path("x"))
    assert from_mapping(as_plain(Train(sinks=("a",))), Train) == Train(sinks=("a",))
    with pytest.raises(InputError, match=r"^unknown key 'stesp'; did you mean 'steps'\?"):
        from_mapping({"stesp": 1}, Train)
    with pytest.raises(InputError, match=r"^own.toml: unknown key 'stesp'; did you mean 'steps'\?"):
        from_mapping({"stesp": 1}, Train, source=Path("own.toml"))


_floats = st.floats(allow_nan=False)
_trains = st.builds(
    Train,
    steps=st.integers(min_value=1),
    lr=_floats,
    bf16=st.booleans(),
    sinks=st.lists(st.text()).map(tuple),
    clip=st.none() | _floats,
    workers=st.integers() | st.just("auto"),
    weights=st.dictionaries(st.text(), _floats),
)
_runs = st.builds(
    Run,
    method=st.builds(Calm, temperature=_floats) | st.builds(Wild, predictor=st.sampled_from(["mlp", "none", "off"])),
    store=st.text(st.characters(exclude_characters="\0\x85", exclude_categories=["Cs"])).map(Path),
    train=_trains,
    knn=st.none() | _trains,
    crops=st.lists(st.builds(Crop, scale=st.tuples(_floats, _floats))).map(tuple),
    note=st.text()
    | st.sampled_from(["no", "1e-3", "null", "none", "None", "~", "010", "1_000", "2024-01-01", "=", "<<", "True"]),
)


@given(config=_runs)
@settings(max_examples=100, deadline=None)
def test_what_is_written_is_read_back_equal(config: Run, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "replay.yaml"
    path.write_text(to_yaml(config), encoding="utf-8", newline="")
    again = load(path, Run)
    assert again == config
    assert to_yaml(again) == to_yaml(config)
    assert config_hash(again) == config_hash(config)
    assert difference(again, config) == []


def test_the_written_form_is_complete(tmp_path: Path) -> None:
    written = as_plain(Run(method=Calm(), store=Path("x")))

    def count(value: Any) -> int:
        return sum(count(getattr(value, f.name)) for f in fields(value)) if is_dataclass(value) else 1

    assert written["method"] == {
        "name": "calm",
        "temperature": 0.1,
        "crop": {"size": 224, "scale": [0.2, 1.0]},
    }
    assert to_yaml(Run(method=Calm(), store=Path("x"))).startswith("method:\n  name: calm\n  temperature: 0.1\n")
    assert set(written) == {f.name for f in fields(Run)}
    assert math.isinf(read(tmp_path, "lr: .inf", Train).lr)


def test_difference_names_each_key_with_both_values() -> None:
    before = Run(method=Calm(), store=Path("a"), knn=Train(steps=5))
    after = replace(before, store=Path("b"), train=Train(steps=200, sinks=("x",)), knn=None)
    assert difference(before, after) == [
        'store: "a" -> "b"',
        "train.steps: 100 -> 200",
        'train.sinks: [] -> ["x"]',
        *[line for line in difference(before, after) if line.startswith("knn")],
    ]
    assert "knn: (absent) -> null" in difference(before, after)
    assert difference(before, replace(before, method=Wild()))[0] == 'method.name: "calm" -> "wild"'
    assert difference(before, before) == []


def test_the_hash_sees_values_and_the_chosen_name_only() -> None:
    assert config_hash(Train(lr=1.0)) == config_hash(Train(lr=int("1")))
    assert config_hash(Train(lr=1.0)) != config_hash(Train(lr=1.5))
    one, two = Run(method=Calm(), store=Path("x")), Run(method=Wild(), store=Path("x"))
    assert config_hash(one) != config_hash(two)
    assert len(config_hash(one)) == 64


def test_the_command_line_overrides_any_field() -> None:
    run = Run(method=Calm(), store=Path("x"))
    argv = [
        "--train.steps",
        "9",
        "--method.crop.size",
        "64",
        "--method.crop.scale",
        "0.1",
        "1",
        "--train.bf16",
    ]
    changed = override(run, [*argv, "--train.sinks", "a", "b"], prog="robossl pretrain")
    assert type(changed) is type(run)
    assert changed == replace(
        run,
        method=Calm(crop=Crop(size=64, scale=(0.1, 1.0))),
        train=Train(steps=9, bf16=True, sinks=("a", "b")),
    )
    assert override(run, [], prog="robossl pretrain") == run


def test_an_optional_part_can_be_changed_where_it_is_given() -> None:
    run = Run(method=Calm(), store=Path("x"), knn=Train())
    changed = override(run, ["--knn.steps", "5", "--note", "y"], prog="robossl pretrain")
    assert changed == replace(run, knn=Train(steps=5), note="y")


@pytest.mark.parametrize("word", ["none", "None", "NONE", "null", "Null", "NULL"])
def test_none_and_null_are_one_word_in_yaml_and_on_the_command_line(word: str, tmp_path: Path) -> None:
    given = "method: {name: calm}\nstore: x\ntrain: {clip: 1.0}\nknn: {steps: 2}\n"
    run = read(tmp_path, given)
    absent = replace(run, knn=None, train=replace(run.train, clip=None))
    text = f"method: {{name: calm}}\nstore: x\ntrain: {{clip: {word}}}\nknn: {word}\n"
    assert read(tmp_path, text) == absent
    assert override(run, ["--knn", word, "--train.clip", word], prog="x") == absent
    assert override(run, [f"--knn={word}", f"--train.clip={word}"], prog="x") == absent
    wild = replace(run, method=Wild())
    assert override(wild, ["--method.predictor", word], prog="x").method == Wild("none")
    assert read(tmp_path, text.replace("calm", f"wild, predictor: {word}")).method == Wild("none")
    assert read(tmp_path, f"{given}note: '{word}'\n").note == word  # in quotes it is text
    assert f"note must be text, got {word}; put it in quotes" in refusal(tmp_path, f"{given}note: {word}\n")


def test_a_part_that_may_be_absent_is_switched_on_by_its_options() -> None:
    run = Run(method=Calm(), store=Path("x"))
    assert override(run, ["--knn.steps", "5"], prog="x").knn == Train(steps=5)
    needs = OnlineKnnConfig("scene", every=3)
    recipe = load(ROOT / "configs" / "simsiam_resnet18_video.yaml", RunConfig)
    assert override(recipe, ["--knn.label", "scene", "--knn.every", "3"], prog="x").knn == needs
    with pytest.raises(SystemExit):
        override(recipe, ["--knn.every", "3"], prog="x")  # without its label


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--knn", "none", "--knn.steps", "5"], "--knn none leaves nothing for --knn.steps to set; give one of them"),
        (["--knn.steps=5", "--knn=null"], "--knn none leaves nothing for --knn.steps to set; give one of them"),
        (["--knn", "scene"], "--knn takes none, which switches it off, got 'scene'; change it by --knn.KEY VALUE"),
        (["--knn"], "--knn takes none, which switches it off, got ''"),
        (["--knn", "--knn.steps", "5"], "--knn takes none, which switches it off, got '--knn.steps'"),
    ],
)
def test_switching_a_part_off_and_changing_it_is_refused(argv: list[str], message: str) -> None:
    for knn in (Train(), None):
        with pytest.raises(InputError, match=message):
            override(Run(method=Calm(), store=Path("x"), knn=knn), argv, prog="x")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--train.step", "4"], "--train.steps"),
        (["--method.predictor", "none"], "--method.predictor"),
        (["--train.steps", "many"], "many"),
        (["--train.steps", "0"], "steps must be at least 1, got 0"),
    ],
)
def test_a_wrong_override_exits_2_and_says_why(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        override(Run(method=Calm(), store=Path("x")), argv, prog="robossl pretrain")
    assert caught.value.code == 2
    printed = capsys.readouterr()
    assert message in printed.out + printed.err


def test_help_shows_values_and_comments(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        override(Run(method=Calm(), store=Path("x")), ["--help"], prog="robossl pretrain")
    assert caught.value.code == 0
    printed = capsys.readouterr().out
    assert "--method.crop.size INT" in printed
    assert "pixels of the view" in printed


@dataclass(frozen=True, slots=True)
class Strong:
    crop: Crop = Crop(scale=(0.08, 1.0))
    others: tuple[Crop, ...] = ()
    made: Crop = field(default_factory=lambda: Crop(size=96))


def test_a_mapping_changes_its_field_s_own_default_and_not_the_class_s() -> None:
    read = from_mapping({"crop": {"size": 64}, "others": [{"size": 8}], "made": {"scale": [0.5, 1.0]}}, Strong)
    assert read.crop == Crop(64, (0.08, 1.0))
    assert read.others == (Crop(8),)
    assert read.made == Crop(96, (0.5, 1.0))
