"""The model card that a run writes: a start that its author goes on with."""

from __future__ import annotations

from clipcap.bundle import BundleConfig


def model_card(config: BundleConfig) -> str:
    run = config.provenance
    scores = run["dev_scores"]
    epochs = "\n".join(
        f"| {stage.replace('_', ' ')} {number} | {row['dev_loss']:.3f} "
        f"| {row['bleu_4']:.1f} | {row['cider_d']:.1f} |"
        for stage, rows in run["history"].items()
        for number, row in enumerate(rows, start=1)
        if "cider_d" in row
    )
    return f"""# {config.name}

A ClipCap image captioner, trained by `clipcap train` on {run["train_images"]} images.

| on {run["dev_images"]} dev images | times 100 |
|---|---|
| BLEU-4 | {scores["bleu_4"]:.1f} |
| ROUGE-L | {scores["rouge_l"]:.1f} |
| CIDEr-D | {scores["cider_d"]:.1f} |

The best epoch was kept (scores here by greedy search):

| epoch | dev loss | BLEU-4 | CIDEr-D |
|---|---|---|---|
{epochs}

Licence and terms: {config.licence or "not stated"}
"""
