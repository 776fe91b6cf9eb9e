"""The card of a model is a separate page, which shows only what the file says."""

import numpy as np
import pytest
from in_thread import DESCRIPTION, running

from photos import png
from pipeline.serving.reference import Resolved
from pipeline.serving.served import Served

CARD = """---
license: secret-front-matter
---
# Digits

| class | recall |
|---|---|
| 7 | 0.98 |

The digest of its weights is `DIGEST`.

<script>alert(1)</script> [a link](javascript:alert(2))

![Confusion](figures/confusion.png) ![Elsewhere](../secret.png) ![Far](https://example.org/x.png)
"""


@pytest.fixture
def page(served, tmp_path):
    card = tmp_path / "reports" / "model_card.md"
    (card.parent / "figures").mkdir(parents=True)
    card.write_text(CARD.replace("DIGEST", DESCRIPTION["weights_sha256"]))
    (card.parent / "figures" / "confusion.png").write_bytes(png(np.zeros((2, 2), np.uint8)))
    (tmp_path / "secret.png").write_bytes(png(np.ones((3, 3), np.uint8)))
    with running(Served.load(Resolved(served.source.path, "digits", card=card))) as client:
        assert client.get("/model").json["card"] is True
        yield client.get("/card")


def test_the_card_is_shown_with_its_tables_and_pictures(page):
    text = page.content.decode()
    assert page.status == 200
    assert "<h1>Digits</h1>" in text
    assert "<td>0.98</td>" in text
    assert text.count("data:image/png;base64,") == 1
    assert "front-matter" not in text


def test_the_card_runs_no_script_and_shows_no_other_file(page):
    text = page.content.decode()
    assert "<script>" not in text
    assert 'href="javascript:' not in text
    assert 'src="https:' not in text
    assert text.count('src="data:') == 1
    assert page.headers["content-security-policy"].startswith("default-src 'none'; img-src data:;")


def test_the_card_of_the_next_model_is_not_shown_as_that_of_this_one(served, tmp_path):
    card = tmp_path / "model_card.md"
    with running(Served.load(Resolved(served.source.path, "digits", card=card))) as client:
        card.write_text(CARD.replace("DIGEST", "1" * 64))
        answers = [client.get("/card")]
        # `dvc repro` removes it before the next one is written.
        card.unlink()
        answers.append(client.get("/card"))
    for answer in answers:
        assert answer.status == 404
        assert "is gone or describes another model" in answer.json["error"]


def test_a_model_without_a_card_says_so(client):
    answer = client.get("/card")
    assert answer.status == 404
    assert "has no card" in answer.json["error"]
