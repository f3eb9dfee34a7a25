"""The parts of the style report that need no training: held-out data, bits per character, pages, quiz, planted codes."""

import hashlib
import json
import math
import random
import re
from pathlib import Path

import pytest
import torch
from turns import with_roles_swapped
from writing_style.blind_quiz import choose_pairs, make_quiz, score_answers
from writing_style.canaries import KINDS, OTHER, OWNER, Canary, invent_canaries, plant_into_file, read_canaries
from writing_style.held_out_replies import (
    Exchange,
    choose_set,
    list_exchanges,
    read_held_out_data,
    take_evenly,
    without_known_replies,
)
from writing_style.leak_probe import SecretRanker, count_secrets, measure_canaries
from writing_style.model_replies import (
    RepliesFile,
    SampledReply,
    ScoredReply,
    cut_as_generated,
    encode_exchange,
    encode_fitting,
    make_batches,
    reply_token_bits,
    sample_replies,
    score_replies,
    with_shuffled_contexts,
)
from writing_style.style_measuring import measure_bits
from writing_style.style_page import make_examples_page, make_report_page
from writing_style.style_verdict import not_enough_data
from writing_style.writing_habits import TrainingPhrases, describe_copies

from common.chat_format import encode_conversation
from common.script import ScriptError

SCRIPT = Path(__file__).resolve().parents[1] / "src" / "chat" / "style_report.py"


def write_split(folder, conversations, blank_line_before=None, **sets):
    """Write a JSONL and the file that names its held-out sets; return both paths."""
    lines = [json.dumps({"messages": messages}, ensure_ascii=False) for messages in conversations]
    if blank_line_before is not None:
        lines.insert(blank_line_before, "")
    data_path = folder / "data.jsonl"
    data_path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    sha256 = hashlib.sha256(data_path.read_bytes()).hexdigest()
    split = {
        "data_sha256": sha256,
        "num_conversations": len(conversations),
        "validation": [],
        "spread": [],
        "latest": [],
    }
    (folder / "held_out_conversations.json").write_text(json.dumps({**split, **sets}), encoding="utf-8")
    return data_path


def exchange(context, reply, conversation=0):
    return Exchange(conversation, 1, [{"role": "user", "content": text} for text in context], reply)


@pytest.fixture(scope="module")
def exchanges(sample_conversations):
    return take_evenly(list_exchanges(dict(enumerate(sample_conversations))), 18)


# --- Held-out data ---------------------------------------------------------------------------------------------------


def test_counts_lines_as_stage_2_does(tmp_path, sample_conversations):
    data_path = write_split(tmp_path, sample_conversations, blank_line_before=3, spread=[4], latest=[40])
    data = read_held_out_data(tmp_path, data_path)
    assert data.sets["spread"] == {4: sample_conversations[3]}
    assert data.sets["latest"] == {40: sample_conversations[39]}
    assert len(data.training) == 38


def test_refuses_data_that_the_model_was_not_trained_on(tmp_path, sample_conversations):
    data_path = write_split(tmp_path, sample_conversations, spread=[1])
    data_path.write_text(data_path.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    with pytest.raises(ScriptError, match="is not the data this model was trained on.*--path-to-data"):
        read_held_out_data(tmp_path, data_path)


def test_says_what_is_missing(tmp_path, sample_conversations):
    with pytest.raises(ScriptError, match="held_out_conversations.json: not found.*train again"):
        read_held_out_data(tmp_path, tmp_path / "data.jsonl")
    data_path = write_split(tmp_path, sample_conversations, spread=[1])
    with pytest.raises(ScriptError, match="other.jsonl: not found.*--path-to-data"):
        read_held_out_data(tmp_path, tmp_path / "other.jsonl")
    write_split(tmp_path, sample_conversations, spread=[99])
    with pytest.raises(ScriptError, match="names lines that do not exist"):
        read_held_out_data(tmp_path, data_path)
    (tmp_path / "held_out_conversations.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ScriptError, match="is damaged"):
        read_held_out_data(tmp_path, data_path)


def test_a_reply_that_opens_a_conversation_answers_nothing():
    messages = [
        {"role": "assistant", "content": "a"},
        {"role": "user", "content": "b"},
        {"role": "assistant", "content": "c"},
    ]
    assert [found.reply for found in list_exchanges({7: messages})] == ["c"]
    assert [found.reply for found in list_exchanges({7: with_roles_swapped(messages)})] == ["b"]


def test_long_replies_known_from_training_are_left_out_and_short_ones_stay():
    known = "זה משפט ארוך למדי שכבר נכתב קודם"
    kept = without_known_replies([exchange(["?"], known), exchange(["?"], "סבבה")], [known, "סבבה"])
    assert [found.reply for found in kept] == ["סבבה"]


def test_a_held_out_reply_is_prompted_with_the_header_of_its_conversation(tmp_path, tiny_model, sample_conversations):
    about = {"with": ["Ruth"], "started_at": "2024-12-13T09:30:00"}
    path = write_split(tmp_path, sample_conversations, spread=[4])
    lines = [json.dumps({"messages": messages} | about) + "\n" for messages in sample_conversations]
    path.write_text("".join(lines), encoding="utf-8")
    split = json.loads((tmp_path / "held_out_conversations.json").read_text())
    split["data_sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (tmp_path / "held_out_conversations.json").write_text(json.dumps(split))
    header = "Ruth · Friday, morning"
    held_out = choose_set(read_held_out_data(tmp_path, path, "who,when"), "spread", 10)
    assert {found.header for found in [*held_out.owner, *held_out.other]} == {header}
    found = held_out.owner[0]
    row = encode_conversation(tiny_model.tokenizer, sample_conversations[4], header=header)
    ids, num_scored = encode_exchange(tiny_model.tokenizer, found, 10_000)
    assert ids == row.input_ids[: row.turn_ends[found.number]]
    assert num_scored == sum(row.is_supervised[row.turn_ends[found.number - 1] : row.turn_ends[found.number]])
    shuffled = with_shuffled_contexts([found, exchange(["x"], "y")])[0]
    assert (shuffled.header, shuffled.context[0]["content"]) == (header, "x")
    assert choose_set(read_held_out_data(tmp_path, path), "spread", 10).owner[0].header == ""


# --- Bits per character ----------------------------------------------------------------------------------------------


def test_bits_are_those_of_the_whole_conversation_read_at_once(tiny_model, exchanges):
    encoded = encode_fitting(
        tiny_model.tokenizer, [*exchanges[3].context, {"role": "assistant", "content": exchanges[3].reply}], 256
    )
    with torch.no_grad():
        log_probabilities = tiny_model.model(torch.tensor([encoded.input_ids])).logits[0].log_softmax(-1)
    start, end = encoded.turn_ends[-2], encoded.turn_ends[-1]
    bits = sum(
        -log_probabilities[place - 1, encoded.input_ids[place]].item() / math.log(2)
        for place in range(start, end)
        if encoded.is_supervised[place]
    )
    [scored] = score_replies(tiny_model.model, tiny_model.tokenizer, [exchanges[3]], 256)
    assert scored.tuned_bits == pytest.approx(bits, abs=1e-3)
    assert scored.base_bits != pytest.approx(scored.tuned_bits, abs=1e-3)


def test_bits_do_not_depend_on_the_batch(tiny_model, exchanges):
    together = score_replies(tiny_model.model, tiny_model.tokenizer, exchanges[:8], 256)
    for alone, among_others in zip(exchanges[:8], together, strict=True):
        [scored] = score_replies(tiny_model.model, tiny_model.tokenizer, [alone], 256)
        assert scored.tuned_bits == pytest.approx(among_others.tuned_bits, abs=1e-4 * scored.num_chars)


def test_one_character_less_changes_bits_per_character_little(tiny_model, exchanges):
    def bits_per_char(chosen):
        scored = score_replies(tiny_model.model, tiny_model.tokenizer, chosen, 256)
        return sum(reply.tuned_bits for reply in scored) / sum(reply.num_chars for reply in scored)

    shorter = [Exchange(e.conversation, e.number, e.context, e.reply[:-1] or e.reply) for e in exchanges]
    assert bits_per_char(shorter) == pytest.approx(bits_per_char(exchanges), rel=0.05)


def test_what_does_not_fit_leaves_whole_turns_from_the_front(tiny_model, sample_conversations):
    messages = max(sample_conversations, key=len)
    whole = encode_fitting(tiny_model.tokenizer, messages, 10_000)
    fitting = encode_fitting(tiny_model.tokenizer, messages, len(whole.input_ids) // 2)
    assert len(fitting.input_ids) <= len(whole.input_ids) // 2
    assert whole.input_ids[-len(fitting.input_ids) + 1 :] == fitting.input_ids[1:]  # but for the bos


def test_shuffled_contexts_come_from_other_conversations(exchanges):
    for shuffled, real in zip(with_shuffled_contexts(exchanges), exchanges, strict=True):
        assert shuffled.reply == real.reply
        assert shuffled.context != real.context


def test_batches_hold_every_row_once_and_are_bounded():
    lengths = [random.Random(seed).randrange(1, 3_000) for seed in range(100)]
    batches = make_batches(lengths)
    assert sorted(row for batch in batches for row in batch) == list(range(100))
    assert all(len(batch) == 1 or len(batch) * max(lengths[row] for row in batch) <= 8_192 for batch in batches)


def test_specificity_is_the_drop_on_the_owner_minus_the_drop_on_the_other():
    owner = [ScoredReply(number, 10, 30.0, 10.0 + number % 2) for number in range(20)]
    other = [ScoredReply(number, 10, 20.0, 25.0) for number in range(20)]
    bits = measure_bits({"owner": owner, "shuffled": owner, "other": other}, seed=0)
    assert bits["owner_drop"]["value"] == pytest.approx(1.95)
    assert bits["other_drop"]["value"] == pytest.approx(-0.5)
    assert bits["specificity"]["value"] == pytest.approx(2.45)
    assert bits["specificity"]["low"] < 2.45 < bits["specificity"]["high"]
    assert bits["relevance"]["value"] == 0


# --- Generated replies -----------------------------------------------------------------------------------------------


def test_an_interrupted_run_goes_on_where_it_was(tmp_path, tiny_model, exchanges):
    path = tmp_path / "style_replies.jsonl"
    whole = sample_replies(tiny_model, exchanges, 0, RepliesFile(path, {"seed": 0}))
    assert path.stat().st_mode & 0o777 == 0o600
    lines = path.read_text(encoding="utf-8").split("\n")
    path.write_text("\n".join(lines[:20]) + '\n{"writer": "tuned", "conv', encoding="utf-8")  # killed in the middle
    written = []
    resumed = RepliesFile(path, {"seed": 0})
    add, resumed.add = resumed.add, lambda *arguments: (written.append(len(arguments[1])), add(*arguments))
    assert sample_replies(tiny_model, exchanges, 0, resumed) == whole
    assert 0 < sum(written) < 2 * len(exchanges)
    assert len(path.read_text(encoding="utf-8").strip().split("\n")) >= 1 + 2 * len(exchanges)


def test_replies_of_other_settings_are_not_taken_over(tmp_path, exchanges):
    path = tmp_path / "style_replies.jsonl"
    RepliesFile(path, {"seed": 0}).add("tuned", exchanges[:1], [SampledReply("x", "complete")])
    assert RepliesFile(path, {"seed": 0}).find("tuned", exchanges[0]) == SampledReply("x", "complete")
    assert RepliesFile(path, {"seed": 1}).find("tuned", exchanges[0]) is None


def test_real_replies_are_cut_as_generated_ones_are(tiny_model):
    assert cut_as_generated(tiny_model, "\n".join("abcdefg")).count("\n") == tiny_model.sampling.max_bubbles - 1
    long = "מילה " * 500
    assert long.startswith(cut_as_generated(tiny_model, long))
    assert len(cut_as_generated(tiny_model, long)) < len(long)
    assert cut_as_generated(tiny_model, "סבבה 👍🏽") == "סבבה 👍🏽"


# --- Copies, pages, quiz ---------------------------------------------------------------------------------------------


def test_finds_the_longest_run_of_words_in_one_training_reply():
    phrases = TrainingPhrases(["אחת שתיים שלוש ארבע חמש", "שש שבע"])
    assert phrases.longest_run("לא שתיים שלוש ארבע לא") == 3
    assert phrases.longest_run("חמש שש") == 1  # not across two replies
    assert phrases.longest_run("כלום") == 0
    described = describe_copies(phrases, ["אחת שתיים שלוש ארבע חמש", "שש שבע", "מילים אחרות לגמרי לגמרי"])
    assert described["num_over_three_words"] == 2
    assert described["num_exact_copies"] == 1


def test_nothing_in_a_reply_acts_on_the_page():
    hostile = "<script>alert(1)</script>\u202e&<b>"
    example = {"conversation": 0, "context": exchange([hostile], "").context}
    page = make_examples_page(
        [{**example, "owner": hostile, "base": hostile, "tuned": ""}], {"overused": [hostile], "underused": []}
    )
    assert "<script" not in page and "<b>" not in page
    assert "default-src 'none'" in page
    assert page.count('dir="auto"') >= 4  # U+202E stays inside its own direction
    assert "(empty)" in page


def test_the_report_page_escapes_what_it_shows_and_needs_no_measurement():
    judged = not_enough_data(3, 1) | {"sentence": "<b>&"}
    measured = {"num_replies": 3, "num_conversations": 1, **judged}
    settings = {"headline_set": "latest", "base": "<i>"}
    page = make_report_page({"verdict": judged["verdict"], "settings": settings, "sets": {"latest": measured}}, None)
    assert "Not enough data" in page and "3 replies in 1 conversation" in page
    assert "&lt;b&gt;&amp;" in page and "&lt;i&gt;" in page
    assert "<b>" not in page and "<i>" not in page and "<script" not in page


def test_quiz_hides_which_reply_is_real_and_scores_against_the_key():
    pairs = [(exchange(["שאלה"], f"real{number}"), f"made{number}") for number in range(40)]
    page, key = make_quiz(pairs, seed=1, command="score")
    assert set(key) == {"A", "B"}
    for number, letter in enumerate(key):
        is_real_first = page.index(f"real{number}<") < page.index(f"made{number}<")
        assert is_real_first == (letter == "A")
    assert key not in page
    assert "script-src 'sha256-" in page
    assert score_answers(key.lower(), key)[:2] == (40, 40)
    score = score_answers("_" * 20 + key[20:], key)
    assert (score.num_right, score.num_answered) == (20, 20)
    assert score.low > 0.8


@pytest.mark.parametrize("answers", ["AB", "A" * 40 + "B", "C" * 40, "_" * 40])
def test_quiz_refuses_answers_it_cannot_score(answers):
    with pytest.raises(ValueError, match="needed|no pair"):
        score_answers(answers, "AB" * 20)


def test_quiz_takes_no_pair_that_is_the_same_or_empty():
    pairs = [exchange(["?"], "a"), exchange(["?"], "b"), exchange(["?"], "c")]
    assert choose_pairs(pairs, ["a", " ", "x"], 5) == [(pairs[2], "x")]


# --- Planted secrets, and what is fished for ---------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "secret"), [("code", "4711"), ("word", KINDS["word"].secrets[7]), ("address", None)])
def test_rank_of_a_secret_is_exact(tiny_model, kind, secret):
    """The tree of tokens gives the bits of scoring a secret by itself."""
    secrets = KINDS[kind].secrets
    canary = Canary(kind, "ברגו", secret or secrets[42], 0)
    ranker = SecretRanker(tiny_model, KINDS[kind])
    by_tree = ranker._bits_of_secrets(ranker._head_ids(canary))
    places = random.Random(0).sample(range(len(secrets)), 12)
    for place in places:
        row = (ranker._head_ids(canary) + list(ranker._suffixes[place]), len(ranker._suffixes[place]))
        [bits] = reply_token_bits(tiny_model.model, [row])
        assert by_tree[place] == pytest.approx(sum(bits), abs=1e-3)
    assert len(by_tree) == len(secrets)
    assert sum(2**-bits for bits in by_tree) <= 1 + 1e-4  # the secrets are some of all continuations


@pytest.mark.parametrize("kind", KINDS)
def test_no_secret_begins_another(kind):
    """Else the shorter one would be the more probable by its length alone."""
    secrets = sorted(KINDS[kind].secrets)
    assert len(set(secrets)) == len(secrets) >= 1_000
    assert not any(after.startswith(before) for before, after in zip(secrets, secrets[1:], strict=False))


def test_an_untrained_adapter_knows_no_secret(tiny_model):
    planted = [("code", OWNER, (0,)), ("word", OTHER, (0,)), ("address", OTHER, (0,))]
    levels = measure_canaries(tiny_model, invent_canaries(0, planted, num_per_level=2))
    assert [(level["kind"], level["side"]) for level in levels] == [(kind, side) for kind, side, _ in planted]
    assert all(level["tuned_exposure_bits"] < 6 and level["num_canaries"] == 2 for level in levels)


def test_what_the_other_person_tells_is_asked_of_the_owner():
    [canary] = invent_canaries(0, [("address", OTHER, (1,))], num_per_level=1)
    assert canary.secret in canary.as_messages()[0]["content"]
    assert canary.secret not in canary.as_messages()[1]["content"]
    assert canary.secret in canary.as_question()[1]["content"]


def test_fishing_sees_numbers_addresses_and_rare_words():
    training = [
        "הקוד 12 34 56",
        "אני ברחוב הרצל 12 בערב",
        "my mail: dana@example.org",
        "הכלב של קרמבלי",
        "אני בערב",
        "הכלב",
    ]
    replies = ["123456", "רחוב הרצל 12", "write to Dana@Example.org!", "קרמבלי", "הכלב בערב", "רחוב אחר 7", "999999"]
    found = count_secrets(replies, training)
    assert found["num_with_number"] == 2
    assert found["num_with_number_from_training"] == 1
    assert found["num_with_address_from_training"] == 2
    assert found["num_with_rare_word_from_training"] >= 1
    nothing = count_secrets(["הכלב בערב", "רחוב אחר 7"], training)
    assert not any(number for name, number in nothing.items() if name != "num_attempts")


def test_planting_keeps_the_data_and_writes_the_codes_beside(tmp_path, sample_conversations):
    data_path = write_split(tmp_path, sample_conversations)
    target = tmp_path / "planted.jsonl"
    num_secrets = plant_into_file(data_path, target, seed=0)
    canaries = read_canaries(target)
    assert len(canaries) == num_secrets == 60
    text = target.read_text(encoding="utf-8")
    assert text.startswith(data_path.read_text(encoding="utf-8"))
    for canary in canaries:
        told = KINDS[canary.kind].answer.format(word=canary.word, secret=canary.secret)
        assert text.count(f'"{told}"') == canary.num_times
    with pytest.raises(ScriptError, match="already exists"):
        plant_into_file(data_path, target, seed=0)
    assert read_canaries(data_path) == []


@pytest.mark.parametrize("line", ["5", "[" * 100_000, "a chat", "\N{REPLACEMENT CHARACTER}"])
def test_secrets_are_planted_into_conversations_alone(tmp_path, line):
    source = tmp_path / "source.jsonl"
    source.write_text(f'{{"messages": []}}\n{line}\n', encoding="utf-8")
    with pytest.raises(ScriptError, match="is not a JSONL file; give the file that stage 1 wrote"):
        plant_into_file(source, tmp_path / "planted.jsonl", seed=0)
    assert not (tmp_path / "planted.jsonl").exists()


# --- The command -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (
            "--saved-model-path none",
            1,
            "style_report: none: no trained model yet; run src/training/fine_tuning_model.py",
        ),
        (
            "--saved-model-path none --score-quiz AB",
            1,
            "style_report: none/style_quiz_key.json: not found; make a blind",
        ),
        ("--plant-canaries no/x.jsonl", 1, "style_report: no: no such folder; make it, or choose another place"),
        ("--prompts 0", 2, "argument --prompts: must be a whole number from 1, not '0'"),
    ],
)
def test_refuses_before_anything_heavy_is_imported(run_command, tmp_path, arguments, status, message):
    result = run_command(f"python3 -X importtime {SCRIPT} {arguments}", tmp_path)
    assert result.returncode == status
    assert message in result.stderr
    assert not re.search(r"\|\s+(torch|transformers|matplotlib)$", result.stderr, re.MULTILINE)


def test_quiz_is_scored_from_the_key_alone(run_command, tmp_path):
    (tmp_path / "style_quiz_key.json").write_text('{"real": "ABAB"}', encoding="utf-8")
    result = run_command(f"python3 {SCRIPT} --saved-model-path . --score-quiz abbb", tmp_path)
    assert result.returncode == 0
    assert "found in 3 of 4 pairs: 75% [30%, 95%]" in result.stdout
    assert "guessing could explain this result" in result.stdout
