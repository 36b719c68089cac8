"""Checks of a page that is one file with its document inside."""

import tempfile
from pathlib import Path

import documents
import figures
import server
from browser import printed

BAD_WORDS = ("undefined", "NaN", "[object", "Infinity")


def saved(document):
    """The elements of a saved page. It asks for nothing."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "page.html")
        file.write_text(document if isinstance(document, str) else server.saved_page(document))
        elements, asked = printed(file.as_uri())
    assert not asked, f"a saved page asks for {asked}"
    return elements


def check_a_saved_page_shows_the_numbers_of_its_document():
    moved, down = {1: 102}, ("102.3", "ctrl.3")
    for document in (documents.whole(moved=moved, down=down), documents.whole(shards=1024, groups=12)):
        elements = saved(document)
        figures.compare(elements, document)
        assert elements.by_id("act").attributes.get("hidden") is not None, "a saved page offers changes"
        assert elements.by_id("link")["link"] == "saved"


def check_a_plain_status_is_a_document_too():
    document = documents.status(moved={1: 102}, down=("101.2",))
    elements = saved(document)
    figures.compare(elements, document)
    assert elements.find(shard="1", state="handing", to="102")


def check_a_saved_page_has_what_does_not_answer_with_its_age():
    elements = saved(documents.whole(down=("102.3",)))
    [commit] = elements.find(figure="commit", server="102.3")
    assert (commit["value"], commit["age"]) == ("123456", "12"), (commit["value"], commit["age"])
    assert not elements.find(figure="commit", server="102.2")[0]["age"]


def check_a_past_that_is_given_fills_the_charts_of_a_saved_page():
    elements = saved(documents.whole() | documents.past([900.0, None, 10.0]))
    [most] = elements.find(figure="most", group="101")
    assert most["value"] == "900", most["value"]
    charts = [it for it in elements.all if "uplot" in it.attributes.get("class", "").split()]
    assert len(charts) == 2, f"{len(charts)} charts"


def check_any_number_of_shards_and_groups():
    for shards, groups in ((0, 0), (0, 1), (10, 1), (16_384, 3)):
        document = documents.whole(shards=shards, groups=groups)
        squares = [
            it for it in saved(document).all if "square" in it.attributes.get("class", "") and it["shard"]
        ]
        assert len(squares) == shards, f"{len(squares)} squares of {shards}"


def check_broken_documents_break_nothing():
    for name, document in documents.broken().items():
        elements = saved(document)
        shown = elements.by_id("health-text").text
        assert shown and "Asking" not in shown and "cannot be read" not in shown, f"{name}: {shown}"
        text = next(it for it in elements.all if it.name == "body").text
        found = [word for word in BAD_WORDS if word in text]
        assert not found, f"{name}: the page says {found}"
        assert not [it for it in elements.all if it.name == "img"], f"{name}: text became an element"
    assert documents.EVIL in saved(documents.broken()["odd"]).by_id("health-text").text


def check_a_request_that_leaves_the_host_would_be_seen():
    page = server.saved_page({}).replace("<body>", '<body><img src="http://example.invalid/x" alt="">')
    try:
        saved(page)
    except AssertionError as error:
        assert "http://example.invalid/x" in str(error), error
    else:
        raise AssertionError("it was not seen")


def check_a_document_that_is_no_json_is_told():
    page = server.saved_page({}).replace('id="document">{}<', 'id="document">{broken<')
    assert "cannot be read" in saved(page).by_id("health-text").text
