"""The words in message headers, by language: marks of the 12-hour clock, words around the time, names of months.

Data for `header_format`. Words are written as `plain_word` leaves them. Source: Unicode CLDR 46, the languages WhatsApp
offers; single Latin letters (CLDR's narrow forms) are left out, as they mean different things in different languages.
"""

from __future__ import annotations

import functools
import unicodedata


@functools.lru_cache(maxsize=1024)  # most headers of a file have the same few words
def plain_word(text: str) -> str:
    """Return the letters of `text` in one case: without dots, commas, spaces, quotes and marks of direction.

    >>> plain_word(" P.\\u00a0M.")
    'pm'
    """
    folded = unicodedata.normalize("NFKC", text).casefold().replace("i\u0307", "i")  # Turkish capital I with a dot
    return "".join(c for c in unicodedata.normalize("NFC", folded) if unicodedata.category(c)[0] in "LM")


AM_WORDS = frozenset(
    """
    am ap fm de dop dopoldne dopoledne eparadites förmiddag manhã öö pd paradite pg prp priekšp priekšpusdienā priešpiet
    prijepodne rno sa safiya sf to vm πμ дп проб чam чпроб пријеподне преддиоб претпл преподне таңкы тң үө
    לפנהצ לפניהצהריים ص صباحا صباحًا ق قظ قبلازظهر صبح غم
    पूर्वाह्न मपू পূর্বাহ্ণ ਪੂਦੁ પૂર્વાહ્ન முற்பகல் పూర్వాహ్న ಪೂರ್ವಾಹ್ನ പൂർവ്വാഹ്നം පෙව ก่อนเที่ยง ກ່ອນທ່ຽງ နံနက် ጥዋት
    上午 午前 早上 清晨 凌晨 午夜 半夜 오전
    """.split()  # noqa: SIM905 (a list of quoted words would be twice as long)
)
PM_WORDS = frozenset(
    """
    pm ip em du odp odpoledne popoldne epasdites eftermiddag tarde ös md pasdite ptg pop pēcp pēcpusd pēcpusdienā popiet
    popodne poslijepodne ch yamma tk nm ym μμ пп слоб попл поподне түштөнкийинки тк үх чpm чслоб
    אחהצ אחרהצהריים م مساء مساءً ب بظ بعدازظهر شام غو
    अपराह्न मउ অপরাহ্ণ ਬਾਦੁ અપરાહ્ન பிற்பகல் అపరాహ్న ಅಪರಾಹ್ನ അപരാഹ്നം පව หลังเที่ยง ຫຼັງທ່ຽງ ညနေ ከሰዓት
    下午 午後 中午 傍晚 晚上 오후
    """.split()  # noqa: SIM905
)
HALF_DAY_WORDS = AM_WORDS | PM_WORDS

# Words of a 24-hour clock: `30.9.2022 klo 18.15`, `30/09/2022 às 18:15`, `18:15 ч.`
CLOCK_WORDS = frozenset("a à as às at alas alle h hrs kell kl klo klock klokka o om ora ore u uhr um v в г о ч".split())  # noqa: SIM905

_MONTH_NAMES = """
    jan january januar janvier janv gennaio gen enero ene janeiro januari янв января ocak oca ינו ינואר يناير
    feb february februar février févr febbraio febrero fevereiro fev februari фев февр февраля şubat şub פבר פברואר فبراير
    mar march märz mär mars marzo março maart mrt мар марта mart מרץ מרס مارس
    apr april avril avr aprile abril abr апр апреля nisan nis אפר אפריל أبريل
    may mai maggio mag mayo maio mei мая май mayıs מאי مايو
    jun june juni juin giugno giu junio junho июн июня haziran haz יונ יוני يونيو
    jul july juli juillet juil luglio lug julio julho июл июля temmuz tem יול יולי يوليو
    aug august août agosto ago augustus авг августа ağustos ağu אוג אוגוסט أغسطس
    sep sept september septembre settembre set septiembre setembro сен сент сентября eylül eyl ספט ספטמבר سبتمبر
    oct october oktober okt octobre ottobre ott octubre outubro out окт октября ekim eki אוק אוקטובר أكتوبر
    nov november novembre noviembre novembro нояб ноя ноября kasım kas נוב נובמבר نوفمبر
    dec december dezember dez décembre déc dicembre dic diciembre dezembro дек декабря aralık ara דצמ דצמבר ديسمبر
""".strip().splitlines()
MONTHS = {word: number for number, words in enumerate(_MONTH_NAMES, 1) for word in words.split()}
