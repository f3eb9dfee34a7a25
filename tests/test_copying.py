"""Copies, repeats and non-words against the owner's own rate."""

from writing_style.copying import measure_excess
from writing_style.resampling import resample
from writing_style.writing_habits import Reply, TrainingPhrases

TRAINING = [f"נפגשים מחר ליד {place} בערב" for place in ("הים", "הבית", "השוק", "הגן", "הדואר", "הכיכר")]


def as_replies(texts):
    return [Reply(number // 2, text) for number, text in enumerate(texts)]


def excess_of(owner, tuned, base=("מהבסיס",)):
    writers = {"owner": as_replies(owner), "tuned": as_replies(tuned), "base": as_replies(list(base) * len(owner))}
    resamples = resample((reply.conversation for reply in writers["owner"]), seed=0)
    rows = measure_excess(writers, TrainingPhrases(TRAINING), TRAINING, resamples)
    return {row["name"]: row for row in rows}


def different(num_replies):
    words = [word for text in TRAINING for word in text.split()]
    return [f"{words[number % 30]} {words[(number * 7 + number // 30) % 30]} {number}" for number in range(num_replies)]


def test_what_the_owner_does_as_often_is_no_excess():
    texts = TRAINING * 5
    rows = excess_of(texts, texts)
    assert all(row["excess"]["low"] == row["excess"]["high"] == 0 for row in rows.values())
    assert rows["copies"]["owner"]["value"] == rows["repeats"]["owner"]["value"] == 1


def test_copies_count_only_above_three_words():
    rows = excess_of(different(20), ["נפגשים מחר"] * 10 + TRAINING[:5] * 2)
    assert rows["copies"]["tuned"]["value"] == 1  # of the ten that are long enough
    assert rows["copies"]["excess"]["low"] == 1
    assert excess_of(different(20), ["נפגשים מחר"] * 20)["copies"]["tuned"]["value"] == 0


def test_a_reply_written_twice_is_a_repeat_each_time():
    rows = excess_of(different(20), ["😂"] * 10 + different(10))
    assert rows["repeats"]["tuned"]["value"] == 0.5
    assert rows["repeats"]["owner"]["value"] == 0


def test_words_of_the_base_are_words():
    assert excess_of(["מחר"] * 20, ["מהבסיס"] * 20)["non_words"]["tuned"]["value"] == 0
    rows = excess_of(["מחר"] * 20, ["מחרבל מחר"] * 20)
    assert rows["non_words"]["tuned"]["value"] == 0.5
    assert rows["non_words"]["excess"]["low"] > 0.4
