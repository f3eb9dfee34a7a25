"""Days and hours in messages, beside those of the planted set (`test_digest_measured`)."""

from datetime import date, datetime, time, timedelta

import pytest
from linear_time import assert_linear
from message_dates import DatedPhrase
from message_dates import find_dates as find_dates_of
from wording import wording_of

TUESDAY = datetime(2024, 12, 10, 9, 30)


def find_dates(text, *arguments, **options):
    return find_dates_of(wording_of(text), *arguments, **options)


@pytest.mark.parametrize(("is_day_first", "day"), [(True, date(2025, 4, 3)), (False, date(2025, 3, 4))])
def test_digits_follow_the_order_of_the_file(is_day_first, day):
    assert find_dates("on 3/4", TUESDAY, is_day_first) == [DatedPhrase("on 3/4", day)]


def test_digits_that_allow_one_order_alone_need_no_file():
    expected = [DatedPhrase("on 12/24", date(2024, 12, 24))]
    assert find_dates("on 12/24", TUESDAY, is_day_first=True) == expected
    assert find_dates("on 12/24", TUESDAY, is_day_first=False) == expected


def test_a_weekday_and_a_date_that_contradict_each_other_stay_words():
    assert find_dates("יום שישי 20.12", TUESDAY) == [DatedPhrase("יום שישי 20.12", date(2024, 12, 20))]
    assert find_dates("יום שישי 21.12", TUESDAY) == [DatedPhrase("יום שישי 21.12", None)]


@pytest.mark.parametrize("weekday", range(7))
def test_a_weekday_is_the_coming_one_whatever_day_it_is_said_on(weekday):
    sent_at = TUESDAY + timedelta(days=weekday)
    (phrase,) = find_dates("on friday", sent_at)
    if sent_at.weekday() == 4:
        assert phrase.day is None
    else:
        assert phrase.day is not None
        assert (phrase.day.weekday(), 0 < (phrase.day - sent_at.date()).days < 7) == (4, True)


def test_an_hour_without_morning_or_evening_is_certain_only_when_the_other_one_is_over():
    assert find_dates("היום ב-11", datetime(2024, 12, 10, 12, 0)) == [
        DatedPhrase("היום ב-11", date(2024, 12, 10), time(23, 0))
    ]
    assert find_dates("מחר ב-11", TUESDAY) == [DatedPhrase("מחר ב-11", date(2024, 12, 11))]


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("מחר באחת עשרה בבוקר", time(11)),
        ("מחר באחת עשרה וחצי בבוקר", time(11, 30)),
        ("מחר אחת עשרה בלילה", time(23)),
        ("מחר בשתים עשרה בצהריים", time(12)),
        ("מחר חמש אחרי הצהריים", time(17)),
        ("מחר ב5 אחר הצהריים", time(17)),
    ],
)
def test_hours_and_parts_of_the_day_of_two_words(text, at):
    assert find_dates(text, TUESDAY) == [DatedPhrase(text, date(2024, 12, 11), at)]


def test_a_month_without_the_day_of_the_message_has_no_date():
    assert find_dates("in a month", datetime(2025, 1, 31, 12, 0)) == [DatedPhrase("in a month", None)]


def test_marks_and_spellings_of_quotes_and_hyphens_make_no_difference():
    for text in ("ביום ג' ב-20:00, מוצ\"ש", "ביום ג׳ ב־20:00, מוצ״ש"):
        assert [phrase.day for phrase in find_dates(text, TUESDAY + timedelta(days=1))] == [
            date(2024, 12, 17),
            date(2024, 12, 14),
        ]


def test_a_clock_that_is_thousands_of_years_wrong_does_no_harm():
    for text in ("tomorrow", "in 99 months", "on friday", "ב-15 לחודש", "in 3 weeks", "next friday"):
        find_dates(text, datetime(9990, 12, 31, 23, 0))
        assert find_dates(text, datetime.max) == []


@pytest.mark.parametrize("text", ["מחר ", "ב-8 ", "1/2/", "next ", "יום ", "in a week ", "8:30 ", "ביום שישי הייתי, "])
def test_a_text_that_repeats_itself_takes_linear_time(text):
    assert_linear(lambda length: find_dates((text * length)[: 8 * length], TUESDAY), 4_000)
