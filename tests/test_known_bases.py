"""The README's table of bases is what `known_bases.py` prints."""

import json

import known_bases
import pytest
from known_bases import BASE_MODELS_PATH, make_base_table

from common.script import PROJECT_ROOT

NUM_COMPUTED_ROWS = 2  # of the smallest bases, 40 s; all of them take minutes


@pytest.fixture(scope="module")
def readme_table():
    """The lines of the table in the README: two of heading, then one for each base."""
    readme = (PROJECT_ROOT / "README.md").read_text(encoding="utf-8")
    return readme.partition("<!-- bases: begin -->\n")[2].partition("\n<!-- bases: end -->")[0].splitlines()


def test_it_lists_the_bases_that_ship_with_the_project_in_their_order(readme_table):
    bases = json.loads(BASE_MODELS_PATH.read_text(encoding="utf-8"))["bases"]
    names = [row.partition("[")[2].partition("]")[0] for row in readme_table[2:]]
    assert names == [base["id"] for base in bases]


@pytest.mark.slow
def test_its_smallest_bases_have_the_numbers_that_are_computed_now(readme_table, tmp_path, monkeypatch):
    shipped = json.loads(BASE_MODELS_PATH.read_text(encoding="utf-8"))
    short_path = tmp_path / "base_models.json"
    short_path.write_text(json.dumps(shipped | {"bases": shipped["bases"][:NUM_COMPUTED_ROWS]}), encoding="utf-8")
    monkeypatch.setattr(known_bases, "BASE_MODELS_PATH", short_path)
    assert make_base_table().splitlines() == readme_table[: 2 + NUM_COMPUTED_ROWS]
