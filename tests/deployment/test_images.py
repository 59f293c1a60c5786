"""The Dockerfile: what it copies is there, and what it installs is what its processes need."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from scripts.requirements import requirements
from tests.deployment.container import Container, installed
from tests.deployment.files import ROOT, Stage, outside, stages

IMAGES = [("cpu", "web"), ("cpu", "worker"), ("gpu", "worker"), ("cpu", "commands")]
SERVING = IMAGES[:3]


def stage_of(image: tuple[str, str]) -> Stage:
    device, target = image
    return stages(DEVICE=device)[target]


@pytest.fixture(params=SERVING, ids="-".join)
def stage(request: pytest.FixtureRequest) -> Stage:
    return stage_of(request.param)


@pytest.mark.parametrize("image", IMAGES, ids="-".join)
def test_what_it_copies_is_there_and_let_through(image: tuple[str, str]) -> None:
    stage = stage_of(image)
    let_through = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in let_through
    mounted = [word[7:] for line in stage.all("RUN") for word in line.replace(",", " ").split()
               if word.startswith("source=")]  # fmt: skip
    for source in [*stage.copies, *mounted]:
        assert (ROOT / source).exists()
        assert f"!{source}" in let_through


def test_it_runs_as_nobody_in_particular_and_can_be_asked_how_it_is(stage: Stage) -> None:
    assert stage.last("USER") == "10001:10001"
    assert "127.0.0.1" in stage.health_command[-1]


@pytest.mark.slow
def test_it_is_asked_how_it_is_past_any_proxy(stage: Stage) -> None:
    """http_proxy is set in many a company's containers, and no proxy leads back into one."""
    answers = ThreadingHTTPServer(("127.0.0.1", 0), Fine)
    with answers:
        Thread(target=answers.serve_forever, daemon=True).start()
        (port,) = re.findall(r"127\.0\.0\.1:(\d+)/", stage.health_command[-1])
        python, *options, program = stage.health_command
        here = program.replace(port, str(answers.server_port))
        done = subprocess.run(
            [sys.executable, *options, here],
            env={**outside(), "http_proxy": "http://127.0.0.1:9", "no_proxy": ""},
            timeout=60,
        )
        answers.shutdown()
    assert (python, done.returncode) == ("python", 0)


class Fine(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_a_change_of_the_code_replaces_only_the_last_layers(stage: Stage) -> None:
    words = [word for word, _ in stage.instructions]
    first_copy = words.index("COPY")
    assert "RUN" not in words[first_copy:]


def test_it_has_the_commands_and_their_version(stage: Stage) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    metadata = {"pyproject.toml", project["readme"], *project["license-files"]}
    assert set(stages()["commands"].copies) == metadata
    assert "--from=commands /commands /usr/local" in stage.all("COPY")
    assert stage.last("ENTRYPOINT") == '["captioning"]'


def test_each_image_has_what_its_extras_need_and_the_project_lists_it_once() -> None:
    printed = subprocess.run(
        [sys.executable, ROOT / "scripts" / "requirements.py", "web", "postgresql"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\n")
    assert [line for line in printed if line] == requirements("web", "postgresql")
    assert any(line.startswith("gunicorn") for line in printed)
    assert requirements("train") == requirements("model", "train")
    assert not [line for line in requirements("local") if line.startswith("captioning")]


def test_the_web_image_has_no_torch_and_no_model() -> None:
    packages = installed("web", "postgresql")
    assert {"flask", "celery", "psycopg-binary", "prometheus-client"} <= packages
    assert not packages & {"torch", "torchvision", "transformers", "open-clip-torch", "numpy"}
    assert "clipcap" not in stages()["web"].copies
    assert "torch" in installed("model")


@pytest.mark.slow
def test_the_web_and_the_command_line_need_no_more_than_the_web_image_has(tmp_path: Path) -> None:
    image = Container(stages()["web"], tmp_path, extras=("web", "postgresql"), mapped={})
    program = (
        "import web, web.__main__, captioning.cli, captioning.local.launch, captioning.shell\n"
        "import importlib.util\n"
        "web.create_app()\n"
        "print(web.__file__, [name for name in ('clipcap', 'worker', 'tests')"
        " if importlib.util.find_spec(name)])\n"
        "import torch\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", program],
        env=image.environment({}),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.split() == [image.place("/app/web/__init__.py"), "[]"], done.stderr
    assert "No module named 'torch'" in done.stderr.splitlines()[-1]
