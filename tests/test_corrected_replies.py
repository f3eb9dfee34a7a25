"""Stage 2 with corrections: what is learnt of them, how often, and that they decide a resume and no measurement."""

import dataclasses
import hashlib
import json
from datetime import date

import pytest
from checkpoints import complete_checkpoint
from corrected_replies import read_corrections
from fine_tuning_model import main
from held_out_sets import HeldOut
from prepared_run import find_checkpoint, load_tokenizer, prepare_run
from processes import use_threads
from recipes import CORRECTION_WEIGHT, DEFAULT_RECIPE
from training_material import prepare_material
from training_options import parse_options

from common.base_model_files import find_base
from common.conversation_data import Conversation, read_training_data
from common.script import PROJECT_ROOT, ScriptError

CORRECTED = [
    {"role": "user", "content": "are you coming?"},
    {"role": "assistant", "content": "what the model wrote"},
    {"role": "user", "content": "so?"},
    {"role": "assistant", "content": "yes\non my way"},
]
NONE_HELD_OUT = HeldOut([], [], [])


def write(path, *conversations):
    text = "".join(json.dumps({"messages": messages}) + "\n" for messages in conversations)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def tokenizer(tiny_base_dir):
    return load_tokenizer(tiny_base_dir, "tiny", date(2026, 11, 28))


@pytest.fixture(scope="module")
def prepare_rows(tokenizer, sample_conversations):
    """A function that prepares the rows of ten conversations and these corrections."""
    talks = [Conversation(number, messages, "") for number, messages in enumerate(sample_conversations[:10])]

    def prepare_rows(*corrections, recipe=DEFAULT_RECIPE, held_out=NONE_HELD_OUT):
        corrected = [Conversation(number, messages, "") for number, messages in enumerate(corrections)]
        return prepare_material(tokenizer, talks, held_out, recipe, 1, 0, corrected)

    return prepare_rows


def added(plain, corrected):
    """The chunks that only the second has, each with its supervised text."""
    chunks = [chunk for chunk in corrected.chunks if chunk["input_ids"] not in list(plain.chunks["input_ids"])]
    return [
        (chunk, [token for token, wanted in zip(chunk["input_ids"], chunk["is_supervised"], strict=True) if wanted])
        for chunk in chunks
    ]


@pytest.mark.parametrize("train_on", ["person", "everyone"])
def test_the_last_reply_alone_is_learnt_as_often_as_its_weight(prepare_rows, tokenizer, train_on):
    recipe = dataclasses.replace(DEFAULT_RECIPE, train_on=train_on)
    found = added(prepare_rows(recipe=recipe), prepare_rows(CORRECTED, recipe=recipe))
    assert [tokenizer.decode(learnt) for _, learnt in found] == ["yes\non my way</s>"] * CORRECTION_WEIGHT
    assert "what the model wrote" in tokenizer.decode(found[0][0]["input_ids"])


def test_a_correction_is_learnt_after_the_header_of_its_conversation(tokenizer, sample_conversations):
    recipe = dataclasses.replace(DEFAULT_RECIPE, context="who,when")
    moment = "2024-12-13T09:30:00"
    talks = [Conversation(number, talk, moment, "Ruth") for number, talk in enumerate(sample_conversations[:10])]
    correction = Conversation(0, CORRECTED, moment, "Ruth")
    rows = [prepare_material(tokenizer, talks, NONE_HELD_OUT, recipe, 1, 0, given) for given in ([], [correction])]
    found = added(*rows)
    assert len(found) == CORRECTION_WEIGHT
    assert tokenizer.decode(found[0][0]["input_ids"]).startswith("<s><person2>Ruth · Friday, morning\n")
    assert tokenizer.decode(found[0][1]) == "yes\non my way</s>"


def test_an_opener_is_learnt_too(prepare_rows, tokenizer):
    found = added(prepare_rows(), prepare_rows(CORRECTED[3:]))
    assert [tokenizer.decode(learnt) for _, learnt in found] == ["yes\non my way</s>"] * CORRECTION_WEIGHT


@pytest.mark.parametrize("before", [CORRECTED[:2] * 40, CORRECTED[1:2] + CORRECTED[:2] * 40])
def test_of_a_long_conversation_the_end_is_read(prepare_rows, tokenizer, before):
    recipe = dataclasses.replace(DEFAULT_RECIPE, max_length=128)
    found = added(prepare_rows(recipe=recipe), prepare_rows([*before, *CORRECTED[2:]], recipe=recipe))
    assert len(found) == CORRECTION_WEIGHT
    chunk, learnt = found[0]
    assert 64 < len(chunk["input_ids"]) <= 128 and tokenizer.decode(learnt) == "yes\non my way</s>"
    assert tokenizer.decode(chunk["input_ids"]).startswith("<s><person2>are you coming?")


def test_an_exchange_longer_than_a_row_keeps_its_whole_reply(prepare_rows, tokenizer):
    recipe = dataclasses.replace(DEFAULT_RECIPE, max_length=128)
    long = [{"role": "user", "content": "where? " * 150}, {"role": "assistant", "content": "here " * 60}]
    found = added(prepare_rows(recipe=recipe), prepare_rows(long, recipe=recipe))
    num_parts = len(found) // CORRECTION_WEIGHT
    learnt = [token for _, part in found[:num_parts] for token in part]
    assert tokenizer.decode(learnt) == "here " * 60 + "</s>"


def test_none_is_held_out_and_the_epochs_are_those_of_the_data(prepare_rows):
    held_out = HeldOut([1], [2], [3])
    plain, corrected = (prepare_rows(*many, held_out=held_out) for many in ((), [CORRECTED] * 30))
    assert list(corrected.held_out.chunks) == list(plain.held_out.chunks)
    assert len(corrected.schedule.epoch_ends) == len(plain.schedule.epoch_ends)


# ---- The file --------------------------------------------------------------------------------------------------------


def test_the_last_of_several_corrections_of_one_place_counts(tmp_path, capsys):
    again = [*CORRECTED[:3], {"role": "assistant", "content": "no"}]
    path = write(tmp_path / "corrections.jsonl", CORRECTED, CORRECTED[:2], again)
    corrections = read_corrections(path, skip_bad_lines=False)
    assert [talk.messages for talk in corrections.conversations] == [again, CORRECTED[:2]]
    assert (
        f"corrections.jsonl, 2 replies, each learnt as often as {CORRECTION_WEIGHT} replies" in capsys.readouterr().out
    )


def test_the_same_words_in_two_chats_and_two_openers_are_different_places(tmp_path):
    opener = CORRECTED[3:]
    known = [
        {"messages": CORRECTED[:2], "chat": "Ruth", "started_at": "2024-12-13T09:30:00"},
        {"messages": CORRECTED[:2], "chat": "Koby", "started_at": "2024-12-13T09:30:00"},
        {"messages": CORRECTED[:2], "chat": "Koby", "started_at": "2024-12-14T09:30:00"},
        {"messages": opener, "started_at": "2024-12-13T09:30:00"},
        {"messages": opener, "started_at": "2024-12-13T09:30:00"},
        {"messages": opener, "started_at": "2024-12-13T21:30:00"},
    ]
    path = tmp_path / "corrections.jsonl"
    path.write_text("".join(f"{json.dumps(line)}\n" for line in known), encoding="utf-8")
    found = read_corrections(path, skip_bad_lines=False).conversations
    assert [(talk.chat, talk.started_at) for talk in found] == [
        ("Ruth", "2024-12-13T09:30:00"),
        ("Koby", "2024-12-14T09:30:00"),
        ("", "2024-12-13T09:30:00"),
        ("", "2024-12-13T21:30:00"),
    ]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "no corrections; type /better in the chat, or leave out --corrections"),
        ("", "is empty; give the file that /better writes in the chat"),
        ('{"messages": []}\n', "has no reply of the person to imitate .*; give the file that /better writes"),
        (
            json.dumps({"messages": CORRECTED}) + '\n{"mess',
            "line 2: is not a whole JSON value .*; correct or remove the line, or pass --skip-bad-lines",
        ),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line(tmp_path, content, words):
    path = tmp_path / "corrections.jsonl"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(ScriptError, match=f"corrections.jsonl: {words}") as refusal:
        read_corrections(path, skip_bad_lines=False)
    assert "\n" not in str(refusal.value)


def test_a_bad_line_may_be_skipped(tmp_path, capsys):
    path = write(tmp_path / "corrections.jsonl", CORRECTED)
    path.write_text(path.read_text() + '{"mess', encoding="utf-8")
    assert len(read_corrections(path, skip_bad_lines=True).conversations) == 1
    assert "1 bad line of the corrections skipped, the first: line 2" in capsys.readouterr().err


# ---- The run ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def prepare(tmp_path, sample_conversations, tiny_base_dir):
    """A function that prepares a run with more flags."""
    data_path = write(tmp_path / "data.jsonl", *sample_conversations[:8])
    block = {
        "base_model_id": str(tiny_base_dir),
        "path_to_data": str(data_path),
        "saved_model_path": str(tmp_path / "m"),
    }

    def prepare(*flags):
        options = parse_options("", block, 0, ["--threads", "1", *map(str, flags)])
        corrections = read_corrections(options.corrections, options.skip_bad_lines)
        base = find_base(str(tiny_base_dir), tmp_path)
        return prepare_run(options, read_training_data(data_path), base, corrections)

    yield prepare
    use_threads(1)


def test_other_corrections_are_another_run_and_stand_in_the_settings(prepare, tmp_path):
    path = write(tmp_path / "corrections.jsonl", CORRECTED)
    plain, first = prepare(), prepare("--corrections", path)
    assert plain.facts["corrections_sha256"] is None and plain.corrections is None
    changed = {name for name, value in first.facts.items() if value != plain.facts[name]}
    assert changed >= {"corrections_sha256", "correction_weight"}
    assert json.loads(json.dumps(first.facts)) == first.facts
    write(path, CORRECTED, CORRECTED[:2])
    second = prepare("--corrections", path)
    assert second.facts["corrections_sha256"] != first.facts["corrections_sha256"]
    assert second.held_out == first.held_out == plain.held_out


def test_a_resume_with_other_corrections_is_refused(prepare, tmp_path):
    path = write(tmp_path / "corrections.jsonl", CORRECTED)
    begun = prepare("--corrections", path)
    checkpoint_dir = tmp_path / "m" / "checkpoints" / "checkpoint-1"
    checkpoint_dir.mkdir(parents=True)
    complete_checkpoint(checkpoint_dir, begun.facts, {})
    assert find_checkpoint(prepare("--corrections", path, "--resume")) == checkpoint_dir
    write(path, CORRECTED, CORRECTED[:2])
    for flags in (["--corrections", path], []):
        with pytest.raises(ScriptError, match="belongs to another run(.|\n)*corrections_sha256: .* in the checkpoint"):
            find_checkpoint(prepare(*flags, "--resume"))


def test_a_checkpoint_from_before_there_were_corrections_goes_on_without_any(prepare, tmp_path):
    facts = {name: value for name, value in prepare().facts.items() if not name.startswith("correction")}
    checkpoint_dir = tmp_path / "m" / "checkpoints" / "checkpoint-1"
    checkpoint_dir.mkdir(parents=True)
    complete_checkpoint(checkpoint_dir, facts, {})
    assert find_checkpoint(prepare("--resume")) == checkpoint_dir
    with pytest.raises(ScriptError, match="belongs to another run"):
        find_checkpoint(prepare("--corrections", write(tmp_path / "corrections.jsonl", CORRECTED), "--resume"))


@pytest.mark.slow
def test_a_training_learns_them_and_says_so(tmp_path, sample_conversations, tiny_base_dir, capsys):
    data_path = write(tmp_path / "data.jsonl", *sample_conversations)
    path = write(tmp_path / "corrections.jsonl", CORRECTED, CORRECTED[:2])
    flags = ["--base-model-id", tiny_base_dir, "--path-to-data", data_path, "--saved-model-path", tmp_path / "model"]
    flags += ["--corrections", path, "--epochs", "1", "--batch-tokens", "4096", "--threads", "1", "--device", "cpu"]
    assert main([*map(str, flags)]) == 0
    settings = json.loads((tmp_path / "model" / "training_settings.json").read_text())
    assert settings["corrections"] == {
        "num_corrections": 2,
        "weight": CORRECTION_WEIGHT,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    assert "Corrections: " in capsys.readouterr().out
    held_out = json.loads((tmp_path / "model" / "held_out_conversations.json").read_text())
    assert held_out["num_conversations"] == len(sample_conversations)


def test_without_a_name_it_is_the_file_of_the_chat(prepare):
    block = {"base_model_id": "b", "path_to_data": "d", "saved_model_path": "m"}
    options = parse_options("", block, 0, ["--corrections", "--resume"])
    assert options.corrections == PROJECT_ROOT / "src/chat/corrections.jsonl" and options.resume
    assert parse_options("", block, 0, []).corrections is None
