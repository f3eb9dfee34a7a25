"""Every header format phones write, as templates: one chat can be rendered in each of them. Used by the parser's tests."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

ARABIC, PERSIAN, DEVANAGARI, BENGALI = "٠١٢٣٤٥٦٧٨٩", "۰۱۲۳۴۵۶۷۸۹", "०१२३४५६७८९", "০১২৩৪৫৬৭৮৯"


class Family(NamedTuple):
    """A header format: fields d dd m mm yy yyyy thai name, H HH h hh MM SS, half (the word for the half of the day)."""

    template: str
    half_days: tuple[str, str] = ("AM", "PM")
    digits: str = "0123456789"

    def render(self, at: datetime) -> str:
        fields = {
            "d": at.day,
            "dd": f"{at.day:02}",
            "m": at.month,
            "mm": f"{at.month:02}",
            "yy": f"{at.year % 100:02}",
            "yyyy": at.year,
            "thai": at.year + 543,
            "name": "JanFebMarAprMayJunJulAugSepOctNovDec"[at.month * 3 - 3 : at.month * 3],
            "H": at.hour,
            "HH": f"{at.hour:02}",
            "h": at.hour % 12 or 12,
            "hh": f"{at.hour % 12 or 12:02}",
            "MM": f"{at.minute:02}",
            "SS": f"{at.second:02}",
            "half": self.half_days[at.hour >= 12],
        }
        native = {
            name: str(value).translate(str.maketrans("0123456789", self.digits)) for name, value in fields.items()
        }
        return self.template.format(**native)

    @property
    def has_seconds(self) -> bool:
        return "SS" in self.template


LATIN = ("a.m.", "p.m.")
SPACED = ("a.\N{NO-BREAK SPACE}m.", "p.\N{NO-BREAK SPACE}m.")
NARROW = "\N{NARROW NO-BREAK SPACE}"
RLM = "\N{RIGHT-TO-LEFT MARK}"
KOREAN, CHINESE, JAPANESE = ("오전", "오후"), ("上午", "下午"), ("午前", "午後")

FAMILIES = {
    # Android
    "en-US": Family("{m}/{d}/{yy}, {h}:{MM} {half} - "),
    "en-US 2023": Family("{m}/{d}/{yy}, {h}:{MM}" + NARROW + "{half} - "),
    "en-US 24 h": Family("{m}/{d}/{yy}, {HH}:{MM} - "),
    "en-GB": Family("{dd}/{mm}/{yyyy}, {HH}:{MM} - "),
    "en-GB no comma": Family("{dd}/{mm}/{yyyy} {HH}:{MM} - "),
    "en-IN": Family("{dd}/{mm}/{yy}, {h}:{MM}" + NARROW + "{half} - ", ("am", "pm")),
    "en-CA": Family("{yyyy}-{mm}-{dd}, {h}:{MM} {half} - ", LATIN),
    "en-ZA": Family("{yyyy}/{mm}/{dd}, {h}:{MM} {half} - ", ("am", "pm")),
    "en-AU": Family("{d}/{m}/{yyyy}, {h}:{MM} {half} - ", ("am", "pm")),
    "he": Family("{d}.{m}.{yyyy}, {HH}:{MM} - "),
    "he unpadded hour": Family("{d}.{m}.{yyyy}, {H}:{MM} - "),
    "he 12 h": Family("{d}.{m}.{yyyy}, {h}:{MM} {half} - ", ("לפנה״צ", "אחה״צ")),
    "ar": Family(f"{{d}}{RLM}/{{m}}{RLM}/{{yyyy}}، {{h}}:{{MM}} {{half}} - ", ("ص", "م"), ARABIC),
    "fa": Family("{yyyy}/{m}/{d}، {H}:{MM} - ", digits=PERSIAN),
    "de": Family("{dd}.{mm}.{yy}, {HH}:{MM} - "),
    "es-ES": Family("{d}/{m}/{yy}, {HH}:{MM} - "),
    "es-ES old": Family("{d}/{m}/{yy} {HH}:{MM} - "),
    "es-MX": Family("{d}/{m}/{yyyy}, {h}:{MM} {half} - ", SPACED),
    "pt-BR": Family("{dd}/{mm}/{yyyy} às {HH}:{MM} - "),
    "fr": Family("{dd}/{mm}/{yyyy} à {HH}:{MM} - "),
    "fr-CA": Family("{yyyy}-{mm}-{dd} {HH} h {MM} - "),
    "nl": Family("{dd}-{mm}-{yyyy} {HH}:{MM} - "),
    "tr": Family("{dd}.{mm}.{yyyy} {HH}:{MM} - "),
    "tr 12 h": Family("{dd}.{mm}.{yyyy} {half} {h}:{MM} - ", ("ÖÖ", "ÖS")),
    "fi": Family("{d}.{m}.{yyyy} klo {H}.{MM} - "),
    "da": Family("{dd}.{mm}.{yyyy} {HH}.{MM} - "),
    "id": Family("{dd}/{mm}/{yy} {HH}.{MM} - "),
    "sv kl.": Family("{yyyy}-{mm}-{dd} kl. {HH}:{MM} - "),
    "bg": Family("{dd}.{mm}.{yyyy} г., {H}:{MM} ч. - "),
    "ko": Family("{yyyy}. {m}. {d}. {half} {h}:{MM} - ", KOREAN),
    "ko short": Family("{yy}. {m}. {d}. {half} {h}:{MM} - ", KOREAN),
    "ja": Family("{yyyy}/{mm}/{dd} {H}:{MM} - "),
    "ja 12 h": Family("{yyyy}/{mm}/{dd} {half}{h}:{MM} - ", JAPANESE),
    "zh-CN": Family("{yyyy}/{m}/{d} {half}{h}:{MM} - ", CHINESE),
    "zh-HK": Family("{d}/{m}/{yyyy} {half}{h}:{MM} - ", CHINESE),
    "mr": Family("{d}/{m}/{yy}, {h}:{MM} {half} - ", digits=DEVANAGARI),
    "bn": Family("{d}/{m}/{yy}, {h}:{MM} {half} - ", digits=BENGALI),
    "vi": Family("{HH}:{MM} {dd}/{mm}/{yyyy} - "),
    "el": Family("{d}/{m}/{yy}, {h}:{MM} {half} - ", ("π.μ.", "μ.μ.")),
    "ms": Family("{d}/{mm}/{yy}, {h}:{MM} {half} - ", ("PG", "PTG")),
    "sq": Family("{d}.{m}.{yy}, {h}:{MM} {half} - ", ("p.d.", "m.d.")),
    "hu": Family("{yyyy}. {mm}. {dd}. {H}:{MM} - "),
    "hr": Family("{dd}. {mm}. {yyyy}. {HH}:{MM} - "),
    "cs": Family("{d}. {m}. {yyyy} {H}:{MM} - "),
    "th": Family("{d}/{m}/{thai} {HH}:{MM} - "),
    "en dash": Family("{dd}/{mm}/{yyyy}, {HH}:{MM} – "),
    "month name": Family("{d} {name} {yyyy}, {HH}:{MM} - "),
    "month name first": Family("{name} {d}, {yyyy}, {h}:{MM} {half} - "),
    # iOS
    "iOS en-US": Family("[{m}/{d}/{yy}, {h}:{MM}:{SS}" + NARROW + "{half}] "),
    "iOS en-GB": Family("[{dd}/{mm}/{yyyy}, {HH}:{MM}:{SS}] "),
    "iOS en-CA": Family("[{yyyy}-{mm}-{dd}, {h}:{MM}:{SS} {half}] "),
    "iOS he": Family("[{d}.{m}.{yyyy}, {H}:{MM}:{SS}] "),
    "iOS ar": Family(f"[{{d}}{RLM}/{{m}}{RLM}/{{yyyy}}، {{h}}:{{MM}}:{{SS}} {{half}}] ", ("ص", "م"), ARABIC),
    "iOS fa": Family(f"[{{yyyy}}/{{m}}/{{d}}،{RLM} {{H}}:{{MM}}:{{SS}}] ", digits=PERSIAN),
    "iOS de": Family("[{dd}.{mm}.{yy}, {HH}:{MM}:{SS}] "),
    "iOS es-MX": Family("[{dd}/{mm}/{yy} {h}:{MM}:{SS} {half}] ", SPACED),
    "iOS fr": Family("[{dd}/{mm}/{yyyy} à {HH}:{MM}:{SS}] "),
    "iOS fr-CA": Family("[{yyyy}-{mm}-{dd} {HH} h {MM} min {SS} s] "),
    "iOS fr-CA 12 h": Family("[{yyyy}-{mm}-{dd} {h} h {MM} min {SS} s {half}] ", SPACED),
    "iOS fi": Family("[{d}.{m}.{yyyy} klo {H}.{MM}.{SS}] "),
    "iOS nl": Family("[{dd}-{mm}-{yyyy} {HH}:{MM}:{SS}] "),
    "iOS bg": Family("[{dd}.{mm}.{yy} г., {H}:{MM}:{SS} ч.] "),
    "iOS ko": Family("[{yyyy}. {m}. {d}. {half} {h}:{MM}:{SS}] ", KOREAN),
    "iOS zh": Family("[{yyyy}/{m}/{d} {half}{h}:{MM}:{SS}] ", CHINESE),
    "iOS vi": Family("[{HH}:{MM}:{SS} {d}/{m}/{yyyy}] "),
    "iOS hr": Family("[{dd}. {mm}. {yyyy}. {HH}:{MM}:{SS}] "),
    "iOS no seconds": Family("[{dd}/{mm}/{yyyy}, {HH}:{MM}] "),
    "iOS dash": Family("[{dd}/{mm}/{yyyy}, {HH}:{MM}:{SS}] - "),
    "iOS before 2017": Family("{dd}/{mm}/{yyyy}, {HH}:{MM}:{SS}: "),
    "iOS before 2017 US": Family("{m}/{d}/{yy}, {h}:{MM}:{SS} {half}: "),
}
