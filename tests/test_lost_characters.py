"""What a base's tokenizer cannot give back is said before training, with the number, and refused where it is much."""

import pytest
from lost_characters import find_lost_characters, warn_of_lost_characters
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from common.conversation_data import Conversation
from common.script import ScriptError

LETTERS = "abcdefghijklmnopqrstuvwxyz אבגדהוזחטיכלמנסעפצקרשתםןץףך"
TEXT = "Shalom שלום ok"


def make_tokenizer(normalizer=None, pre_tokenizer=None):
    """A tokenizer of single letters, small ones only, which writes nothing for any other character."""
    vocab = {token: number for number, token in enumerate(["<unk>", "</s>", *LETTERS, "S", "é", "\n", "\u05b8", "▁"])}
    backend = Tokenizer(models.BPE(vocab=vocab, merges=[], unk_token="<unk>"))
    backend.decoder = decoders.Fuse()
    backend.normalizer = normalizer
    backend.pre_tokenizer = pre_tokenizer
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", eos_token="</s>")


def conversation(reply):
    return Conversation(0, [{"role": "user", "content": "👽"}, {"role": "assistant", "content": reply}], "")


@pytest.mark.parametrize(
    ("normalizer", "text", "lost"),
    [
        (None, TEXT, []),
        (None, "ok 😂\nyalla 😂", ["😂"]),
        (normalizers.Lowercase(), TEXT, ["S"]),
        (normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()]), "caféà שָלום", ["é", "à", "\u05b8"]),
        (normalizers.Replace("\n", " "), "ok\nok", ["\n"]),
        (normalizers.Strip(), "ok\nok", []),
        (normalizers.NFKC(), "ｏｋ é", []),
    ],
)
def test_each_character_that_does_not_come_back_is_found(normalizer, text, lost):
    assert find_lost_characters(make_tokenizer(normalizer), [text]) == lost


def test_no_character_is_lost_by_bytes(tiny_tokenizer):
    text = "שָׁלוֹם 👨\u200d👩\u200d👧 naïve ½ …\n\tØ"
    assert find_lost_characters(tiny_tokenizer, [text]) == []


def test_blanks_that_a_tokenizer_joins_are_no_loss():
    assert find_lost_characters(make_tokenizer(pre_tokenizer=pre_tokenizers.Whitespace()), ["ok  ok\tok"]) == []


def test_what_is_lost_in_the_replies_is_told_with_its_number(capsys):
    warn_of_lost_characters(make_tokenizer(), [conversation("ok yalla 😂😂\nשלום"), conversation("ok")], "mine")
    warning = capsys.readouterr().err
    assert "mine: its tokenizer loses or changes 1 character of the replies (😂), in all 2 of 16;" in warning
    assert warning.count("\n") == 1


def test_nothing_is_said_where_nothing_is_lost(capsys):
    warn_of_lost_characters(make_tokenizer(), [conversation(TEXT)], "mine")
    assert capsys.readouterr().err == ""


def test_a_base_that_knows_too_little_of_the_writing_is_refused():
    with pytest.raises(
        ScriptError, match=r"^mine: .*\(П, р, и, в, е, \.\.\.\), in all 6 of 8; choose a base"
    ) as refusal:
        warn_of_lost_characters(make_tokenizer(), [conversation("Привет ok")], "mine")
    assert "\n" not in str(refusal.value)
