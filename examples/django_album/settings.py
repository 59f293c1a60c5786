"""The least that a Django project needs. For a real one, see Django's deployment checklist."""

import os
from pathlib import Path

DATA = Path(os.environ.get("ALBUM_DATA", Path(__file__).parent / "data"))
DATA.mkdir(exist_ok=True)

SECRET_KEY = os.environ.get("ALBUM_SECRET_KEY", "for development only")
DEBUG = "ALBUM_SECRET_KEY" not in os.environ
ALLOWED_HOSTS = ["localhost", "127.0.0.1", "testserver"]
ROOT_URLCONF = "urls"
INSTALLED_APPS = ["album"]
MIDDLEWARE = [
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
]
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": DATA / "album.db"}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
MEDIA_ROOT = DATA / "photos"

CAPTIONING_URL = os.environ.get("CAPTIONING_URL", "http://127.0.0.1:8000")
