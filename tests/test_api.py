"""The Python API: what `import robossl` gives, what its functions take, and how their results print."""

from __future__ import annotations

import inspect
import json
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from places import CLIPS, ROOT
from serving_kit import FRAMES, serving

import robossl

TINY = {
    "train.steps": 2,
    "train.batch_size": 4,
    "train.sinks": [],
    "encoder.backbone": "test_resnet",
    "encoder.input_hw": [64, 64],
    "method.view.size": 32,
    "knn": None,
}


@pytest.fixture(scope="module")
def run(clip_store_path: Path, tmp_path_factory: pytest.TempPathFactory) -> robossl.Run:
    """A run of two steps."""
    out = tmp_path_factory.mktemp("api") / "tiny"
    return robossl.pretrain("simsiam_resnet18_video", store=clip_store_path, out=out, changes=TINY)


def test_the_import_is_light() -> None:
    program = (
        "import sys, robossl; print(sorted({'torch', 'numpy', 'yaml'} & set(sys.modules)),"
        "sorted(set(robossl.__all__) - set(dir(robossl))))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.stdout == "[] []\n", done.stderr


def test_only_public_names_are_completed() -> None:
    assert dir(robossl) == sorted([*robossl.__all__, "__version__"])


def test_no_module_hides_a_public_name() -> None:
    modules = {module.name for module in pkgutil.iter_modules(robossl.__path__)}
    assert modules & set(robossl.__all__) == set()


@pytest.mark.parametrize("name", robossl.__all__)
def test_every_name_is_there_and_says_what_it_is(name: str) -> None:
    found = getattr(robossl, name)
    assert inspect.getdoc(found)
    if inspect.isfunction(found):
        assert ">>> robossl." in str(found.__doc__) or "= robossl." in str(found.__doc__)
        assert "Raises:" in str(found.__doc__)


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'pretrian'"):
        robossl.pretrian  # noqa: B018


@pytest.mark.parametrize("kind", [str, Path])
def test_a_path_is_text_or_a_path(kind: type, run: robossl.Run, clip_store_path: Path) -> None:
    store = robossl.open_store(kind(clip_store_path))
    same = robossl.open_run(kind(run.path))
    assert (same.path, same.config) == (run.path, run.config)
    assert robossl.load_config(kind(run.path)) == run.config
    wanted = robossl.load_encoder(run)(FRAMES)["pooled"]
    for source in (kind(run.path), kind(run / "encoder")):
        np.testing.assert_array_equal(robossl.load_encoder(source)(FRAMES)["pooled"], wanted)
    assert robossl.open_store(store).num_frames == store.num_frames  # a store and a run are paths themselves


def test_one_source_or_several_are_ingested(tmp_path: Path) -> None:
    clips = sorted((CLIPS).rglob("*.mp4"))[:2]
    one = robossl.ingest(str(clips[0]), out=str(tmp_path / "one"), short_side=32, workers=1)
    two = robossl.ingest(clips, out=tmp_path / "two", short_side=32, workers=1)
    assert (one.num_episodes, two.num_episodes) == (1, 2)


def test_decoded_frames_go_into_the_encoder_as_the_page_says(run: robossl.Run, clip_store_path: Path) -> None:
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    (line,) = re.findall(r"^frames = (torch\.stack.*?)  #", page, re.MULTILINE)
    frames = eval(line, {"torch": torch, "store": robossl.open_store(clip_store_path), "rows": [0, 1]})
    assert (frames.shape[0], frames.shape[-1], frames.dtype) == (2, 3, np.uint8)
    assert robossl.load_encoder(run)(frames)["pooled"].shape == (2, 96)


def test_a_folder_of_another_command_is_no_store_and_is_named(run: robossl.Run, tmp_path: Path) -> None:
    with pytest.raises(robossl.InputError, match=f"is a run, not a store; robossl report {run.path} writes a page"):
        robossl.open_store(run)
    with pytest.raises(robossl.InputError, match="is an encoder, not a store"):
        robossl.open_store(run / "encoder")
    robossl.export(run, out=tmp_path / "models")
    for model in (tmp_path / "models" / "tiny", tmp_path / "models" / "tiny" / "1"):
        with pytest.raises(robossl.InputError, match=r"is an exported model, not a store; .*card\.json describes it"):
            robossl.open_store(model)


def test_a_run_says_how_it_went(run: robossl.Run) -> None:
    assert run.is_finished
    assert (run.step, run.config.train.steps, run.health) == (2, 2, "not checked")
    assert [values["step"] for values in run.metrics] == [2]
    loss = f"{run.metrics[-1]['loss']:.4f}"
    assert repr(run) == f"Run({run.path}: simsiam on test_resnet, 2 of 2 steps, loss {loss}, health: not checked)"
    assert f'<td style="text-align: left">{loss}</td>' in run._repr_html_()
    assert run.encoder(outputs=("pooled",)).card.step == 2


def test_a_run_that_was_killed_is_read_as_far_as_it_came(run: robossl.Run, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text((run / "config.yaml").read_text())
    (tmp_path / "log.txt").touch()
    started = robossl.open_run(tmp_path)
    assert "0 of 2 steps, loss not logged" in repr(started)
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 0.5}\n{"step": 2, "lo')
    assert started.metrics == [{"step": 1, "loss": 0.5}]
    assert not started.is_finished
    with pytest.raises(robossl.InputError, match="is no run"):
        robossl.open_run(tmp_path.parent / "absent")


def test_health_is_that_of_the_report(run: robossl.Run, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text((run / "config.yaml").read_text())
    values = {"health/std": 0.001, "health/std_reference": 0.1, "health/rank": 5.0}
    lines = [json.dumps({"step": step, "loss": 0.0, **values}) for step in range(1, 5)]
    (tmp_path / "metrics.jsonl").write_text("".join(f"{line}\n" for line in lines))
    assert robossl.Run(tmp_path).health == "collapsed from step 3: all frames get nearly the same output"


def test_pretrain_goes_on_with_a_run_and_leaves_torch_as_it_was(
    run: robossl.Run, clip_store_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    was_deterministic = torch.are_deterministic_algorithms_enabled()
    torch.manual_seed(7)
    wanted = torch.rand(3)
    torch.manual_seed(7)
    short = robossl.load_config("simsiam_resnet18_video", changes=TINY | {"train.steps": 1})
    first = robossl.pretrain(short, store=robossl.open_store(clip_store_path))
    assert first.path == Path("runs/simsiam_test_resnet")
    longer = robossl.pretrain(first, resume=True, changes={"train.steps": 2})
    assert (longer.path, longer.step) == (first.path, 2)
    assert torch.are_deterministic_algorithms_enabled() == was_deterministic
    torch.testing.assert_close(torch.rand(3), wanted, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trian.steps": 1}, "unknown key 'trian'; did you mean 'train'"),
        ({"train.stps": 1}, "unknown key in train 'stps'; did you mean 'steps'"),
        ({"train.steps": "many"}, "train.steps must be a whole number"),
        ({"train.steps.more": 1}, "train.steps must be a whole number"),
    ],
)
def test_a_wrong_change_is_one_clear_line(changes: dict[str, object], message: str) -> None:
    with pytest.raises(robossl.InputError, match=message):
        robossl.load_config("quickstart", changes=changes)


def test_changes_switch_parts_on_and_off_and_replace_them() -> None:
    config = robossl.load_config("quickstart", changes={"knn": None})
    assert config.knn is None
    config = robossl.load_config("quickstart", changes={"knn": None, "knn.label": "scene"})
    assert config.knn is not None and config.knn.label == "scene"
    config = robossl.load_config("quickstart", changes={"method": {"name": "byol"}})
    assert type(config.method).__name__ == "BYOLConfig"


def test_a_recipe_is_found_by_its_name_wherever_one_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    wanted = robossl.load_config("quickstart")
    (tmp_path / "quickstart").mkdir()  # of `make quickstart`: no run
    assert robossl.load_config("quickstart") == wanted
    with pytest.raises(robossl.InputError, match="unknown recipe 'quikstart'; did you mean 'quickstart'"):
        robossl.load_config("quikstart")
    with pytest.raises(robossl.InputError, match=r"cannot read the configuration absent\.yaml"):
        robossl.load_config("absent.yaml")


def test_scores_print_as_tables(run: robossl.Run, clip_store_path: Path, tmp_path: Path) -> None:
    few = {"min_episodes": 1, "bootstrap": 100, "random_seeds": 1}
    out = tmp_path / "scores.json"
    scores = robossl.evaluate(run, store=clip_store_path, label="scene", out=out, **few)
    assert repr(scores) == "Scores(scene on val (knn))"
    assert "random test_resnet" in str(scores) and "minus pooled pixels" in str(scores)
    assert '<th style="text-align: left">pooled pixels</th>' in scores._repr_html_()
    assert json.loads(out.read_text())["about"]["command"] == (
        f"robossl evaluate {run.path} --store {clip_store_path} --label scene --min-episodes 1 --bootstrap 100 "
        "--random-seeds 1"
    )


def test_a_served_encoder_and_a_public_name_are_encoders_too(tiny_models: Path) -> None:
    with serving(tiny_models) as server:
        served = robossl.load_encoder(f"grpc://127.0.0.1:{server.port}/tiny", outputs=["pooled"])
        got = served(FRAMES)
        assert list(got) == ["pooled"]
        np.testing.assert_allclose(
            got["pooled"], robossl.load_encoder(tiny_models / "tiny")(FRAMES)["pooled"], atol=1e-5
        )
        assert repr(served) == f"ServedEncoder(grpc://127.0.0.1:{server.port}/tiny, tiny: tiny, fp32; pooled 48)"
    with pytest.raises(robossl.InputError, match="did you mean 'resnet18'"):
        robossl.load_encoder("timm:resnet81")
    with pytest.raises(robossl.InputError, match="token and ca are for a server"):
        robossl.load_encoder(tiny_models / "tiny", token="token.txt")
