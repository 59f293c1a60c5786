"""Run it from cron, or after uploads: python manage.py collect_captions"""

from typing import Any

from django.core.management.base import BaseCommand

from album import captions


class Command(BaseCommand):
    help = "Fetch the captions that are still missing."

    def handle(self, *args: Any, **options: Any) -> None:
        self.stdout.write(f"{captions.collect()} captions")
