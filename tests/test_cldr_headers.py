"""The headers of all languages of Unicode CLDR are read, or refused in words: no crash, and no time silently wrong."""

from collections import Counter
from datetime import datetime

import pytest
from cldr_headers import cldr_forms
from whatsapp_export import ExportError, parse_export

TIMES = [
    datetime(2022, 9, 30, 18, 15, 42),
    datetime(2022, 9, 30, 23, 59, 9),
    datetime(2022, 10, 1, 0, 5, 3),
    datetime(2022, 10, 2, 9, 5, 7),
    datetime(2022, 10, 13, 12, 30, 0),
    *(
        datetime(2022, 11, day, hour, minute + day, second)
        for day in range(13, 22)
        for hour, minute, second in ((0, 30, 1), (1, 1, 1), (12, 11, 30), (14, 0, 59), (21, 12, 7))
    ),
]
NUM_TIMES = 20  # enough where the half of the day is written
MAX_REFUSED_SHARE = 0.02  # Dzongkha, Ewe and others that no phone offers: numbers or words where no language has them


@pytest.mark.slow
def test_every_form_is_read_or_refused(tmp_path):
    path = tmp_path / "chat.txt"
    outcomes = Counter()
    for form in cldr_forms():
        times = TIMES if form.hides_the_half_of_the_day else TIMES[:NUM_TIMES]
        path.write_text("".join(f"{form.render(at)}Rut: m{number}\n" for number, at in enumerate(times)), "utf-8")
        expected = [
            (at if form.has_seconds else at.replace(second=0), "Rut", f"m{number}") for number, at in enumerate(times)
        ]
        try:
            export = parse_export(path)
            is_right = list(export) == expected
        except ExportError as error:
            assert "; " in str(error)
            outcomes["refused"] += 1
            continue
        outcomes["read"] += 1
        if form.hides_the_half_of_the_day:
            assert any("12-hour clock" in warning for warning in export.warnings)
        else:
            assert is_right, form
    assert outcomes["refused"] <= MAX_REFUSED_SHARE * outcomes.total()
    assert outcomes.total() > 2_000
