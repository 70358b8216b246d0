"""A faulty plugin is refused in one line that names it, what it gave and what is allowed; nothing wrong is stored."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from runs_kit import config_for

from robossl.common.config import with_changes
from robossl.data.ingest import ingest
from robossl.data.store import Store, open_store
from robossl.encoders.encoder import EncoderConfig, build_encoder, save_encoder
from robossl.errors import InputError
from robossl.evaluation.run import EvaluationSettings, run_evaluation
from robossl.probes.factors import FACTORS, resolve_factor
from robossl.probes.factors import _check as check_factor
from robossl.probes.prepare import prepare
from robossl.probes.settings import QUICK
from robossl.probes.sources.store import StoreProbeFrames
from robossl.training.pretrain import pretrain

PLACE = "faulty_plugins"


def store_of(source: str, folder: Path) -> Store:
    """Ingest with a source of the kit; it reads nothing from its folder."""
    (folder / "data").mkdir()
    return ingest([folder / "data"], out=folder / "store", format=f"{PLACE}:{source}", workers=1)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("SameKeys", r"^faulty_plugins.SameKeys.listing\(\) gave 2 units the key 'a'; give every unit a "),
        ("ListListing", r"listing\(\) returned a list; return a Listing"),
        ("DictUnits", r"listing\(\) listed a dict; list units"),
        ("NumberLabel", r"gave the unit 'a' the label kind 3 \(int\); it must be text"),
        ("OnlyRoot", r"must have __init__\(self, root, labels=None, options=None\)$"),
        ("BoundAccepts", r"must have a static method accepts\(root\)"),
        ("NoFrames", r"NoFrames.frames\(\) returned None for a; yield frames"),
        ("Arrays", r"Arrays.frames\(\) gave an ndarray for a; yield Frame\(pixels, time_seconds\)"),
        ("Raises", r"Raises.frames\(\) failed for a \(\S+faulty_plugins.py:\d+: KeyError: 'pixels'\); mend"),
        ("AllGrey", r"nothing could be read from .*: a: .* gave frame 0 with pixels \(32, 48\) uint8; "),
    ],
)
def test_a_faulty_source_is_refused(source: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message) as refused:
        store_of(source, tmp_path)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("Grey", "faulty_plugins.Grey.frames() gave frame 1 with pixels (32, 48) uint8; they must be (h, w, 3)"),
        ("Floats", "pixels (32, 48, 3) float64; they must be"),
        ("ChannelsFirst", "pixels (3, 32, 48) uint8; they must be"),
        ("Resized", "frame 1 has 48x16 pixels, frame 0 has 48x32; all frames of an episode must have one size"),
        ("NanTime", "gave frame 1 at the time nan; it must be a number of seconds"),
        ("WideColumn", "gave frame 1 with (3,) values of the column action; the listing says (2,)"),
        ("NoColumn", "gave frame 1 with the columns none; the listing names action"),
    ],
)
def test_an_episode_with_a_wrong_frame_is_left_out_with_the_reason(source: str, reason: str, tmp_path: Path) -> None:
    store = store_of(source, tmp_path)
    (skipped,) = store.manifest.sources[0].skipped
    assert skipped.path == "b" and reason in skipped.reason
    assert (store.num_episodes, store.num_frames) == (1, 3)


def train(fault: str, store: Path, out: Path, **train: object) -> None:
    """Train a method of the kit for a step."""
    config = config_for(f"{PLACE}:FaultyConfig", store, **{"steps": 1, "batch_size": 4} | train)
    pretrain(with_changes(config, {"method.fault": fault}), out=out)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("module", r"^faulty_plugins.FaultyConfig.build\(\) returned a torch\S+Linear; return a method, "),
        ("no encoder", r"^faulty_plugins.Distances has no self.encoder; keep there the encoder "),
        ("no views", r"^faulty_plugins.NoViews.views\(\) is missing; return a tuple of ViewSpec"),
        ("one view", r"views\(\) returned a ViewSpec; return a tuple of ViewSpec"),
        ("sizes", r"views\(\) returned an int among the views; return a tuple"),
        ("empty", r"views\(\) returned an empty tuple; return a tuple"),
        ("tensor", r"^faulty_plugins.Distances.forward\(\) returned a tensor of shape \(\); return robossl.Loss\("),
        ("nothing", r"forward\(\) returned None; return robossl.Loss\("),
        ("vector", r"returned a tensor of shape \(4,\) as the loss; it must be a scalar tensor"),
        ("constant", r"returned a loss that depends on no parameter"),
        ("number", r"returned a float as the metric 'spread'; it must be a scalar tensor"),
        ("wide metric", r"returned a tensor of shape \(3,\) as the metric 'spread'"),
        ("one output", r"returned a tensor of shape \(2, 4\) as outputs; they must be a tuple of tensors \(b, d\)"),
        ("maps", r"returned a tensor of shape \(4, 8, 2, 2\) among the outputs"),
        ("no outputs", r"returned an empty tuple as outputs"),
        ("weight", r"returned an int as the weight; it must be a scalar tensor or None"),
        ("no gradient", r"loss of faulty_plugins.Distances gives no parameter of self.encoder a gradient: "),
    ],
)
def test_a_faulty_method_is_refused(fault: str, message: str, clip_store_path: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message) as refused:
        train(fault, clip_store_path, tmp_path / "run", accumulate=2)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "run" / "encoder").exists()


@pytest.mark.parametrize("fault", ["", "frozen", "list of views"])
def test_a_sound_method_and_one_that_freezes_its_encoder_train(
    fault: str, clip_store_path: Path, tmp_path: Path
) -> None:
    train(fault, clip_store_path, tmp_path / "run")
    assert (tmp_path / "run" / "encoder").is_dir()


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with an untrained encoder."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("encoder")
    save_encoder(build_encoder(EncoderConfig(backbone="test_resnet", input_hw=(32, 32))), folder, extra={})
    return str(folder)


def evaluated(protocol: str, encoder: str, store: Path, cache: Path | None = None) -> None:
    """Evaluate an encoder with a protocol of the kit."""
    settings = EvaluationSettings(
        label=("lab",),
        protocol=(f"{PLACE}:{protocol}",),
        split_by="episode",
        test_fraction=0.5,
        test=("test",),
        frames_per_episode=2,
        min_episodes=1,
        bootstrap=100,
        random_seeds=1,
    )
    run_evaluation((encoder,), open_store(store), settings, cache=cache)


@pytest.mark.parametrize(
    ("protocol", "message"),
    [
        ("without_seed", r"must take \(train, labels, groups, test, \*, seed\)$"),
        ("only_scores", r"^faulty_plugins.only_scores\(\) returned an ndarray; return Predictions\(scores, details\)$"),
        ("flat", r"flat\(\) returned scores \(\d+,\) float64; they must be floats \(\d+, \d\), a row "),
        ("whole_numbers", r"returned scores \(\d+, \d\) int64; they must be floats"),
        ("tensors", r"returned a Tensor as scores; they must be a numpy array"),
        ("not_a_number", r"returned scores that are not finite for 1 of \d+ test frames; they must be "),
        ("votes", r"returned scores from \S+ to \S+, with a row that sums to 20; they must be probabilities: "),
        ("negative", r"returned scores from -\S+ to \S+, with a row that sums to 1; they must be probabilities: "),
        ("numpy_details", r"returned details with an int64 as k; they must be a dict of bool, int"),
    ],
)
def test_a_faulty_protocol_is_refused(
    protocol: str, message: str, encoder: str, clip_store_path: Path, tmp_path: Path
) -> None:
    for _ in range(2):  # a faulty prediction is not kept either
        with pytest.raises(InputError, match=message) as refused:
            evaluated(protocol, encoder, clip_store_path, cache=tmp_path)
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("protocol", ["uniform", "without_details"])
def test_a_sound_protocol_is_used(protocol: str, encoder: str, clip_store_path: Path, tmp_path: Path) -> None:
    evaluated(protocol, encoder, clip_store_path, cache=tmp_path)


def prepared(factor: str, store: Path, cache: Path) -> None:
    """Plan a probe of one factor of the kit."""
    frames = StoreProbeFrames(open_store(store))
    prepare(frames, profile=None, factors=(f"{PLACE}:{factor}",), cache=cache, settings=QUICK)


@pytest.mark.parametrize(
    ("factor", "message"),
    [
        ("FAMILY", r"'faulty_plugins:FAMILY' has family 'light'; choose from photometric, geometric, scene, temporal$"),
        ("BASE", r"has base 'round'; choose from plain, disc"),
        ("FLAT", r"has sides \(0.1, 0.2, 0.3, 0.4, 0.5\); they must be one or two rows of strengths"),
        ("THREE_SIDES", r"they must be one or two rows of strengths"),
        ("THREE_LEVELS", r"has 3 strengths on a side, \(0.1, 0.2, 0.3\); it must have 5, one for each level"),
        ("UNORDERED", r"has the strengths \(0.1, 0.3, .*\) with clean 0.0; they must lead away "),
        ("CLEAN_LEVEL", r"with clean 0.0; they must lead away from it"),
        ("ENDLESS", r"strengths must be finite numbers"),
        ("LOG_OF_ZERO", r"has the scale log and the strength 0.0; strengths on this scale must be above 0"),
        ("FLOATS", r"^apply of the factor faulty_plugins:FLOATS returned \(4, 96, \d+, 3\) float64; it must "),
        ("LISTS", r"returned a list; it must return an array \(4, 96, \d+, 3\) uint8$"),
        ("TALL", r"returned \(4, 192, \d+, 3\) uint8; it must return an array \(4, 96, \d+, 3\) uint8"),
        ("ALWAYS", r"factor faulty_plugins:ALWAYS changes frames by \d+.\d grey levels at its clean strength 0; "),
    ],
)
def test_a_faulty_factor_is_refused(factor: str, message: str, clip_store_path: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message) as refused:
        prepared(factor, clip_store_path, tmp_path)
    assert "\n" not in str(refused.value)


def test_a_sound_factor_is_planned(clip_store_path: Path, tmp_path: Path) -> None:
    prepared("DARKER", clip_store_path, tmp_path)


def test_our_own_pass_the_checks_that_plugins_pass() -> None:
    assert {name: check_factor(resolve_factor(name)) for name in FACTORS.built_in} == dict.fromkeys(FACTORS, "")
