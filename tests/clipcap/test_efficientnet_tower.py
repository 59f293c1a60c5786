from __future__ import annotations

import json
import sys
from pathlib import Path
from unittest.mock import Mock

import open_clip
import pytest
import torch
from torch import Tensor

from clipcap.data import read_splits
from tests.tiny_bundle import build_colour_data

sys.path.insert(0, str(Path(__file__).parents[2] / "recipes"))
import efficientnet_tower


def test_no_caption_of_dev_is_read_for_the_words_however_it_is_spelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    splits = read_splits(build_colour_data(tmp_path / "data"), held_out=0.1, seed=0)
    assert any("a red square" in example.captions for example in splits.dev)
    texts = tmp_path / "texts.jsonl"
    texts.write_text(json.dumps({"captions": ["A red-sqare !", "two dogs run"]}) + "\n")
    read: list[Tensor] = []

    def word_vectors(tokens: Tensor, width: int) -> tuple[Tensor, Tensor]:
        read.append(tokens)
        return torch.tensor([5]), torch.ones(1, width)

    monkeypatch.setattr(efficientnet_tower, "word_vectors", word_vectors)
    model = Mock(token_embedding=torch.nn.Embedding(49408, 4))
    efficientnet_tower.set_words(model, splits, texts)
    decode = open_clip.SimpleTokenizer().decode
    said = {decode(row[row > 0].tolist()).strip() for row in read[0]}
    assert any("two dogs run" in text for text in said)
    assert not [text for text in said if "red" in text]
