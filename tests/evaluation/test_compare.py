"""`robossl compare`: seeds join into a line, columns are tasks, the JSON holds every figure."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from terminal import on_a_terminal

from robossl.cli.main import main
from robossl.common.config import from_mapping
from robossl.errors import InputError
from robossl.evaluation.compare import (
    LabelQuery,
    Line,
    TableCell,
    _titles,
    compare,
    read_lines,
    to_markdown,
    write_lines,
)
from robossl.evaluation.forest import write_forest
from robossl.evaluation.subjects import make_groups
from robossl.measure.accuracy import all_pairs
from robossl.measure.bootstrap import Interval
from robossl.training.pretrain import pretrain
from robossl.training.run_config import RunConfig


@pytest.fixture(scope="module")
def runs(clip_store_path: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two seeds of one run and a third of another configuration."""
    folder = tmp_path_factory.mktemp("runs")
    config = from_mapping(
        {
            "method": {"name": "simclr", "view": {"size": 32}},
            "encoder": {"backbone": "test_resnet", "input_hw": [32, 32]},
            "data": {"store": str(clip_store_path)},
            "train": {"steps": 1, "batch_size": 4, "sinks": []},
        },
        RunConfig,
    )
    other = replace(config, method=replace(config.method, temperature=0.5))  # type: ignore[type-var]
    configs = {"first": config, "second": replace(config, seed=1), "third": other}
    return [str(pretrain(each, out=folder / name).path) for name, each in configs.items()]


def test_runs_that_differ_in_their_seed_alone_are_one_line(runs: list[str]) -> None:
    subjects = make_groups(tuple(runs), random_seeds=1, seed=0, group_seeds=True)
    encoders = [subject for subject in subjects if subject.kind == "encoder"]
    assert [(s.name, len(s.members)) for s in encoders] == [
        ("simclr test_resnet, 1 steps, 2 seeds", 2),
        ("third", 1),
    ]
    apart = make_groups(tuple(runs), random_seeds=1, seed=0)
    assert [s.name for s in apart if s.kind == "encoder"] == ["first", "second", "third"]


def test_the_table_and_its_json(
    runs: list[str], clip_store_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, picture = tmp_path / "table.json", tmp_path / "pictures" / "table.png"
    options = ["--protocol", "knn", "--random-seeds", "2", "--min-episodes", "1", "--out", str(out)]
    options += ["--plot", str(picture)]
    assert main(["compare", *runs, "--on", f"{clip_store_path}:scene:val", *options]) == 0
    printed = capsys.readouterr().out
    lines = json.loads(out.read_text())["lines"]
    assert [line["name"] for line in lines] == [
        "simclr test_resnet, 1 steps, 2 seeds",
        "third",
        "random test_resnet",
        "pooled pixels",
        "majority class",
    ]
    (column,) = lines[0]["cells"]
    assert column == "clips scene val, knn"
    for line in lines:
        assert f"| {line['name']} | " in printed
        assert 0 <= line["cells"][column]["value"][0] <= 100
    with Image.open(picture) as image:
        assert image.format == "PNG"
    again = tmp_path / "again.json"
    assert write_lines(read_lines(out), again).splitlines() == printed.splitlines()[-len(lines) - 4 :]
    assert again.read_text() == out.read_text()


def test_a_terminal_shows_a_table_unless_markdown_is_asked_for(runs: list[str], clip_store_path: Path) -> None:
    argv = ["compare", runs[2], "--on", f"{clip_store_path}:scene", "--protocol", "knn", "--random-seeds", "1"]
    argv += ["--min-episodes", "1", "--bootstrap", "100"]
    code, seen = on_a_terminal(argv)
    assert code == 0, seen
    assert "pooled pixels" in seen and "---" not in seen and "**" not in seen and "| " not in seen
    code, seen = on_a_terminal([*argv, "--markdown"])
    assert code == 0, seen
    assert "| pooled pixels | " in seen


def test_a_store_without_splits_is_compared_by_episodes_or_days(
    runs: list[str], clip_store_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--protocol", "knn", "--random-seeds", "1", "--min-episodes", "1", "--bootstrap", "100"]
    out = tmp_path / "table.json"
    for split_by in ("episode", "date"):
        argv = ["compare", runs[0], "--on", f"{clip_store_path}:scene", *options, "--split-by", split_by]
        assert main([*argv, "--test-fraction", "0.4", "--out", str(out)]) == 0
        assert {column for line in read_lines(out) for column in line.cells} == {"clips scene test, knn"}
    assert main([*argv[:3], f"{clip_store_path}:scene:val", *argv[4:]]) == 2
    assert "leave the test splits out of --on" in capsys.readouterr().err
    for word in ("none", "NULL"):
        assert main([*argv[:-1], word, "--out", str(out)]) == 0
        assert {column for line in read_lines(out) for column in line.cells} == {"clips scene val, knn"}


def test_a_comparison_of_nothing_is_refused(runs: list[str]) -> None:
    with pytest.raises(InputError, match=r"nothing to read; name labels \(--on"):
        compare(tuple(runs))


def test_stores_of_one_name_are_columns_of_their_own(runs: list[str], clip_store_path: Path, tmp_path: Path) -> None:
    stores = [str(shutil.copytree(clip_store_path, tmp_path / lab / "clips")) for lab in ("mit", "eth")]
    out = tmp_path / "table.json"
    options = ["--protocol", "knn", "--random-seeds", "1", "--min-episodes", "1", "--out", str(out)]
    assert main(["compare", runs[0], "--on", *(f"{store}:scene" for store in stores), *options]) == 0
    for line in json.loads(out.read_text())["lines"]:
        assert list(line["cells"]) == ["mit/clips scene val, knn", "eth/clips scene val, knn"]


@pytest.mark.parametrize(
    ("stores", "titles"),
    [
        (["stores/droid", "stores/g1"], ["droid", "g1"]),
        (["stores/droid", "stores/../stores/droid/"], ["droid", "droid"]),
        (["a/b/s", "c/b/s", "t"], ["a/b/s", "c/b/s", "t"]),
        (["/s", "/a/s"], ["/s", "a/s"]),
    ],
)
def test_a_store_is_called_by_as_much_of_its_path_as_it_takes(stores: list[str], titles: list[str]) -> None:
    assert [str(title) for title in map(_titles(map(Path, stores)).get, map(Path, stores))] == titles


def test_a_bar_in_a_name_ends_no_cell() -> None:
    line = Line("a|b", "encoder", {"s|t scene val, knn": TableCell(Interval(50.0, 40.0, 60.0), None)})
    header, _, row = to_markdown([line]).splitlines()[:3]
    assert header == r"|  | s\|t scene val, knn |"
    assert row == r"| a\|b | **50.0** [40.0, 60.0] |"


@pytest.mark.parametrize("content", ["[]", '{"schema": "robossl.probe/1"}'])
def test_what_is_no_table_is_not_read_as_one(content: str, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text(content)
    with pytest.raises(InputError, match="is not a table of `robossl compare`"):
        read_lines(path)


@pytest.mark.parametrize("text", ["stores/droid", ":scene", ""])
def test_a_store_without_a_label_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="is not STORE:LABEL"):
        LabelQuery.parse(text)


def test_every_pair_of_seeds_is_compared() -> None:
    values, reference = np.arange(6.0).reshape(2, 3), np.ones((3, 3))
    assert all_pairs(values, reference).shape == (6, 3)
    assert np.array_equal(all_pairs(values, reference)[:3], np.repeat(values[:1] - 1, 3, axis=0))


def test_the_picture_has_a_panel_a_column_and_a_row_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **_: (drawn.append(figure), path.touch()))
    apart, alike = Interval(5.0, 1.0, 9.0), Interval(1.0, -1.0, 3.0)
    cells = {f"task {k}, knn": TableCell(Interval(50.0 + k, 40.0, 60.0), (alike, apart)[k % 2]) for k in range(7)}
    lines = [
        Line("random resnet18", "random", {column: TableCell(cell.value, None) for column, cell in cells.items()}),
        Line("mine", "encoder", cells),
        Line("majority class", "majority", {"task 0, knn": TableCell(Interval(25.0, 25.0, 25.0), None)}),
    ]
    write_forest(lines, tmp_path / "all.png")
    write_forest(lines, tmp_path / "some.png", columns=["task 3, knn", "task 0, knn"])
    every, some = ([axes for axes in figure.axes if axes.axison] for figure in drawn)
    assert [axes.get_title() for axes in every] == [f"task {k}\nknn" for k in range(7)]
    assert [axes.get_title() for axes in some] == ["task 3\nknn", "task 0\nknn"]
    assert [label.get_text() for label in some[0].get_yticklabels()] == ["mine", "random resnet18", "majority class"]
    marks = [[line for line in axes.lines if line.get_marker() == "o"] for axes in some]
    assert [[mark.get_xdata()[0] for mark in each] for each in marks] == [[53.0], [50.0]]
    assert [each[0].get_markerfacecolor() != "white" for each in marks] == [True, False]


def test_what_cannot_be_written_or_read_is_said_before_the_work(
    runs: list[str], clip_store_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", runs[0], "--on", f"{clip_store_path}:scene", "--out", str(tmp_path)]) == 2
    assert "--out must be a file, got the folder" in capsys.readouterr().err
    assert main(["compare", runs[0], "--on", f"{clip_store_path}:scene", "--plot", str(tmp_path)]) == 2
    assert "--plot must be a file, got the folder" in capsys.readouterr().err
    for content, message in (("steps: [1", "cannot be read as yaml"), ("text", "holds no configuration")):
        broken = Path(shutil.copytree(runs[0], tmp_path / message.replace(" ", "_")))
        (broken / "config.yaml").write_text(content)
        with pytest.raises(InputError, match=message):
            make_groups((str(broken),), random_seeds=1, seed=0, group_seeds=True)
