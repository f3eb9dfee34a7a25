"""The bases of the README's table: their shapes, their sources, and that the README has what `known_bases.py` prints."""

import json

import known_bases
import pytest
from known_bases import BASE_MODELS_PATH, bases_for, find_config, make_base_table
from memory_estimate import count_weights
from small_runs import DEFAULT_BASE

from common.base_model_files import BaseModel, BaseModelError
from common.conversation_data import Conversation
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


@pytest.mark.parametrize(
    ("words", "knows_english_alone"),
    [
        ("מה נשמע? see you", False),
        ("Привет", False),
        ("¿Qué tal, mañana?", True),
        ("see you at 8 😂", True),
        ("", True),
    ],
)
def test_no_base_of_english_alone_is_named_for_another_script(words, knows_english_alone):
    talk = Conversation(0, [{"role": "user", "content": words}, {"role": "assistant", "content": words}], "")
    named = bases_for([talk])
    assert any(known.languages == "English" for known in named) is knows_english_alone
    assert len(named) >= 7


def test_shipped_shapes_have_the_published_sizes():
    published = {
        "HuggingFaceTB/SmolLM2-135M": 134_515_008,
        "HuggingFaceTB/SmolLM2-360M": 361_821_120,
        "Qwen/Qwen3-0.6B-Base": 596_049_920,
        "Qwen/Qwen3-1.7B-Base": 1_720_574_976,
        "dicta-il/DictaLM-3.0-1.7B-Base": 1_720_574_976,  # built on Qwen3-1.7B-Base; its page lists 3.46 GB in 16 bits
        "Qwen/Qwen3-4B-Base": 4_022_468_096,
        "dicta-il/dictalm2.0": 7_251_169_280,
        "yam-peleg/Hebrew-Mistral-7B": 7_503_884_288,
        "Qwen/Qwen3-8B-Base": 8_190_735_360,
    }
    sizes = {known.name: count_weights(known.config).total for known in known_bases.known_bases()}
    assert sizes == published


def test_base_table_is_valid_json_with_sources():
    for entry in json.loads(BASE_MODELS_PATH.read_text(encoding="utf-8"))["bases"]:
        assert entry["source"].endswith(entry["id"])
        assert entry["license"]


class TestConfig:
    def test_shape_of_a_known_base_needs_no_network(self, monkeypatch):
        monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
        assert find_config(DEFAULT_BASE)["vocab_size"] == 64_001

    def test_unknown_base_without_network_is_one_line(self, monkeypatch):
        monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        with pytest.raises(BaseModelError, match="owner/unknown: .*hub cannot be reached"):
            find_config(BaseModel("owner/unknown", None))
