"""What is measured on the dev images while training: the loss, and the scores of captions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from clipcap.consensus import Consensus
from clipcap.data import Example, Splits
from clipcap.decoder import Decoder
from clipcap.evaluation.scores import Scores, score
from clipcap.expected_cider import Expectations, ExpectedCider
from clipcap.options import DecodingOptions
from clipcap.search import Vocabulary, draw, search
from clipcap.training.captions import PaddedTexts, caption_pairs
from clipcap.training.config import TrainingConfig
from clipcap.training.model import PrefixLanguageModel

EVALUATION_BATCH = 100
FEW_IMAGES = 100
"""With fewer dev images CIDEr-D says too little: then the lowest dev loss is the best epoch."""


def mean_loss(loss: Callable[[Tensor], Tensor], texts: PaddedTexts) -> float:
    """Nats per token over all texts, each token counted once."""
    total = 0.0
    for items in torch.split(torch.arange(len(texts.lengths)), EVALUATION_BATCH):
        total += loss(items).item() * sum(texts.lengths[item] for item in items.tolist())
    return total / sum(texts.lengths)


def dev_evaluation(
    decoder: Decoder,
    module: PrefixLanguageModel,
    splits: Splits,
    embeddings: Tensor,
    config: TrainingConfig,
) -> Callable[[], dict[str, float]]:
    """What is measured after an epoch: the loss on dev, and the scores of greedy search."""
    device = decoder.model.device
    dev, dev_images = caption_pairs(splits.dev, decoder, config)

    @torch.inference_mode()
    def evaluate() -> dict[str, float]:
        dev_loss = mean_loss(
            lambda items: module(
                embeddings[dev_images[items]].to(device), dev.batch(items).to(device)
            ),
            dev,
        )
        greedy = DecodingOptions(method="greedy")
        scores = score_dev(module.mapper, decoder, embeddings, splits.dev, greedy)
        return {"dev_loss": dev_loss, **scores.as_dict()}

    return evaluate


def score_dev(
    mapper: nn.Module,
    decoder: Decoder,
    embeddings: Tensor,
    examples: Sequence[Example],
    options: DecodingOptions,
    expected_cider: ExpectedCider | None = None,
) -> Scores:
    """Caption dev from its embeddings and score the best candidates."""
    texts = []
    tokenizer, model = decoder.tokenizer, decoder.model
    consensus = Consensus(tokenizer)
    expectations = None if expected_cider is None else Expectations(expected_cider, tokenizer)
    vocabulary = Vocabulary.of(tokenizer, tokenizer.eos_token, size=model.config.vocab_size)
    with torch.inference_mode():
        for batch in torch.split(embeddings, EVALUATION_BATCH):
            prefix = mapper(batch.to(model.device))
            found = search(model, prefix, vocabulary, options)
            if options.rank_by == "consensus":
                found = consensus.rank(found, draw(model, prefix, vocabulary, options))
            if options.rank_by == "expected_cider" and expectations:
                found = expectations.rank(found, batch.to(model.device))
            texts += [decoder.text(candidates[0].token_ids) for candidates in found]
    return score(texts, [example.captions for example in examples])
