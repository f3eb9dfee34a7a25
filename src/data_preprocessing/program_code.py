"""Tell program code from what people write to each other.

A word alone never decides. There are six signals in a line: how it begins, how it ends, calls, operators, quotes and
brackets, and names as programs spell them. Two signals in one line make it code, one does not. The tests measure the share
of code that is found in several languages, and of plain sentences that are kept.
"""

from __future__ import annotations

import re

MIN_SIGNALS = 2  # in one line, for it to be a line of code
MIN_SHARE = 0.5  # of the lines of a message; with fewer, it is a message about code
MAX_LINES = 100  # further lines of a message are ignored
MAX_LINE_CHARS = 200  # and further characters of a line

# How lines of code begin, after a prompt or a closing brace. Most forms occur in several languages.
BEGINS_RE = re.compile(
    r"""\s*(?:[$>]\s|>>>\s|[\w~/-]{1,40}\$\s|\}\s?)?(?:
    (?:async\s)?def\s\w+\s?\( | lambda\s\w*:                                             # def area(width):
  | class\s\w+\s?[(:{] | class\s\w+\s(?:extends|implements)\s                            # class Dog(Animal):
  | (?:async\s)?function\b\s?\*?\w*\s?[(<] | func\s\w*\s?\( | fn\s\w+\s?[(<]             # function add(a, b) {
  | (?:public|private|protected|static|final|abstract|override|virtual|inline|extern|export|constexpr)\b
  | (?:typedef|struct|enum|interface|namespace|package|using|template)\b
  | (?:const|let|var|val|auto|int|float|double|char|bool|boolean|long|short|unsigned|string|String|void|size_t|u?int\w+)
    (?:\[\]|<[^<>]{1,30}>)?\s+[*&]?\w+\s?(?:[=;:\[({,)]|$)                               # int count = 0;
  | (?:if|while|for|switch|catch|foreach|elif|else\sif)\s?[(\[](?![a-z]+\s[a-z]+\s[a-z])  # if (x, not if (and only if
  | for\s\w+(?:,\s?\w+)*\sin\s\S                                                         # for key, value in pairs
  | (?:if|elif|while|with|except|else|try|finally|case|default|unless|for)\b[^:]*:\s*$    # except ValueError:
  | (?:else|try|finally|do|catch)\s?\{(?:$|.*[;(])                                       # else {
  | (?:if|while|for|elif)\s.{1,100};\s(?:do|then)$ | case\s\S+\sin$ | exit\s\d | \[\[?\s.{1,100}\s\]   # shell
  | return\b(?!\s(?!new|not|await)[a-z]+[;,]?\s[A-Za-z])                                 # return x; not return home now
  | (?:break|continue|pass|fi|done|esac|end)\s?;?$
  | (?:raise|throw|yield|assert|await)\s(?:new\s)?[\w.]+(?:\(|;|\s[=!]=\s|$)
  | import\s[\w.*{},\s]+(?:\sfrom\s['"]|;|$) | import\s['"(] | from\s[\w.]+\simport\s | from\s['"]
  | \#\s?(?:include|define|undef|ifdef|ifndef|endif|if|elif|else|pragma|!/)
  | (?:SELECT|INSERT\sINTO|UPDATE|DELETE\sFROM|CREATE\s(?:TABLE|INDEX|VIEW)|ALTER\sTABLE|DROP\sTABLE)\s
  | (?:WHERE|FROM|(?:LEFT\s|INNER\s)?JOIN|GROUP\sBY|ORDER\sBY|VALUES|SET|RUN|COPY|CMD|WORKDIR)\s
  | select\s.{1,100}\sfrom\s | (?:insert\sinto|delete\sfrom|create\stable|drop\stable|alter\stable)\s\w
  | Traceback\s\(most | File\s"[^"]+",\sline | at\s[\w.$<>/]+\( | Exception\sin\sthread | \w{0,40}(?:Error|Exception):\s
  | (?:sudo|apt-get|apt|pip3?|npm|npx|yarn|git|docker|kubectl|chmod|mkdir|curl|wget|scp|ssh|grep|conda|brew)\s
  | (?:ls|cd|rm|cp|mv|tar|python3?|pytest|cargo|gcc|echo)\s
  | (?:print|println|printf|sprintf|puts|require|alert)\s?[("'] | cout\s?<< | cin\s?>>
  | (?:console|System|Console|fmt|Math|document|window|os|sys|np|pd|plt|self|this|std)(?:\.|::)\w
  | </?(?!s>)[a-zA-Z][\w-]*(?:[\s/][^<]*)?> | <!(?:DOCTYPE|--) | <\?(?:xml|php)          # <div class="box">
  | @\w+(?:\.\w+)*\(                                                                     # @app.route("/")
  | [.\#]?[\w-]+(?:[\s,>:.\#]+[\w-]+){0,5}\s?\{(?:\s?[\w-]+:|$)                          # .box { color: red; }
  | [a-z]+(?:-[a-z]+)*:\s?[^;:]{1,60};                                                   # color: red;
  | [A-Za-z_][\w.]*(?:\[[^\]]{1,40}\])?\s?[-+*/:|]?=(?:\s|["'\w\[{(])                    # total += price
  | [A-Za-z_]\w*(?:(?:\.|::|->)\w+){1,5}\(                                               # names.add("Rut")
  | \w+\((?![A-Za-z']+\s[A-Za-z])(?:\)|["'\d\[{]|[^()]{0,60}[,=._(])                     # add(1, 2), not lol(not really)
  | "[\w\s.-]{1,40}"\s?:\s | [{\[]\s?["'{]                                               # {"name": "Dan"}
    )""",
    re.VERBOSE,
)
# How they end. Applied to the last four characters.
ENDS_RE = re.compile(r"(?:[\w)\]}\"'+-];|(?<!\})[{}][;,)]{0,3}|\)\s?;|;;|[(\[]|[)\]],|&&|\|\||\\)\s*$")
# name(value), but not friend(s); matrix](, ).then(, println!(, list<int>(
CALL_RE = re.compile(r"[A-Za-z_]\w*\((?!e?s\)|'s\))(?:[\w\"'\[{(&*\-.@:<]|\))|\]\(|\)\.\w+\(|\w!\(|\w<\w+>\(")
OPERATOR_RE = re.compile(
    r"""
    ==|!=|<=|&&|\|\||\+\+|--;|=>|::|<<|:=|\*\*\w | [-+*/|&]=\s | \w->\w | ->\s\w+\s?[:{]
  | [\w\])]\s?=\s?[\w"'\[({&*-] | \s[<>]\s\w | \s\|\s\w
    """,
    re.VERBOSE,
)
# Quotes and brackets as in names["x"], class="box", "key": value, ("text"), {a: 1}, </p>, ${x}, %d, [], ()
STRUCTURE_RE = re.compile(
    r"""
    \w\[[\w"':] | \w=["'{] | ["']\s?:\s | \(\s?["'] | ["']\s?[),\]] | ["']\];?$ | \{\s?["'\w][^{}]*[:;,(=][^{}]*\}
  | </(?!s>)\w | /> | \$\{ | \$\w+ | %[sd]\b | \\n | \[\] | \(\) | ^\s*[\])}]+[;,]?\s*$
    """,
    re.VERBOSE,
)
# Names as programs spell them: snake_case, camelCase, module.name(, --flag, main.py, None, /usr/, 0xff
NAME_RE = re.compile(
    r"""
    \b[a-z]+_[a-z]\w*|\b_\w+\b|\b[A-Z]+_[A-Z_]+\b | \b[a-z]{2,}[A-Z]\w*\b|\b[A-Z][a-z]+[A-Z]\w*\b
  | \b[a-z_]\w*\.[a-z_]\w*[.(\[\s=;,)] | \b(?:self|this)\b\. | \s--?[a-zA-Z][\w-]* | \w/\w+/ | \b0x[0-9a-f]+
  | \.(?:py|js|ts|java|cpp|c|h|html|css|sh|json|go|rs|rb|php)\b | \b(?:None|True|False|NULL|nullptr|undefined)\b
    """,
    re.VERBOSE,
)
INSIDE_RES = (CALL_RE, OPERATOR_RE, STRUCTURE_RE, NAME_RE)

# A message of one line without any of these is no code.
HINT_RE = re.compile(r"[(){}\[\];=<>|\"$_]|\s--?\w|&&|\w\.\w")
# Nor is one of several lines without any of these: of two signals in a line at least one contains one of them. Four
# patterns take a third of the time of one for all, because for each the engine can skip to its first characters.
SYMBOL_RE = re.compile(r"[(){}\[\];=<>|\"$_&.:+*/\\%-]")
QUOTE_RE = re.compile(r"'\s?[,)\]]")
INNER_CAPITAL_RE = re.compile(r"[A-Z](?<=[a-z][A-Z])")
CODE_WORD_RE = re.compile(r"0x|None|True|False|NULL|nullptr|undefined")
HINTS_OF_LINES = (SYMBOL_RE, QUOTE_RE, INNER_CAPITAL_RE, CODE_WORD_RE)
# Comments and bare assignments count neither for nor against.
NEUTRAL_RE = re.compile(
    r"(?:\#(?!\s?(?:include|define|undef|if|el|endif|pragma))|//|/?\*|--\s|<!--|```|\w+\s?=\s?[-\w.]+;?$)"
)
# love=pain haha, coffee=life (yes) :) Words and an equals sign alone are neutral too: code has no words side by side behind one.
PLAIN_EQUATION_RE = re.compile(
    r"""
    (?!.*(?:\w_|_\w|[a-z][A-Z]|\b(?:if|else|new|await|lambda|not|in|is)\b))
    [^\W_]+\s?=\s?[^\W_]
    (?:[\w\s,!?…'’~] | (?<![=!<>])=(?!=) | \.(?!\w) | [^\x00-\x7f] | \s[:;]-?[()DP3](?!\S) | \s\([^\W_]+(?:\s[^\W_]+){0,5}\))*
    """,
    re.VERBOSE,
)


def is_code(body: str) -> bool:
    """Tell whether `body` is program code.

    >>> is_code("for (int i = 0; i < 10; i++) {"), is_code("if you import a class from git, null is omitted")
    (True, False)
    """
    if "\n" not in body:
        if HINT_RE.search(body) is None:
            return False
    elif not any(hint.search(body) for hint in HINTS_OF_LINES):
        return False
    num_lines = num_with_a_signal = num_code = 0
    for line in body.split("\n", MAX_LINES)[:MAX_LINES]:
        line = line.strip()
        if not line or NEUTRAL_RE.match(line) or ("=" in line and PLAIN_EQUATION_RE.fullmatch(line[:MAX_LINE_CHARS])):
            continue
        num_signals = _num_signals(line[:MAX_LINE_CHARS])
        num_lines += 1
        num_with_a_signal += num_signals > 0
        num_code += num_signals >= MIN_SIGNALS
    return num_code > 0 and num_with_a_signal > MIN_SHARE * num_lines


def _num_signals(line: str) -> int:
    """Count the signals of a line; 0 when it neither begins nor ends like code, whatever stands inside.

    A sentence about code may name `main.py`, a call or an arrow.
    """
    num_signals = (BEGINS_RE.match(line) is not None) + (ENDS_RE.search(line, len(line) - 4) is not None)
    return num_signals and num_signals + sum(inside.search(line) is not None for inside in INSIDE_RES)
