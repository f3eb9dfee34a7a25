"""What is known of a run before the model loads: the facts that decide a resume, the rows, the threads."""

import copy
import dataclasses
import json
import os
import shutil
from datetime import date

import prepared_run
import pytest
import torch
from checkpoints import FORMER_FACTS, complete_checkpoint, list_differences
from held_out_sets import HeldOut
from make_small_base import make_model
from prepared_run import load_tokenizer, prepare_run
from processes import use_threads
from recipes import DEFAULT_RECIPE, REPLIES_FOR_HEADER
from training_material import prepare_material
from training_options import parse_options
from transformers import AutoTokenizer

from common.base_model_files import find_base
from common.chat_format import PERSON_TEMPLATE
from common.conversation_data import Conversation, read_training_data
from common.script import ScriptError


@pytest.fixture(autouse=True)
def threads():
    """Give torch its threads back: a run sets their number."""
    num_threads = torch.get_num_threads()
    yield
    torch.set_num_threads(num_threads)


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch):
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def data_path(tmp_path, sample_conversations):
    """Made-up conversations, too few to hold any out."""
    path = tmp_path / "formatted_data.jsonl"
    about = {"chat": "Ruth", "with": ["Ruth"], "started_at": "2024-03-02"}
    path.write_text("".join(json.dumps({"messages": talk} | about) + "\n" for talk in sample_conversations[:8]))
    return path


@pytest.fixture
def base_copy_dir(tmp_path, tiny_base_dir):
    """A copy of the tiny base that may be changed."""
    return shutil.copytree(tiny_base_dir, tmp_path / "base")


@pytest.fixture
def prepare(tmp_path, data_path, base_copy_dir):
    """A function that prepares a run of these files, with more flags."""

    def prepare(*flags):
        block = {
            "base_model_id": str(base_copy_dir),
            "path_to_data": str(data_path),
            "saved_model_path": str(tmp_path / "m"),
        }
        options = parse_options("", block, 0, ["--threads", "1", *flags])
        return prepare_run(options, read_training_data(data_path), find_base(str(base_copy_dir), tmp_path))

    return prepare


class TestFacts:
    @pytest.fixture
    def changed_facts(self, prepare):
        """A function that does something and returns which facts a run has otherwise than before."""

        def compare(change=lambda: None, *flags):
            before = prepare().facts
            change()
            after = prepare(*flags).facts
            assert after.keys() == before.keys()
            return {name for name, value in after.items() if value != before[name]}

        return compare

    def test_nothing_changed_nothing_differs(self, changed_facts):
        assert changed_facts() == set()

    def test_they_survive_the_manifest(self, prepare):
        facts = prepare().facts
        assert json.loads(json.dumps(facts)) == facts

    def test_one_letter_of_the_data(self, changed_facts, data_path):
        longer = data_path.read_text().replace('"content": "', '"content": "a', 1)
        assert changed_facts(lambda: data_path.write_text(longer)) == {"data_sha256"}

    def test_other_weights_of_the_same_shape(self, changed_facts, base_copy_dir, tiny_tokenizer):
        sibling = make_model(len(tiny_tokenizer), hidden_size=64, num_layers=2, seed=1)
        assert changed_facts(lambda: sibling.save_pretrained(base_copy_dir)) == {"base_fingerprint"}

    def test_another_tokenizer(self, changed_facts, base_copy_dir):
        path = base_copy_dir / "tokenizer.json"
        other = json.loads(path.read_text(encoding="utf-8"))
        del other["model"]["merges"][-1]
        assert changed_facts(lambda: path.write_text(json.dumps(other), encoding="utf-8")) == {"tokenizer_sha256"}

    def test_another_template(self, changed_facts, base_copy_dir):
        template = PERSON_TEMPLATE.replace("<person1>", "<person3>")
        assert changed_facts(lambda: (base_copy_dir / "chat_template.jinja").write_text(template)) == {
            "template_sha256"
        }

    def test_a_resume_on_another_day_keeps_the_date_of_the_template(self, prepare, base_copy_dir, tmp_path):
        dated = "{{ strftime_now('%d.%m.%Y') }}" + PERSON_TEMPLATE
        (base_copy_dir / "chat_template.jinja").write_text(dated)
        today = date.today().isoformat()
        begun = prepare()
        assert begun.facts["template_day"] in (today, date.today().isoformat())  # midnight may have passed
        for step, day in ((1, "2024-03-02"), (2, None)):  # the newer one was cut
            checkpoint_dir = tmp_path / "m" / "checkpoints" / f"checkpoint-{step}"
            checkpoint_dir.mkdir(parents=True)
            if day is not None:
                complete_checkpoint(checkpoint_dir, begun.facts | {"template_day": day}, {})
        resumed = prepare("--resume")
        assert resumed.facts["template_day"] == "2024-03-02"
        assert "02.03.2024" in resumed.tokenizer.decode(resumed.material.chunks[0]["input_ids"])

    @pytest.mark.parametrize(
        ("flags", "names"),
        [
            ("--seed 1", {"seed"}),
            ("--epochs 5", {"epochs"}),
            ("--learning-rate 1e-3", {"learning_rate"}),
            ("--rank 8", {"rank"}),
            ("--dropout 0.1", {"dropout"}),
            ("--train-on everyone", {"train_on"}),
            ("--context who", {"context", "untold_share"}),
            ("--adapter-dtype bfloat16", {"adapter_dtype"}),
            ("--batch-tokens 300", {"step_tokens"}),
            ("--max-length 256", {"max_length", "step_tokens"}),
        ],
    )
    def test_each_setting_that_decides_a_result(self, changed_facts, flags, names):
        assert changed_facts(lambda: None, *flags.split()) == names

    def test_no_setting_that_decides_nothing(self, changed_facts):
        flags = "--learning-rate auto --threads 2 --activation-checkpointing on --skip-bad-lines --resume --debug"
        assert changed_facts(lambda: None, *flags.split()) == set()

    def test_more_processes_share_a_step(self, changed_facts, monkeypatch):
        assert changed_facts(lambda: monkeypatch.setenv("WORLD_SIZE", "2")) == {"processes", "step_tokens"}

    def test_another_device(self, changed_facts, monkeypatch):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        monkeypatch.setattr(torch.backends.mps, "is_macos_or_newer", lambda *_version: True)
        assert changed_facts(lambda: monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)) == {
            "device"
        }


class TestContext:
    @pytest.mark.parametrize(
        ("about", "became", "told"),
        [
            ({}, "none", 'the data has no names ("with", or "chat"), so --context who,when became none'),
            ({"with": ["Ruth"]}, "who", 'the data has no times ("started_at"), so --context who,when became who'),
            ({"with": ["Ruth"], "started_at": "2024-03-02T10:00:00"}, "who,when", None),
        ],
    )
    def test_what_the_data_do_not_say_is_left_out_and_said(
        self, prepare, data_path, sample_conversations, capsys, about, became, told
    ):
        lines = [json.dumps({"messages": talk} | about) + "\n" for talk in sample_conversations[:8]]
        data_path.write_text("".join(lines))
        run = prepare("--context", "who,when")
        assert run.material.context == run.facts["context"] == became
        errors = capsys.readouterr().err
        assert (told in errors) if told else ("--context" not in errors)

    @pytest.mark.parametrize(
        ("missing", "flags", "became"),
        [(0, (), "who,when"), (1, (), "none"), (0, ("--context", "none"), "none"), (0, ("--context", "who"), "who")],
    )
    def test_the_number_of_replies_decides_without_the_flag(self, prepare, data_path, missing, flags, became):
        exchange = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}]
        about = {"with": ["Ruth"], "started_at": "2024-03-02T10:00:00"}
        num_exchanges = [50] * (REPLIES_FOR_HEADER // 50 - 1) + [50 - missing]
        lines = [json.dumps({"messages": exchange * number} | about) + "\n" for number in num_exchanges]
        data_path.write_text("".join(lines))
        run = prepare(*flags)
        assert run.material.context == run.facts["context"] == became
        rows = [run.tokenizer.decode(ids) for ids in run.material.chunks["input_ids"]]
        told = [row for row in rows if "Ruth" in row]
        assert all("Saturday, morning" in row for row in told) == (became != "who")
        # Some are told nothing, so that the model also writes in tools that put no line there.
        assert 0.8 < len(told) / len(rows) < 1 if became != "none" else not told

    def test_a_checkpoint_of_an_earlier_version_had_no_header(self, prepare):
        facts = dict(prepare().facts)
        del facts["context"]
        assert list_differences(FORMER_FACTS | facts, FORMER_FACTS | prepare("--context", "none").facts) == []


class TestLengthOfRows:
    def set_config(self, base_copy_dir, **values):
        path = base_copy_dir / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    def test_rows_are_no_longer_than_the_base_has_positions(self, prepare, base_copy_dir, capsys):
        self.set_config(base_copy_dir, max_position_embeddings=96)
        run = prepare()
        assert run.recipe.max_length == run.facts["max_length"] == 96
        assert max(run.material.lengths) <= 96
        assert "  rows of 96 tokens: the base has no more positions\n" in capsys.readouterr().out

    @pytest.mark.parametrize("num_positions", [96, 97])
    def test_positions_that_are_enough_change_nothing(self, prepare, base_copy_dir, capsys, num_positions):
        self.set_config(base_copy_dir, max_position_embeddings=num_positions)
        assert prepare("--max-length", "96").recipe.max_length == 96
        assert "positions" not in capsys.readouterr().out

    def test_the_limit_is_found_under_the_name_that_a_family_gives_it(self, prepare, base_copy_dir):
        (base_copy_dir / "config.json").write_text('{"model_type": "mpt", "max_seq_len": 64}')
        assert prepare().recipe.max_length == 64

    def test_a_base_without_a_limit_gets_the_recipes(self, prepare, base_copy_dir):
        """BLOOM counts distances instead of positions."""
        (base_copy_dir / "config.json").write_text('{"model_type": "bloom"}')
        assert prepare().recipe.max_length == 2048

    def test_an_unknown_kind_of_model_is_one_line(self, prepare, base_copy_dir):
        self.set_config(base_copy_dir, model_type="no_such_model")
        with pytest.raises(ScriptError, match="config.json: a model of this kind cannot be loaded") as refusal:
            prepare()
        assert "\n" not in str(refusal.value)


class TestTokenizerAndBase:
    def test_a_token_of_text_without_a_row_is_refused(self, prepare, base_copy_dir, tiny_tokenizer):
        config = json.loads((base_copy_dir / "config.json").read_text())
        (base_copy_dir / "config.json").write_text(json.dumps(config | {"vocab_size": len(tiny_tokenizer) - 8}))
        with pytest.raises(ScriptError, match="has 8 tokens more than the model has rows") as refusal:
            prepare()
        assert "\n" not in str(refusal.value)

    def test_a_special_token_that_no_text_becomes_may_have_no_row(self, prepare, base_copy_dir, tiny_tokenizer):
        tokenizer = copy.deepcopy(tiny_tokenizer)
        tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
        tokenizer.save_pretrained(base_copy_dir)
        assert prepare().material.lengths

    def test_of_several_templates_the_default_one_is_taken(self, base_copy_dir, tiny_tokenizer):
        """Command R and Hermes have more: for tools, and for quoting documents."""
        tokenizer = copy.deepcopy(tiny_tokenizer)
        tokenizer.chat_template = {"default": PERSON_TEMPLATE, "tool_use": "{{ tools }}"}
        tokenizer.save_pretrained(base_copy_dir)
        assert isinstance(AutoTokenizer.from_pretrained(base_copy_dir).chat_template, dict)
        assert load_tokenizer(base_copy_dir, "mine", date.today()).chat_template == PERSON_TEMPLATE

    def test_a_tokenizer_of_sentencepiece_alone_asks_for_its_packages(self, base_copy_dir, monkeypatch):
        (base_copy_dir / "tokenizer.json").rename(base_copy_dir / "tokenizer.model")
        monkeypatch.setattr(prepared_run, "find_spec", lambda _name: None)
        with pytest.raises(
            ScriptError, match=r"^mine: .* only as tokenizer.model, .*\(pip install sentencepiece protobuf\)"
        ):
            load_tokenizer(base_copy_dir, "mine", date.today())

    def test_a_base_without_an_end_token_is_said_to_have_none(self, base_copy_dir, tiny_tokenizer):
        tokenizer = copy.deepcopy(tiny_tokenizer)
        tokenizer.eos_token = None
        tokenizer.save_pretrained(base_copy_dir)
        with pytest.raises(ScriptError, match="^mine: its tokenizer has no end-of-sequence token, .*; choose another"):
            load_tokenizer(base_copy_dir, "mine", date.today())


class TestThreads:
    def test_so_many_as_wanted_even_against_the_environment(self, monkeypatch):
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        use_threads(3)
        assert torch.get_num_threads() == 3

    def test_the_environments_choice_is_left_alone(self, monkeypatch):
        monkeypatch.setenv("OMP_NUM_THREADS", "3")
        torch.set_num_threads(3)
        use_threads(None)
        assert torch.get_num_threads() == 3

    @pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="only Linux can bind a process to a core")
    def test_no_more_than_the_cores_it_may_use(self, monkeypatch):
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        torch.set_num_threads(3)
        allowed = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {min(allowed)})
        try:
            use_threads(None)
        finally:
            os.sched_setaffinity(0, allowed)
        assert torch.get_num_threads() == 1


class TestMaterial:
    @pytest.fixture
    def prepare_rows(self, tiny_base_dir, sample_conversations):
        """A function that encodes and packs the forty conversations, or others."""
        tokenizer = load_tokenizer(tiny_base_dir, "tiny", date(2026, 11, 27))
        talks = [Conversation(number, messages, "") for number, messages in enumerate(sample_conversations)]

        def prepare_rows(recipe, talks=talks):
            return prepare_material(tokenizer, talks, HeldOut([], [], []), recipe, num_processes=1, seed=0)

        return prepare_rows

    def test_rows_are_never_more_than_full(self, prepare_rows):
        talk = [{"role": "user", "content": "where? " * 200}, {"role": "assistant", "content": "here " * 300}]
        recipe = dataclasses.replace(DEFAULT_RECIPE, step_tokens=512)
        assert prepare_rows(recipe, [Conversation(0, talk, "")]).fill == 1
        assert 0.5 < prepare_rows(recipe).fill < 1

    @pytest.mark.parametrize("train_on", ["person", "everyone"])
    @pytest.mark.parametrize("max_length", [128, 2048])
    def test_the_header_stands_before_each_chunk_and_is_never_learnt(
        self, tiny_base_dir, sample_conversations, train_on, max_length
    ):
        tokenizer = load_tokenizer(tiny_base_dir, "tiny", date(2026, 11, 27))
        long_talk = [turn for messages in sample_conversations[:6] for turn in messages]
        talks = [
            Conversation(number, messages, "2024-12-13T09:30:00", "_chat", ("Ruth",))
            for number, messages in enumerate([*sample_conversations[:6], long_talk, sample_conversations[7][1:]])
        ]
        recipe = dataclasses.replace(
            DEFAULT_RECIPE, context="who,when", train_on=train_on, max_length=max_length, step_tokens=512
        )
        material = prepare_material(tokenizer, talks, HeldOut([], [], []), recipe, num_processes=1, seed=0)
        header = "<s><person2>Ruth · Friday, morning"
        assert len(material.chunks) > len(talks) if max_length == 128 else True
        for chunk in material.chunks:
            assert len(chunk["input_ids"]) <= max_length
            num_given = next(n for n, is_supervised in enumerate(chunk["is_supervised"]) if is_supervised)
            assert tokenizer.decode(chunk["input_ids"][:num_given]).startswith(header)

    def test_whose_words_are_learnt_is_a_flag(self, prepare_rows):
        everyone, person = (
            prepare_rows(dataclasses.replace(DEFAULT_RECIPE, train_on=whose)).num_supervised_tokens
            for whose in ("everyone", "person")
        )
        assert person < 0.8 * everyone
