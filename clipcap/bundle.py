"""The bundle: a folder that holds everything one captioner needs, all JSON and safetensors.

    bundle.json           BundleConfig
    clip/                 open_clip_config.json, open_clip_model.safetensors   (or a name)
    decoder/              config.json, model.safetensors, tokenizer files      (or a name)
    mapper.safetensors
    expected_cider.safetensors, ngrams.txt       (where bundle.json has expected_cider)
    README.md             the model card

Nothing here ever reads a pickle. Weights may be stored in half precision and are computed
with in single precision.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from clipcap import decoder as decoders
from clipcap import encoder as encoders
from clipcap.decoder import Decoder
from clipcap.encoder import Encoder
from clipcap.errors import BundleError, OptionsError
from clipcap.expected_cider import ExpectedCider, ExpectedCiderConfig
from clipcap.mappers import Mapper, MapperConfig, build_mapper
from clipcap.options import DecodingOptions
from clipcap.weights import load_weights, read_weights, write_weights

FORMAT_VERSION = 1
CONFIG_FILE = "bundle.json"
MAPPER_FILE = "mapper.safetensors"
EXPECTED_CIDER_FILE = "expected_cider.safetensors"
NGRAMS_FILE = "ngrams.txt"
CLIP_FOLDER = "clip"
DECODER_FOLDER = "decoder"
CARD_FILE = "README.md"
WRITTEN = {
    CLIP_FOLDER, DECODER_FOLDER, MAPPER_FILE, EXPECTED_CIDER_FILE, NGRAMS_FILE, CARD_FILE,
}  # fmt: skip
"""What `save` writes before bundle.json."""
UNFINISHED = ".unfinished"
"""Is there while a bundle is written: who was killed in the middle may write it again."""
QUARTER = torch.float8_e4m3fn
"""For what is large and of which many numbers are summed up: the basis of expected_cider, and where
weights are stored in half precision CLIP's token embeddings."""
TOKENS = "token_embedding.weight"
PICKLES = {".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle"}


class BundleConfig(BaseModel):
    """bundle.json. An unknown key is an error: it would be silently without effect."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: int = FORMAT_VERSION
    name: str = Field(min_length=1)
    encoder: str | None = Field(None, description="'model:pretrained_tag', or null: clip/")
    decoder: str | None = Field(None, description="'gpt2', or null: decoder/")
    mapper: MapperConfig
    normalize_embedding: bool = Field(description="L2-normalise the embedding before the mapper")
    stop_token: str = Field("<|endoftext|>", description="ends a caption; the authors' is '.'")
    presentation: Literal["raw", "sentence"] = Field(
        "raw", description="'sentence': a capital letter first and a full stop last"
    )
    expected_cider: ExpectedCiderConfig | None = Field(
        None, description="what rank_by expected_cider ranks by, where it has been learned"
    )
    decoding: DecodingOptions = DecodingOptions()
    licence: str = ""
    provenance: dict[str, Any] = Field(
        default_factory=dict, description="how the weights came about, for people"
    )

    @model_validator(mode="after")
    def _knows_what_it_ranks_by(self) -> BundleConfig:
        if self.decoding.rank_by == "expected_cider" and self.expected_cider is None:
            raise ValueError("decoding.rank_by: expected_cider has not been learned")
        return self


@dataclass(frozen=True)
class Bundle:
    """A bundle in memory. `revision` is a short hash of config and weights."""

    config: BundleConfig
    encoder: Encoder
    decoder: Decoder
    mapper: Mapper
    revision: str
    expected_cider: ExpectedCider | None = None


def read_config(folder: Path) -> BundleConfig:
    """Raises: BundleError, naming the file and the key."""
    path = folder / CONFIG_FILE
    try:
        data = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise BundleError(f"{path}: no such file; a bundle is a folder that holds it") from error
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f"{path}: not readable as JSON: {error}") from error
    version = data.get("format_version") if isinstance(data, dict) else None
    if version != FORMAT_VERSION:
        raise BundleError(
            f"{path}: format_version is {version!r}, this clipcap reads {FORMAT_VERSION}"
        )
    try:
        return BundleConfig.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in _without_kind(first["loc"]))
        raise BundleError(f"{path}: {key}: {first['msg']}") from error
    except OptionsError as error:
        raise BundleError(f"{path}: decoding: {error}") from error


def load(folder: Path) -> Bundle:
    """Load a bundle folder and check it whole: every key, every shape.

    Raises: BundleError.
    """
    _refuse_pickles(folder)
    config = read_config(folder)
    encoder = (
        encoders.load_named(config.encoder)
        if config.encoder
        else encoders.load_folder(folder / CLIP_FOLDER)
    )
    decoder = (
        decoders.load_named(config.decoder)
        if config.decoder
        else decoders.load_folder(folder / DECODER_FOLDER)
    )
    path = folder / CONFIG_FILE
    _require_equal(path, "mapper.embedding_dim", config.mapper.embedding_dim, encoder.embedding_dim)
    _require_equal(path, "mapper.decoder_dim", config.mapper.decoder_dim, decoder.dim)
    if config.mapper.prefix_length > decoder.positions:
        raise BundleError(
            f"{path}: mapper.prefix_length is {config.mapper.prefix_length}, "
            f"but the decoder has {decoder.positions} positions"
        )
    if config.stop_token not in decoder.tokenizer.get_vocab():
        raise BundleError(f"{path}: stop_token: {config.stop_token!r} is not a token")
    mapper = build_mapper(config.mapper)
    load_weights(mapper, folder / MAPPER_FILE)
    expected_cider = _load_expected_cider(folder, config, encoder)
    return Bundle(config, encoder, decoder, mapper.eval(), revision_of(folder), expected_cider)


def save(
    folder: Path,
    config: BundleConfig,
    *,
    encoder: Encoder | None,
    decoder: Decoder,
    mapper: Mapper,
    expected_cider: ExpectedCider | None = None,
    card: str,
    dtype: torch.dtype = torch.float16,
) -> None:
    """Write a bundle, in place of one that is there. The encoder and decoder are stored unless
    the config names them; an encoder that it names need not be at hand.

    Raises: BundleError, also where the folder holds something else.
    """
    require_ours(folder)
    tower = None
    if config.encoder is None:
        if encoder is None or encoder.folder is None:
            raise BundleError(f"{folder}: an encoder without a folder must be stored by its name")
        tower = encoder.folder
    if encoder is not None:
        require_apart(folder, encoder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / UNFINISHED).touch()
    (folder / CONFIG_FILE).unlink(missing_ok=True)
    for stored in (CLIP_FOLDER, DECODER_FOLDER):
        shutil.rmtree(folder / stored, ignore_errors=True)
    for name in (EXPECTED_CIDER_FILE, NGRAMS_FILE):
        (folder / name).unlink(missing_ok=True)
    if tower is not None:
        _save_encoder(tower, folder / CLIP_FOLDER, dtype)
    if config.decoder is None:
        decoder.save(folder / DECODER_FOLDER, dtype)
    weights = {key: value.to(dtype).contiguous() for key, value in mapper.state_dict().items()}
    write_weights(weights, folder / MAPPER_FILE)
    if expected_cider is not None:
        _save_expected_cider(expected_cider, folder, dtype)
    (folder / CARD_FILE).write_text(card)
    _share(folder)
    # Last, so that a folder with a bundle.json is a whole bundle.
    (folder / CONFIG_FILE).write_text(config.model_dump_json(indent=2) + "\n")
    (folder / UNFINISHED).unlink()


def require_ours(folder: Path) -> None:
    """Refuse to write over files that belong to no bundle.

    Raises: BundleError.
    """
    if (folder / CONFIG_FILE).exists():
        read_config(folder)
    elif folder.is_dir() and any(folder.iterdir()) and not (folder / UNFINISHED).exists():
        raise BundleError(f"{folder}: holds files that are no bundle's; name another folder")


def require_apart(folder: Path, encoder: Encoder) -> None:
    """Refuse to write a bundle over the one whose tower it takes.

    Raises: BundleError.
    """
    if encoder.folder is not None and encoder.folder.resolve() == (folder / CLIP_FOLDER).resolve():
        raise BundleError(f"{folder}: its own encoder is being used; write to another folder")


def revision_of(folder: Path) -> str:
    """Twelve hex digits over config and weights; cards and licences do not count."""
    parts = [folder / CONFIG_FILE, folder / MAPPER_FILE]
    parts += [p for p in (folder / EXPECTED_CIDER_FILE, folder / NGRAMS_FILE) if p.exists()]
    for stored in (folder / CLIP_FOLDER, folder / DECODER_FOLDER):
        parts += sorted(path for path in stored.rglob("*") if path.is_file())
    digest = hashlib.sha256()
    for path in parts:
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:12]


def _without_kind(location: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """pydantic names the kind of a mapper after `mapper`, where bundle.json has no such key."""
    return location[:1] + location[2:] if location[0] == "mapper" else location


def _save_encoder(source: Path, target: Path, dtype: torch.dtype) -> None:
    target.mkdir(parents=True, exist_ok=True)
    weights = read_weights(source / encoders.WEIGHTS_FILE)
    halved = dtype == torch.float16
    stored = {
        key: tensor.to(QUARTER if halved and key.endswith(TOKENS) else dtype)
        if tensor.is_floating_point()
        else tensor
        for key, tensor in weights.items()
    }
    write_weights(stored, target / encoders.WEIGHTS_FILE)
    shutil.copyfile(source / encoders.CONFIG_FILE, target / encoders.CONFIG_FILE)


def _load_expected_cider(
    folder: Path, config: BundleConfig, encoder: Encoder
) -> ExpectedCider | None:
    """Raises: BundleError."""
    if config.expected_cider is None:
        return None
    _require_equal(
        folder / CONFIG_FILE,
        "expected_cider.embedding_dim",
        config.expected_cider.embedding_dim,
        encoder.embedding_dim,
    )
    path = folder / NGRAMS_FILE
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise BundleError(f"{path}: not readable as text: {error}") from error
    network = ExpectedCider(config.expected_cider, [tuple(line.split()) for line in lines])
    load_weights(network, folder / EXPECTED_CIDER_FILE)
    return network.eval()


def _save_expected_cider(network: ExpectedCider, folder: Path, dtype: torch.dtype) -> None:
    weights = {key: value.to(dtype).contiguous() for key, value in network.state_dict().items()}
    weights["basis"] = network.basis.to(QUARTER)
    write_weights(weights, folder / EXPECTED_CIDER_FILE)
    lines = "".join(" ".join(ngram) + "\n" for ngram in network.listed)
    (folder / NGRAMS_FILE).write_text(lines, encoding="utf-8")


def _share(folder: Path) -> None:
    """Whoever may read the card may read all: safetensors makes files that only their owner
    can, and the service often is another user."""
    mode = (folder / CARD_FILE).stat().st_mode
    for name in WRITTEN:
        path = folder / name
        for file in path.iterdir() if path.is_dir() else [path]:
            if file.is_file() and not file.is_symlink():
                file.chmod(mode)


def _refuse_pickles(folder: Path) -> None:
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in PICKLES:
            raise BundleError(
                f"{path}: a pickle can run code when it is read; a bundle holds safetensors only"
            )


def _require_equal(path: Path, key: str, stated: int, actual: int) -> None:
    if stated != actual:
        raise BundleError(f"{path}: {key} is {stated}, but the stored model has {actual}")
