"""The folder beside the bundle that holds what a run has done so far."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accelerate import PartialState
from filelock import FileLock, Timeout

from clipcap.data import Splits
from clipcap.errors import TrainingError
from clipcap.training.config import TrainingConfig

STAGES = ("tower", "pretraining", "captioning", "together", "self_critical", "expected_cider")
"""In their order, as their folders are called."""
OWN_FIELDS = {
    "pretrain_": "pretraining",
    "together_": "together",
    "self_critical_": "self_critical",
    "expected_cider_": "expected_cider",
}
"""What fields begin with that no other stage has to do with."""
ANYTIME = {"name", "licence", "decoding", "tensorboard", "checkpoint_steps"}
"""Fields that no number depends on which is kept in the folder."""


@contextmanager
def claimed(
    work: Path,
    config: TrainingConfig,
    splits: Splits,
    unseen: Sequence[Sequence[str]],
    origin: str,
) -> Iterator[None]:
    """One run at a time works in the folder, in one process or several; it goes on only as it was
    begun, on the same data, from the same weights: `origin` changes with them.

    Raises: TrainingError.
    """
    processes = PartialState()
    lock = FileLock(work / "lock", blocking=False)
    try:
        with processes.main_process_first():
            if processes.is_main_process:
                _acquire(lock, work)
            record = json.loads(config.model_dump_json(exclude=ANYTIME))
            _require_as_begun(work, {**record, "data": _digest(splits, unseen), "origin": origin})
        yield
    finally:
        lock.release()


def _acquire(lock: FileLock, work: Path) -> None:
    work.mkdir(parents=True, exist_ok=True)
    try:
        lock.acquire()
    except Timeout:
        raise TrainingError(f"{work}: another run is at work in this folder") from None


def _require_as_begun(work: Path, record: Mapping[str, Any]) -> None:
    """A stage that has not begun may be described anew, and is then held to that."""
    path = work / "run.json"
    begun = json.loads(path.read_text()) if path.exists() else record
    begun = {"origin": record["origin"], **begun}  # which runs of old do not tell
    changed = sorted(key for key in record if _begun_with(begun, key) != record[key])
    settled = [key for key in changed if not _is_ahead(key, work)]
    if settled:
        raise TrainingError(
            f"{work} holds a run that was begun with other values of {', '.join(settled)}: "
            "remove the folder to start anew, or choose another --out"
        )
    if PartialState().is_main_process:  # the others would rename what another has renamed
        part = path.with_suffix(".part")
        part.write_text(json.dumps(record, indent=2) + "\n")
        os.replace(part, path)


def _begun_with(begun: Mapping[str, Any], key: str) -> Any:
    """A field that was not there yet had the value that it has by default."""
    field = TrainingConfig.model_fields.get(key)
    return begun.get(key, field.default if field else None)


def _is_ahead(key: str, work: Path) -> bool:
    """Whether neither the stage of a field has begun nor one that would go on from it."""
    stage = next((stage for prefix, stage in OWN_FIELDS.items() if key.startswith(prefix)), "tower")
    return not any((work / later).exists() for later in STAGES[STAGES.index(stage) :])


def _digest(splits: Splits, unseen: Sequence[Sequence[str]]) -> str:
    digest = hashlib.sha256()
    for examples in (splits.train, splits.dev):
        digest.update(b"images\0")
        for example in examples:
            told = "\0".join([example.image.name, *example.captions, "\n"])
            digest.update(told.encode(errors="surrogateescape"))  # a name may not be UTF-8
    for captions in unseen:
        digest.update("\0".join([*captions, "\n"]).encode())
    return digest.hexdigest()[:16]
