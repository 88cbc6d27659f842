"""What documents show of the records: ``python docs/tables`` writes it in place.

A table stands between ``<!-- table: NAME -->`` and ``<!-- end of table -->``, what a command
printed between ``<!-- output: NAME -->`` and ``<!-- end of output -->``, and what the first page
shares with the README between ``<!-- readme: first_screen -->`` and ``<!-- end of readme -->``.
"""

import re
from collections.abc import Callable

import of_methods
import of_molecules
import of_scaling
import of_zero_shot
from table_text import ROOT, value_of

DOCUMENTS = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
REGION = re.compile(r"<!-- (table|output|readme): (\w+) -->\n.*?<!-- end of \1 -->", re.DOTALL)
TABLES: dict[str, Callable[[], str]] = {
    function.__name__: function
    for function in (
        of_molecules.alanine_dipeptide,
        of_molecules.dipeptides,
        of_molecules.exact_choice,
        of_molecules.emulator_width,
        of_molecules.like_for_like,
        of_molecules.pretrained,
        of_molecules.oligopeptides,
        of_molecules.oligopeptide_torsions,
        of_molecules.oligopeptides_published,
        of_zero_shot.zero_shot,
        of_zero_shot.zero_shot_densities,
        of_zero_shot.zero_shot_ablation,
        of_zero_shot.zero_shot_lengths,
        of_methods.coverage,
        of_methods.planar,
        of_methods.planar_recipes,
        of_methods.speed,
        of_scaling.scaling_measured,
        of_scaling.scaling_predicted,
        of_scaling.scaling_projected,
        of_scaling.scaling_parts,
        of_scaling.scaling_changed,
    )
}
"""By the name that documents use."""


def output(name: str) -> str:
    """Return what a command printed."""
    return "\n".join(["```", *value_of(f"commands.commands.{name}.output"), "```"])


def first_screen() -> str:
    """Return the README up to its first section, as a page in ``docs`` has it."""
    text = (ROOT / "README.md").read_text()
    return text[: text.index("\n## ")].replace("](docs/", "](").strip()


def with_records(document: str) -> str:
    """Return a document with its tables and outputs made anew."""

    def region(found: re.Match[str]) -> str:
        kind, name = found.groups()
        if kind == "table":
            content = TABLES[name]()
        else:
            content = output(name) if kind == "output" else first_screen()
        return f"<!-- {kind}: {name} -->\n{content}\n<!-- end of {kind} -->"

    return REGION.sub(region, document)


if __name__ == "__main__":
    for path in DOCUMENTS:
        path.write_text(with_records(path.read_text()))
