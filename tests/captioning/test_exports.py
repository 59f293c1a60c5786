"""Files to take home: whatever photographs and captions are called, they do no harm there."""

from __future__ import annotations

import csv
import io
import zipfile
from datetime import UTC, datetime
from pathlib import PurePosixPath, PureWindowsPath

import pytest

from captioning import exports
from captioning.models import Caption, Image, Job, JobStatus, new_id

AT = datetime(2026, 5, 1, 12, tzinfo=UTC)


def job(filename: str = "cat.jpg", text: str | None = "A cat.", **columns: object) -> Job:
    captions = [Caption(text=text, mean_log_probability=-0.5, model_revision="r")] if text else []
    status = JobStatus.SUCCEEDED if text else JobStatus.FAILED
    image = Image(filename=filename)
    defaults = {"id": new_id(), "model": "bundled", "status": status, "created_at": AT}
    return Job(**{**defaults, "image": image, "captions": captions, "decorative": False, **columns})


def table(*jobs: Job) -> list[dict[str, str]]:
    text = "".join(exports.as_csv(jobs))
    assert text.startswith(exports.BYTE_ORDER_MARK)
    return list(csv.DictReader(io.StringIO(text[1:], newline="")))


def archive(*jobs: Job) -> dict[str, str]:
    with zipfile.ZipFile(io.BytesIO(b"".join(exports.as_zip(jobs)))) as found:
        assert found.testzip() is None
        return {name: found.read(name).decode() for name in found.namelist()}


def test_a_table_has_edits_and_what_the_model_said() -> None:
    edited = job(text="A cat.", edited_text="Our cat, Mia")
    (line,) = table(edited)
    assert list(line) == list(exports.COLUMNS)
    assert (line["filename"], line["caption"]) == ("cat.jpg", "Our cat, Mia")
    assert line["alt"] == "Our cat, Mia"
    assert (line["model_caption"], line["edited"], line["decorative"]) == ("A cat.", "yes", "no")
    assert (line["mean_log_probability"], line["model_revision"]) == ("-0.5000", "r")
    assert (line["status"], line["job_id"]) == ("succeeded", edited.id)
    assert line["created_at"] == "2026-05-01T12:00:00+00:00"


def test_a_table_of_nothing_has_its_columns() -> None:
    assert table() == []
    assert "".join(exports.as_csv([])).count("\r\n") == 1


def test_a_failed_job_has_its_reason_and_a_decorative_photograph_no_alt() -> None:
    failed, decorative = table(
        job(text=None, error_message="The worker died."), job(decorative=True)
    )
    assert (failed["status"], failed["caption"], failed["error"]) == (
        "failed",
        "",
        "The worker died.",
    )
    assert (decorative["caption"], decorative["alt"]) == ("A cat.", "")


@pytest.mark.parametrize(
    "text",
    [
        "=1+1",
        '=HYPERLINK("http://evil.example","x")',
        "+1",
        "-1",
        "@SUM(1)",
        "\t=1",
        "\r=1",
        " =1",
        "|cmd",
        "%0A",
        "＝1",  # noqa: RUF001
    ],
    ids=ascii,
)
def test_no_cell_is_a_formula(text: str) -> None:
    line = table(job(f"{text}.jpg", text, edited_text=text, error_message=text, model=text))[0]
    for name in ("filename", "caption", "alt", "model_caption", "model", "error"):
        assert line[name].startswith("'"), name
        assert line[name][1:].startswith(text)


@pytest.mark.parametrize("text", ["x;=1+1;y", "x; @SUM(1)", 'x;"=1+1";', "=1;=1", "x;;=1"])
def test_no_cell_is_a_formula_where_semicolons_part_them(text: str) -> None:
    """As a spreadsheet reads it whose language writes numbers with a comma."""
    written = "".join(exports.as_csv([job(f"{text}.jpg", text, error_message=text)]))
    for cell in written.replace('"', "").split("\r\n", 1)[1].split(";"):
        assert not cell.strip().startswith(("=", "@")), cell


@pytest.mark.parametrize("text", ["a, b", 'a "b"', "a\nb", "ünïcödé 🐈", "a=1", "a; b"])
def test_other_texts_come_back_as_they_are(text: str) -> None:
    assert table(job(edited_text=text))[0]["caption"] == text


def test_an_archive_has_a_text_beside_each_captioned_photograph() -> None:
    assert archive(
        job("cat.jpg"), job("dog.jpeg", edited_text="Our dog ä"), job("bad.jpg", None)
    ) == {"cat.txt": "A cat.\n", "dog.txt": "Our dog ä\n"}
    assert archive(job(decorative=True)) == {"cat.txt": ""}
    assert archive() == {}


def test_photographs_of_one_name_do_not_overwrite_each_other() -> None:
    names = archive(job("a.jpg"), job("A.png"), job("a-2.jpg"), job("a.jpg"))
    assert list(names) == ["a.txt", "A-2.txt", "a-2-2.txt", "a-3.txt"]


def test_one_name_in_two_forms_of_unicode_is_one_name() -> None:
    names = archive(job("caf\u00e9.jpg"), job("cafe\u0301.jpg"))  # the second as macOS writes it
    assert list(names) == ["caf\u00e9.txt", "caf\u00e9-2.txt"]


@pytest.mark.parametrize(
    "filename",
    [
        "",
        ".",
        "..",
        "../../etc/passwd",
        "/etc/passwd",
        "C:\\Windows\\x.jpg",
        "c:x.jpg",
        "con.jpg",
        "LPT1",
        "nul.tar.jpg",
        "x" * 255,
        "照" * 255,
        "COM¹.jpg",
        "a\0b.jpg",
        "a\nb.jpg",
        ".htaccess",
        "a .jpg",
        "\u202egnp.exe",
        "*?.jpg",
    ],
    ids=ascii,
)
def test_no_name_leads_out_of_the_archive_or_is_refused_by_a_file_system(filename: str) -> None:
    (name,) = archive(job(filename))
    assert PurePosixPath(name).name == PureWindowsPath(name).name == name
    assert name.endswith(".txt")
    assert name[0] not in ". "
    assert name.isprintable()
    assert len(name) <= exports.MAX_NAME + 5
    assert len(name.encode()) <= 255 - len("-100")
    assert not exports.NOT_IN_NAMES.search(name)
    assert not exports.RESERVED.fullmatch(name)


def test_it_is_written_piece_by_piece() -> None:
    asked: list[int] = []

    def jobs() -> object:
        for number in range(3):
            asked.append(number)
            yield job(f"{number}.jpg")

    for write in (exports.as_zip, exports.as_csv):
        pieces = iter(write(jobs()))  # type: ignore[arg-type, operator]
        while not asked:
            assert next(pieces) is not None
        assert asked == [0]
        asked.clear()
