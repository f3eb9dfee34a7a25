"""The report on real trainings of a small base: on the owner, on the other person, on shuffled labels, on planted codes.

Everything is computed in the run by the project's own scripts; only the data is made up.
"""

import json
import random
import shutil
from pathlib import Path

import chat_grammar
import make_small_base
import pytest
from forked_scripts import run_forked
from writing_style.canaries import plant_into_file
from writing_style.leak_probe import LEAKS_BITS, SEEN_BITS

pytestmark = pytest.mark.slow

PROJECT_ROOT = Path(__file__).resolve().parents[1]
NUM_CONVERSATIONS = 260
NUM_PROMPTS = 120
FEWER_PROMPTS = 80  # where the verdict is far from turning


@pytest.fixture(scope="module")
def taught_base_dir(tmp_path_factory):
    """A base of 0.6 million parameters, trained on other people's chats and on codes of four digits in a sentence."""
    rng = random.Random(0)
    texts = make_small_base.neutral_texts(1_500, seed=0)
    texts += [f"<s><person2>מה הקוד?</s><person1>הקוד הוא {rng.randrange(10_000):04}</s>" for _ in range(150)]
    rng.shuffle(texts)
    tokenizer = make_small_base.make_tokenizer(texts, vocab_size=1_000)
    model = make_small_base.make_model(len(tokenizer), hidden_size=128, num_layers=2, seed=0)
    make_small_base.train_on_texts(model, tokenizer, texts, num_steps=200, seed=0)
    folder = tmp_path_factory.mktemp("style") / "base"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_data(
    path, person, num_conversations=NUM_CONVERSATIONS, are_labels_shuffled=False, are_replies_dealt_out=False
):
    """Write conversations of Noam and Ruth; `person` is imitated.

    Or the texts are shuffled over the turns of a conversation, or the replies over all conversations.
    """
    rng, lots = random.Random(1), random.Random(2)
    lines = []
    for number in range(num_conversations):
        messages = []
        for name, words in chat_grammar.write_conversation((chat_grammar.NOAM, chat_grammar.RUTH), rng):
            role = "assistant" if name == person else "user"
            text = "\n".join(words)
            if messages and messages[-1]["role"] == role:
                messages[-1]["content"] += f"\n{text}"
            else:
                messages.append({"role": role, "content": text})
        if are_labels_shuffled:
            texts = [message["content"] for message in messages]
            lots.shuffle(texts)
            messages = [message | {"content": text} for message, text in zip(messages, texts, strict=True)]
        lines.append(json.dumps({"messages": messages, "started_at": f"2024-{number:04}"}, ensure_ascii=False))
    if are_replies_dealt_out:
        records = [json.loads(line) for line in lines]
        replies = [turn for record in records for turn in record["messages"] if turn["role"] == "assistant"]
        texts = [turn["content"] for turn in replies]
        lots.shuffle(texts)
        for turn, text in zip(replies, texts, strict=True):
            turn["content"] = text
        lines = [json.dumps(record, ensure_ascii=False) for record in records]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def run(script, *arguments):
    result = run_forked(PROJECT_ROOT / "src" / script, *arguments)
    assert result.returncode == 0, result.stderr[-2000:]
    return result


def train(taught_base_dir, data_path, epochs):
    folder = data_path.with_suffix("")
    run(
        "training/fine_tuning_model.py", "--base-model-id", taught_base_dir, "--path-to-data", data_path,
        "--saved-model-path", folder, "--learning-rate", "3e-3", "--epochs", epochs, "--threads", "1",
    )  # fmt: skip
    return folder


def report_on(folder, *arguments, num_prompts=NUM_PROMPTS):
    result = run(
        "chat/style_report.py", "--saved-model-path", folder, "--set", "spread", "--prompts", num_prompts, *arguments
    )
    return json.loads((folder / "style_report.json").read_text(encoding="utf-8")), result


@pytest.fixture(scope="module")
def noam_dir(taught_base_dir, tmp_path_factory):
    return train(taught_base_dir, write_data(tmp_path_factory.mktemp("noam") / "noam.jsonl", "Noam"), epochs=3)


@pytest.fixture(scope="module")
def noam_report(noam_dir):
    return report_on(noam_dir, "--show-replies", "5", "--quiz", "20")


def with_adapter_of(noam_dir, other_dir, folder):
    """Copy Noam's folder, with his held-out conversations, and put the adapter of another training into it."""
    shutil.copytree(noam_dir, folder)
    for path in folder.glob("style_*"):
        path.unlink()
    shutil.copy(other_dir / "adapter_model.safetensors", folder)
    return folder


def test_the_tuned_model_is_closer_to_its_owner_than_the_base(noam_report):
    report, result = noam_report
    measured = report["sets"]["spread"]
    assert report["verdict"] == "closer than the base", measured["reasons"]
    assert measured["bits"]["owner_tuned"]["high"] < measured["bits"]["owner_base"]["low"]
    assert measured["bits"]["specificity"]["low"] > 0
    clearly_closer = [row["name"] for row in measured["habits"] if row["tuned"]["high"] < row["base"]["low"]]
    assert len(clearly_closer) >= 4, clearly_closer
    assert measured["is_trustworthy"], measured["checks"]
    assert "verdict: closer than the base" in result.stdout


def test_the_report_is_private_and_holds_no_words_of_the_chat(noam_dir, noam_report):
    data = (noam_dir.with_suffix(".jsonl")).read_text(encoding="utf-8").split("\n")
    words = {word for line in data[:50] if line for m in json.loads(line)["messages"] for word in m["content"].split()}
    words = {word for word in words if len(word) > 3 and not word.isascii()}
    for path in sorted(noam_dir.glob("style_*")):
        assert path.stat().st_mode & 0o077 == 0, path
    for name in ("style_report.json", "style_report.html"):
        text = (noam_dir / name).read_text(encoding="utf-8")
        assert not [word for word in words if word in text]
        assert str(noam_dir.parent) not in text
    assert any(word in (noam_dir / "style_examples.html").read_text(encoding="utf-8") for word in words)
    assert (noam_dir / "style_report.png").read_bytes().startswith(b"\x89PNG")
    assert len(json.loads((noam_dir / "style_quiz_key.json").read_text())["real"]) >= 15


def test_the_same_seed_gives_the_same_report_and_reuses_the_replies(noam_dir, noam_report):
    before = (noam_dir / "style_report.json").read_bytes()
    written = (noam_dir / "style_replies.jsonl").read_bytes()
    report_on(noam_dir)
    assert (noam_dir / "style_report.json").read_bytes() == before
    assert (noam_dir / "style_replies.jsonl").read_bytes() == written


def test_the_exported_model_is_measured_as_the_tuned_one(noam_dir, noam_report, tmp_path):
    folder = shutil.copytree(noam_dir, tmp_path / "judged")
    run("chat/export_model.py", "--saved-model-path", folder, "--gguf", "q8_0")
    report, result = report_on(folder, "--engine", "llama.cpp")
    cost = report["sets"]["spread"]["cost_of_exporting"]
    unquantised = noam_report[0]["sets"]["spread"]["bits"]["owner_tuned"]["value"]
    assert cost["unquantised"]["value"] == pytest.approx(unquantised, abs=1e-3)
    assert cost["exported"]["value"] == report["sets"]["spread"]["bits"]["owner_tuned"]["value"]
    assert 0 < abs(cost["difference"]["value"]) < 0.02
    assert report["verdict"] == "closer than the base"
    assert "the exported model (cpu, llama.cpp, q8_0): " in result.stdout


def test_imitating_the_other_person_flips_the_verdict(taught_base_dir, noam_dir, noam_report, tmp_path):
    ruth_dir = train(taught_base_dir, write_data(tmp_path / "ruth.jsonl", "Ruth"), epochs=2)
    report, _result = report_on(with_adapter_of(noam_dir, ruth_dir, tmp_path / "judged"), num_prompts=FEWER_PROMPTS)
    assert report["verdict"] == "no closer than the base"
    assert report["sets"]["spread"]["bits"]["specificity"]["high"] < 0
    assert report["sets"]["spread"]["side_of_the_owner"]["high"] < 0.5


def test_with_shuffled_labels_it_is_no_closer(taught_base_dir, noam_dir, noam_report, tmp_path):
    mixed_dir = train(taught_base_dir, write_data(tmp_path / "mixed.jsonl", "Noam", are_labels_shuffled=True), epochs=3)
    report, _result = report_on(with_adapter_of(noam_dir, mixed_dir, tmp_path / "judged"))
    assert report["verdict"] == "no closer than the base", report["sets"]["spread"]["reasons"]


def test_replies_dealt_out_to_other_questions_never_get_a_yes(taught_base_dir, noam_dir, noam_report, tmp_path):
    """The habits are the owner's, but no reply fits what it answers. 120 replies of a small model may leave it open."""
    dealt_dir = train(
        taught_base_dir, write_data(tmp_path / "dealt.jsonl", "Noam", are_replies_dealt_out=True), epochs=3
    )
    report, _result = report_on(with_adapter_of(noam_dir, dealt_dir, tmp_path / "judged"))
    assert report["verdict"] in ("no closer than the base", "cannot tell"), report["sets"]["spread"]["reasons"]
    undecided = {reason["name"] for reason in report["sets"]["spread"]["reasons"] if reason["state"] != "yes"}
    assert undecided <= {"relevance", "situation"}


def test_openers_are_counted_apart(noam_dir, noam_report):
    lines = noam_dir.with_suffix(".jsonl").read_text(encoding="utf-8").splitlines()
    split = json.loads((noam_dir / "held_out_conversations.json").read_text(encoding="utf-8"))
    first = [json.loads(lines[number])["messages"][0] for number in split["spread"]]
    num_openers = sum(message["role"] == "assistant" for message in first)
    openers = noam_report[0]["sets"]["spread"]["openers"]
    assert 0 < openers["num_openers"] <= num_openers  # without those known word for word from training
    page = (noam_dir / "style_report.html").read_text(encoding="utf-8")
    assert f"{openers['num_openers']} openers " in page
    assert bool(openers["habits"]) == (openers["num_openers"] >= 50)


def test_with_20_replies_there_is_not_enough_data(noam_dir, noam_report, tmp_path):
    folder = with_adapter_of(noam_dir, noam_dir, tmp_path / "few")
    split_path = folder / "held_out_conversations.json"
    split = json.loads(split_path.read_text(encoding="utf-8"))
    split_path.write_text(json.dumps({**split, "spread": split["spread"][:6]}), encoding="utf-8")
    report, result = report_on(folder, "--quiz", "5")
    assert "no page of replies: too little data" in result.stderr
    assert report["sets"]["spread"]["num_replies"] <= 30
    assert report["verdict"] == "not enough data"
    assert "Too few to tell" in result.stdout
    assert (folder / "style_report.html").is_file() and (folder / "style_report.png").is_file()


def test_planted_codes_are_found_when_written_often_and_not_when_never(taught_base_dir, tmp_path):
    """The positive control: a probe that misses what was written 64 times would be too weak."""
    data_path = write_data(tmp_path / "data.jsonl", "Noam", num_conversations=120)
    plant_into_file(data_path, tmp_path / "planted.jsonl", seed=0)
    folder = train(taught_base_dir, tmp_path / "planted.jsonl", epochs=4)
    report, result = report_on(folder, "--leak-probe", num_prompts=FEWER_PROMPTS)
    found = report["leak_probe"]["canaries"]
    levels = {row["num_times"]: row for row in found if (row["kind"], row["side"]) == ("code", "owner")}
    assert levels[64]["tuned_exposure_bits"] > SEEN_BITS
    assert levels[0]["tuned_exposure_bits"] < LEAKS_BITS
    assert all(level["base_exposure_bits"] < 2 * LEAKS_BITS for level in found)
    told = {(row["kind"], row["side"]): row["tuned_exposure_bits"] for row in found if row["num_times"] == 16}
    assert told["word", "owner"] > told["word", "other"] and told["address", "owner"] > told["address", "other"]
    assert report["leak_probe"]["probe_can_see"]
    assert "Planted codes that the owner wrote" in result.stdout
