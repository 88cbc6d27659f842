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
TABLES = runpy.run_path(str(ROOT / "docs" / "tables"))
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
def test_tables_and_outputs_are_those_of_the_records(document: Path) -> None:
    text = document.read_text()
    assert TABLES["with_records"](text) == text, "make tables writes them"


def test_every_table_is_shown_and_none_is_unknown() -> None:
    text = "".join(path.read_text() for path in DOCUMENTS)
    shown = TABLES["REGION"].findall(text)
    assert {name for kind, name in shown if kind == "table"} == set(TABLES["TABLES"])
    assert len(re.findall(r"<!-- (?:table:|output:|readme:|end of)", text)) == 2 * len(shown)


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


def test_the_first_page_leads_to_every_other() -> None:
    pages = {path.name for path in (ROOT / "docs").glob("*.md")} | {"tutorial.md"}
    linked = re.findall(r"\]\((\w+\.md)\)", (ROOT / "docs" / "index.md").read_text())
    assert set(linked) == pages - {"index.md"}
    navigation = re.findall(r": (\w+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert set(navigation) == pages


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_have_one_spelling(document: Path) -> None:
    # Ray takes the file of a job, everybody else the command.
    files = re.findall(r"^.*python jobs/.*$", document.read_text(), re.MULTILINE)
    assert [line for line in files if not line.startswith("  -- ")] == []


def test_relative_links_lead_somewhere() -> None:
    for document in [*DOCUMENTS, *ROOT.glob("*/README.md"), ROOT / "CONTRIBUTING.md"]:
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", document.read_text()):
            # The tutorial's page is made from the notebook of the same name.
            notebook = (document.parent / target).with_suffix(".ipynb")
            assert (document.parent / target).exists() or notebook.exists(), (document, target)
