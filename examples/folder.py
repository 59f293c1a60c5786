"""Caption a folder of photographs into a CSV: python folder.py FOLDER CAPTIONS.csv"""

import csv
import os
import sys
from pathlib import Path

from captioning import Client
from captioning.client import Progress

URL = os.environ.get("CAPTIONING_URL", "http://127.0.0.1:8000")


def show(progress: Progress) -> None:
    print(f"\r{progress.finished} of {progress.total}", end="", file=sys.stderr)


def main(folder: str, table: str) -> None:
    photos = sorted(path for path in Path(folder).rglob("*") if path.suffix in (".jpg", ".png"))
    with Client(URL) as client, open(table, "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["photo", "caption", "error"])
        for photo, outcome in zip(
            photos, client.caption_many(photos, on_progress=show), strict=True
        ):
            rows.writerow([photo, outcome.text, outcome.error or ""])


if __name__ == "__main__":
    main(*sys.argv[1:])
