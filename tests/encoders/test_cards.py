"""The encoder card: JSON there and back, refusals, licence warnings, standard library only."""

from __future__ import annotations

import ast
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import robossl_client.card
from robossl_client.card import (
    Agreement,
    CardError,
    EncoderCard,
    InputContract,
    Parity,
    TensorSpec,
    licence_warnings,
)

CARD = EncoderCard(
    name="arm",
    version=3,
    digest="ab" * 32,
    backbone="resnet18",
    input=InputContract(
        tensor=TensorSpec("uint8", ("batch", "height", "width", 3)),
        input_hw=(96, 128),
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        fixed_hw=None,
    ),
    outputs={"pooled": TensorSpec("float32", ("batch", 512))},
    created_by="robossl 0.1.0",
    model_sha256="cd" * 32,
    method="simsiam",
    step=100,
    config_hash="ef" * 32,
    data=("12", "34"),
    licences=("CC-BY-4.0",),
    warnings=("äöü",),
    parity=Parity(
        provider="cpu",
        batches=(1, 3, 5),
        frame_hw=((240, 240), (97, 131)),
        outputs={"pooled": Agreement(max_abs_difference=1e-6, centred_cosine=0.9999999)},
        min_centred_cosine=0.99999,
        max_relative_difference=1e-4,
    ),
    probe={"flip": "SAFE"},
)


@pytest.mark.parametrize(
    "card",
    [
        CARD,
        replace(CARD, parity=None, probe=None, method=None, step=None),
        replace(CARD, input=replace(CARD.input, fixed_hw=(180, 320))),
    ],
)
def test_what_is_written_is_read(card: EncoderCard, tmp_path: Path) -> None:
    card.write(tmp_path / "card.json")
    replace(card, version=4).write(tmp_path / "card.json")
    assert EncoderCard.read(tmp_path / "card.json") == replace(card, version=4)
    assert [each.name for each in tmp_path.iterdir()] == ["card.json"]


def _changed(**changes: Any) -> str:
    return json.dumps({**json.loads(CARD.to_json()), **changes})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[1]", "schema None"),
        (
            _changed(schema="robossl.card/2"),
            "schema 'robossl.card/2', this version reads 'robossl.card/1' and 'robossl.policy_card/1'; install",
        ),
        (_changed(colour="blue"), "colour"),
        (_changed(version="3"), "version must be an integer"),
        (_changed(digest=None), "digest must be a string"),
        (_changed(input={}), "no 'tensor'"),
        (_changed(outputs=[1]), "not a valid"),
        (CARD.to_json().replace('"backbone"', '"bone"'), "bone"),
    ],
)
def test_what_is_no_card_is_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "card.json").write_text(text)
    with pytest.raises(CardError, match=message) as caught:
        EncoderCard.read(tmp_path / "card.json")
    assert str(tmp_path) in str(caught.value)


def test_a_missing_card_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CardError, match="cannot read the card"):
        EncoderCard.read(tmp_path / "card.json")


@pytest.mark.parametrize(
    ("licence", "warned"),
    [
        ("CC-BY-4.0", ""),
        ("MIT", ""),
        ("Apache-2.0", ""),
        ("CC BY-NC 4.0", "not for commercial use"),
        ("cc-by-nc-sa-4.0", "not for commercial use"),
        ("Non-Commercial research", "not for commercial use"),
        ("noncommercial", "not for commercial use"),
        ("", "unknown licence"),
        ("Unknown", "unknown licence"),
    ],
)
def test_licences_that_need_a_warning(licence: str, warned: str) -> None:
    warnings = licence_warnings([licence, licence])
    assert len(warnings) == bool(warned)
    assert all(warned in each for each in warnings)


def test_it_needs_the_standard_library_only() -> None:
    tree = ast.parse(Path(robossl_client.card.__file__).read_text())
    imported = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    imported += [each.name for node in ast.walk(tree) if isinstance(node, ast.Import) for each in node.names]
    assert imported
    assert all(name.split(".")[0] in sys.stdlib_module_names for name in imported)
