"""The model that ships with the service, as `make run` uses it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.acceptance.service import Service

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def bundled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    service = Service(tmp_path_factory.mktemp("bundled"), models="bundled")
    try:
        service.start()
        yield service
    finally:
        service.close()


def test_it_captions_the_samples_in_sentences(
    bundled: Service, photographs: dict[str, bytes]
) -> None:
    jobs = bundled.wait_for(bundled.upload(photographs))
    texts = {job.image.filename: job.captions[0].text for job in jobs}
    assert texts.keys() == photographs.keys()
    for text in texts.values():
        assert text[0].isupper()
        assert text.endswith(".")
        assert len(text.split()) >= 4
    assert len(set(texts.values())) > 1, "it says the same of every photograph"
