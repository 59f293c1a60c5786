"""From a checkpoint of ClipCap's authors to a bundle. CLIP itself is only named, not fetched."""

from __future__ import annotations

from pathlib import Path

import open_clip
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from clipcap import bundle as bundles
from clipcap import encoder as encoders
from clipcap.bundle import BundleConfig
from clipcap.checkpoint import Checkpoint, read_checkpoint
from clipcap.decoder import TIED, Decoder, load_tokenizer
from clipcap.encoder import Encoder
from clipcap.errors import BundleError
from clipcap.mappers import TransformerConfig, build_mapper
from clipcap.options import DecodingOptions
from clipcap.weights import require_fit

# The CLIP that the authors used, by its width. Plain "ViT-B-32" would compute GELU, not QuickGELU.
ENCODERS = {512: "ViT-B-32-quickgelu:openai", 640: "RN50x4-quickgelu:openai"}
TOKENIZER = "gpt2"
DECODING = DecodingOptions(beam_rule="reference", beam_size=5, max_tokens=67)


def convert(
    path: Path,
    folder: Path,
    *,
    name: str | None = None,
    encoder: str | None = None,
    tokenizer: str = TOKENIZER,
    mapper_heads: int = 8,
    normalize_embedding: bool | None = None,
    licence: str = "",
) -> BundleConfig:
    """Write the bundle of a checkpoint, in single precision, so that it captions as the authors'.

    `encoder` is `"model:pretrained_tag"` or an open_clip folder; `tokenizer` a name or a folder.
    Left to itself, normalisation is what the authors trained with: theirs is on for the
    transformer, off for the others.

    Raises: BundleError.
    """
    checkpoint = read_checkpoint(path, mapper_heads=mapper_heads)
    width = checkpoint.mapper_config.embedding_dim
    source = encoder or ENCODERS.get(width)
    if source is None:
        raise BundleError(
            f"{path}: its CLIP is {width} wide, so none of the authors'; name it (--encoder)"
        )
    tower = _check_encoder(path, source, width)
    with torch.device("meta"):
        mapper = build_mapper(checkpoint.mapper_config)
    require_fit(checkpoint.mapper, mapper.state_dict(), path, prefix="clip_project.")
    mapper.load_state_dict(checkpoint.mapper, assign=True)
    decoder = _decoder(checkpoint, tokenizer)
    if normalize_embedding is None:
        normalize_embedding = isinstance(checkpoint.mapper_config, TransformerConfig)
    config = BundleConfig(
        name=name or path.stem,
        encoder=None if tower else source,
        mapper=checkpoint.mapper_config,
        normalize_embedding=normalize_embedding,
        stop_token=".",  # noqa: S106 (a token of text is no password)
        decoding=DECODING,
        licence=licence,
        provenance={"converted_from": path.name},
    )
    bundles.save(
        folder,
        config,
        encoder=tower,
        decoder=decoder,
        mapper=mapper,
        card=f"# {config.name}\n\nConverted from the ClipCap checkpoint {path.name}.\n",
        dtype=torch.float32,
    )
    return config


def _check_encoder(path: Path, source: str, width: int) -> Encoder | None:
    """The tower of a folder, or None for one that has a name. Whether it fits is found out
    without a download."""
    if Path(source).is_dir():
        tower = encoders.load_folder(Path(source))
        actual = tower.embedding_dim
    else:
        tower = None
        name, _, tag = source.partition(":")
        known = open_clip.get_model_config(name)
        if known is None or tag not in open_clip.list_pretrained_tags_by_model(name):
            raise BundleError(f"encoder {source!r}: open_clip knows no such model:pretrained_tag")
        actual = known["embed_dim"]
    if actual != width:
        raise BundleError(f"{path}: its CLIP is {width} wide, but encoder {source!r} is {actual}")
    return tower


def _decoder(checkpoint: Checkpoint, tokenizer_name: str) -> Decoder:
    config = GPT2Config(
        vocab_size=checkpoint.vocab_size,
        n_positions=checkpoint.positions,
        n_embd=checkpoint.mapper_config.decoder_dim,
        n_layer=checkpoint.layers,
        n_head=checkpoint.decoder_heads,
        bos_token_id=None,  # known with the tokenizer
        eos_token_id=None,
    )
    with torch.device("meta"):
        model = GPT2LMHeadModel(config)
    weights = {key: weight for key, weight in checkpoint.decoder.items() if key != TIED}
    wanted = {key: weight for key, weight in model.state_dict().items() if key != TIED}
    require_fit(weights, wanted, checkpoint.path, prefix="gpt.")
    # Assigned and not copied: the weights stay where the file is mapped until they are saved.
    model.load_state_dict({**weights, TIED: weights["transformer.wte.weight"]}, assign=True)
    tokenizer = load_tokenizer(tokenizer_name)
    if len(tokenizer) != checkpoint.vocab_size:
        raise BundleError(
            f"tokenizer {tokenizer_name!r} has {len(tokenizer)} tokens, "
            f"but {checkpoint.path} has {checkpoint.vocab_size}"
        )
    model.config.bos_token_id = model.config.eos_token_id = tokenizer.eos_token_id
    return Decoder(model, tokenizer)
