"""Numbers in the documents are those of the committed records."""

import json
import re
import runpy
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
RECORDS = ROOT / "benchmarks" / "results"
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TABLES = runpy.run_path(str(ROOT / "docs" / "tables.py"))
# <!-- record.json: path.to.value format -->value
MARKER = re.compile(r"<!-- (\S+\.json): (\S+) (\S+) -->([-+\d.,]*\d)?")


def value_of(record: str, path: str) -> Any:
    value = json.loads((RECORDS / record).read_text())
    for key in path.split("."):
        value = value[int(key)] if isinstance(value, list) else value[key]
    return value


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_marked_numbers_are_those_of_the_record(document: Path) -> None:
    wrong = [
        f"{record} {path}: the record has {expected}, the document {written or 'nothing'}"
        for record, path, form, written in MARKER.findall(document.read_text())
        if (expected := format(value_of(record, path), form)) != written
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_tables_are_those_of_the_records(document: Path) -> None:
    text = document.read_text()
    assert TABLES["with_tables"](text) == text, "make tables writes them"


def test_every_table_is_shown_and_none_is_unknown() -> None:
    shown = [name for path in DOCUMENTS for name in TABLES["REGION"].findall(path.read_text())]
    assert set(shown) == set(TABLES["TABLES"])
    assert sum(path.read_text().count("<!-- table:") for path in DOCUMENTS) == len(shown)


def test_numbers_of_the_results_page_are_of_records() -> None:
    page = (ROOT / "docs" / "results.md").read_text()
    assert len(MARKER.findall(page)) > 15
    unmarked = re.sub(r"`[^`]*`", "", MARKER.sub("", TABLES["REGION"].sub("", page)))
    # What is left names the set-up, not a result.
    assert set(re.findall(r"\d+\.\d+", unmarked)) == set()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_lines_can_be_read_and_markers_do_not_break_paragraphs(document: Path) -> None:
    lines = document.read_text().splitlines()
    assert [line for line in lines if len(line) > 120 and line[0] != "|"] == []
    # Markdown ends a paragraph at a line that begins with a comment.
    assert [line for line in lines if MARKER.match(line)] == []


def test_the_page_of_settings_is_that_of_the_configurations() -> None:
    page = runpy.run_path(str(ROOT / "docs" / "settings.py"))["page"]()
    assert page == (ROOT / "docs" / "settings.md").read_text(), "make tables writes it"


def test_relative_links_lead_somewhere() -> None:
    for document in [*DOCUMENTS, *ROOT.glob("*/README.md"), ROOT / "CONTRIBUTING.md"]:
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", document.read_text()):
            # The tutorial's page is made from the notebook of the same name.
            notebook = (document.parent / target).with_suffix(".ipynb")
            assert (document.parent / target).exists() or notebook.exists(), (document, target)
