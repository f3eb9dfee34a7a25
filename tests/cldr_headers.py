"""The headers of every language of Unicode CLDR (from the package babel), as an oracle for the parser's tests.

A header is a short date and a time, joined as the language joins them or by a comma or a space, as Android and iPhones
frame it. Phones take the parts from the same tables.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple

from babel import Locale, localedata
from babel.dates import parse_pattern

DIGITS = {
    "arab": "٠١٢٣٤٥٦٧٨٩",
    "arabext": "۰۱۲۳۴۵۶۷۸۹",
    "deva": "०१२३४५६७८९",
    "beng": "০১২৩৪৫৬৭৮৯",
    "mymr": "၀၁၂၃၄၅၆၇၈၉",
    "tibt": "༠༡༢༣༤༥༦༧༨༩",
}
DATES = ("yMd", "yMMdd", "yyMMdd")
TIMES, TIMES_WITH_SECONDS = ("hm", "Hm"), ("hms", "Hms")


class Form(NamedTuple):
    """A form of headers: patterns of CLDR, and the locale that fills in their words."""

    locale: Locale
    date: str
    time: str
    joint: str
    frame: str

    @property
    def has_seconds(self) -> bool:
        return self.frame[0] == "["

    @property
    def hides_the_half_of_the_day(self) -> bool:
        """Tell whether it writes 6:15 for 18:15."""
        return "h" in self.time and "a" not in self.time and "H" not in self.time

    def render(self, at: datetime) -> str:
        date, time = (parse_pattern(pattern).apply(at, self.locale) for pattern in (self.date, self.time))
        text = self.frame % self.joint.replace("{1}", date).replace("{0}", time)
        digits = DIGITS.get(self.locale.default_numbering_system)
        return text.translate(str.maketrans("0123456789", digits)) if digits else text


def cldr_forms() -> Iterator[Form]:
    """Yield the forms, one of each look."""
    at = datetime(2022, 9, 30, 18, 15, 42)
    looks = set()
    for identifier in localedata.locale_identifiers():
        locale = Locale.parse(identifier)
        skeletons = locale.datetime_skeletons
        dates = [str(locale.date_formats["short"]), *(str(skeletons[name]) for name in DATES if name in skeletons)]
        times = [str(locale.time_formats["short"]), *(str(skeletons[name]) for name in TIMES if name in skeletons)]
        long_times = [str(locale.time_formats["medium"])]
        long_times += [str(skeletons[name]) for name in TIMES_WITH_SECONDS if name in skeletons]
        joints = [str(locale.datetime_formats["short"]).replace("'", ""), "{1}, {0}", "{1} {0}"]
        for joint in joints:
            for date in dates:
                for frame, its_times in (("%s - ", times), ("[%s] ", long_times)):
                    for time in its_times:
                        form = Form(locale, date, time, joint, frame)
                        look = form.render(at), form.render(at.replace(hour=9, minute=5, second=7))
                        if look not in looks:
                            looks.add(look)
                            yield form
