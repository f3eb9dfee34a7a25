"""Messages -> token ids, which of them are supervised, and where turns end; the chat template for bases without one.

The template is rendered with a placeholder for each message's text (`template_rendering`), so that text never becomes
structure: a message that contains `</s>` or a role marker stays text. Training and chat both encode here, so the prompts of the chat are those of
the training.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from typing import Any

from common.template_rendering import WORDS_MARK_RE, ChatFormatError, render_structure

# The published format as a template: roles as plain text, the base's own bos and eos, no new vocabulary.
# The `generation` tags are for other tools (TRL's assistant_only_loss).
PERSON_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}{{ '<person1>' }}"
    "{% generation %}{{ message['content'] + eos_token }}{% endgeneration %}"
    "{% else %}{{ '<person2>' + message['content'] + eos_token }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<person1>' }}{% endif %}"
)

# How a template asks for the date, and how some ask whether to think before a reply.
DATE_NAME = "strftime_now"
DATE_CALL_RE = re.compile(DATE_NAME + r"""\(\s*(?P<quote>['"])(?P<format>.*?)(?P=quote)""")
OTHER_DATE_FORMAT = "%d %b %Y"  # for a format that does not stand in the call
THINKING_NAME = "enable_thinking"
OPEN_THOUGHT_RE = re.compile(r"<think>(?!.*</think>)|\[THINK\](?!.*\[/THINK\])", re.DOTALL)

OTHER_PROMPT = "this chat template writes something else before a reply than in its prompt; choose another base model"
NUM_CHECKED_EXCHANGES = 5
EXCHANGE = ({"role": "user", "content": "a"}, {"role": "assistant", "content": "b"})  # to see what a template writes


@dataclass(frozen=True)
class EncodedConversation:
    """One conversation as the model reads it. `input_ids` and `is_supervised` have the same length."""

    input_ids: list[int]
    is_supervised: list[bool]  # True for the text of a reply and for the token that ends it
    turn_ends: list[int]  # for each message, the index just after the token that ends its turn
    num_header_ids: int = 0  # at the beginning, up to the end of the header line; 0 without one


@dataclass(frozen=True)
class _Span:
    text: str
    ids: list[int] | None = None  # if given, they replace the text (a reply as it was generated)
    is_words: bool = False  # the text of a message: special tokens in it are plain text
    is_supervised: bool = False
    ends_turn: bool = False
    ends_header: bool = False


def encode_conversation(
    tokenizer: Any,
    messages: Sequence[Mapping[str, str]],
    reply_ids: Mapping[int, Sequence[int]] | None = None,
    add_generation_prompt: bool = False,
    header: str = "",
) -> EncodedConversation:
    """Render `messages` with the tokenizer's chat template and encode them.

    `reply_ids` maps the number of a message to the ids of its text (without the token that ends the turn). They are used
    as they are: decoding and encoding again may give other ids. A `header` stands before the conversation and is never
    supervised; `turn_ends` has no entry for it. Without messages, the generation prompt is that of a reply which begins the
    conversation. Raises ChatFormatError.
    """
    if not messages and add_generation_prompt:
        return _encode_opening(tokenizer, header)
    placed = with_header(tokenizer, messages, header)
    num_added = len(placed) - len(messages)
    given_ids = {number + num_added: ids for number, ids in (reply_ids or {}).items()}
    num_header_chars = (len(header) if num_added else len(header) + 1) if header else 0
    spans = _split_into_spans(tokenizer, placed, given_ids, add_generation_prompt, num_header_chars)
    num_header_ids = 0
    input_ids: list[int] = []
    is_supervised: list[bool] = []
    turn_ends: list[int] = []
    for run in _split_into_runs(tokenizer, spans):
        for span, ids in zip(run, _encode_run(tokenizer, run, is_first=not input_ids), strict=True):
            input_ids.extend(ids)
            is_supervised.extend([span.is_supervised] * len(ids))
            if span.ends_turn:
                turn_ends.append(len(input_ids))
            if span.ends_header:
                num_header_ids = len(input_ids)
    if num_added:
        num_header_ids = turn_ends[0]  # the turn of the header and what ends it
    return EncodedConversation(input_ids, is_supervised, turn_ends[num_added:], num_header_ids)


def with_header(tokenizer: Any, messages: Sequence[Mapping[str, Any]], header: str) -> list[dict[str, Any]]:
    """Return `messages` with `header` as another program sends them: the template then renders them as they are trained.

    It is a system message where the template has one, else the first line of the user's first turn, or a turn of its own
    where the imitated person writes first. With an empty header, nothing is changed.
    """
    placed = [dict(message) for message in messages]
    if not header:
        return placed
    if has_system_turn(tokenizer):
        return [{"role": "system", "content": header}, *placed]
    if placed and placed[0]["role"] == "user":
        return [placed[0] | {"content": f"{header}\n{placed[0]['content']}"}, *placed[1:]]
    return [{"role": "user", "content": header}, *placed]


def has_system_turn(tokenizer: Any) -> bool:
    """Tell whether the chat template has a place for a system message, at the beginning and unlike any other turn."""
    return _has_system_turn(tokenizer, tokenizer.chat_template)


def _encode_opening(tokenizer: Any, header: str) -> EncodedConversation:
    """Return what stands before a reply that begins a conversation, in training, too.

    It is not rendered as a prompt: templates refuse a conversation without messages, or begin it otherwise.
    """
    encoded = encode_conversation(tokenizer, [{"role": "assistant", "content": ""}], {0: []}, header=header)
    num_ids = encoded.is_supervised.index(True)
    return EncodedConversation(encoded.input_ids[:num_ids], encoded.is_supervised[:num_ids], [], encoded.num_header_ids)


def asks_for_date(template: str) -> bool:
    """Tell whether this chat template writes the date."""
    return DATE_NAME in template


def fix_template(tokenizer: Any, day: date) -> None:
    """Fix in the chat template of `tokenizer` what else would change from day to day or from tool to tool.

    The date that the template asks for is `day`, and thinking is off: then every program that renders the saved template
    gets the ids of the training. What is fixed stands in lines before the template. Raises ChatFormatError when a
    reply cannot follow its prompt.
    """
    own_template = tokenizer.chat_template
    if not isinstance(own_template, str):
        return  # encoding refuses it
    formats = dict.fromkeys(match["format"] for match in DATE_CALL_RE.finditer(own_template))
    dates = "".join(f"{{% if format == {name!r} %}}{day.strftime(name)}{{% el" for name in formats)
    dates += f"se %}}{day.strftime(OTHER_DATE_FORMAT)}{{% endif %}}" if formats else day.strftime(OTHER_DATE_FORMAT)
    asks = asks_for_date(own_template)
    date_line = f"{{% macro {DATE_NAME}(format) %}}{dates}{{% endmacro %}}\n" if asks else ""
    # Some templates write an empty thought before the next reply but not before earlier ones, only when thinking is
    # switched off; then not to mention it is better: all replies look alike, in every program.
    choices = [f"{{% set {THINKING_NAME} = false %}}\n", ""] if THINKING_NAME in own_template else [""]
    candidates = [choice + date_line + own_template for choice in choices]
    for candidate in candidates:
        tokenizer.chat_template = candidate
        if not _find_prompt_ending(tokenizer):
            return
    tokenizer.chat_template = candidates[0]


def check_prompts(tokenizer: Any) -> None:
    """Raise ChatFormatError unless each reply of a longer conversation stands where its prompt ends."""
    messages = [*EXCHANGE] * NUM_CHECKED_EXCHANGES
    row = encode_conversation(tokenizer, messages).input_ids
    for number in range(1, len(messages), 2):
        prompt = encode_conversation(tokenizer, messages[:number], add_generation_prompt=True).input_ids
        if row[: len(prompt)] != prompt:
            raise ChatFormatError(OTHER_PROMPT)


def find_end_of_turn_id(tokenizer: Any) -> int:
    """Return the id of the special token that the template writes after a reply: generation stops there."""
    encoded = encode_conversation(tokenizer, EXCHANGE)
    return encoded.input_ids[encoded.turn_ends[-1] - 1]


def _split_into_spans(
    tokenizer: Any,
    messages: Sequence[Mapping[str, str]],
    reply_ids: Mapping[int, Sequence[int]],
    add_generation_prompt: bool,
    num_header_chars: int,
) -> list[_Span]:
    structures = _split_at_words(tokenizer, messages, add_generation_prompt)
    special_re = _special_tokens_re(tokenizer)
    if messages and messages[-1]["role"] == "assistant":
        # Some templates write a thought before the last reply, but not in its prompt: it gets the header that it has
        # when the conversation goes on.
        following = _split_at_words(tokenizer, [*messages, {"role": "user", "content": ""}], False)
        last = structures[-1]
        if special_re.search(last) is None:  # GLM: the token that opens the next turn ends the reply
            opened = special_re.search(following[len(messages)])
            last = following[len(messages)][: opened.end()] if opened else last
        structures = [*following[: len(messages)], last]
    opening, prompt_ending = _find_reply_opening(tokenizer), _find_prompt_ending(tokenizer)
    spans = [_Span(structures[0])]
    for number, structure in enumerate(structures[1:]):
        is_reply = messages[number]["role"] == "assistant"
        ending = special_re.search(structure)
        if ending is None and is_reply:
            raise ChatFormatError(
                "this chat template ends a reply without a special token, so a reply would never stop; "
                "choose another base model"
            )
        if ending is not None and is_reply and structure[: ending.start()].strip():
            raise ChatFormatError(
                "this chat template writes words of its own after each reply, which the model would write, too; "
                "choose another base model"
            )
        # A user's turn may end in plain text (`[/INST]`); then it ends after its words.
        end = ending.end() if ending else 0
        given = reply_ids.get(number)
        if is_reply and opening and spans[-1].text.endswith(opening):
            spans[-1] = _Span(spans[-1].text.removesuffix(opening))
            if given is None:  # generated ids contain it already
                spans.append(_Span(opening, is_supervised=True))
        if is_reply and prompt_ending:
            spans.append(_Span(prompt_ending))
        words = messages[number]["content"]
        if number == 0 and num_header_chars:
            spans.append(_Span(words[:num_header_chars], is_words=True, ends_header=True))
            words = words[num_header_chars:]
        spans += [
            _Span(words, list(given) if given is not None else None, True, is_reply),
            _Span(structure[:end], is_supervised=is_reply, ends_turn=True),
            _Span(structure[end:]),
        ]
    return spans


def _split_at_words(tokenizer: Any, messages: Sequence[Mapping[str, str]], add_generation_prompt: bool) -> list[str]:
    """Return what the template writes before, between and after the words of `messages`: one text more than these."""
    parts = WORDS_MARK_RE.split(render_structure(tokenizer, messages, add_generation_prompt))
    if parts[1::2] != list(map(str, range(len(messages)))):
        raise ChatFormatError("this chat template drops, repeats or rewrites messages; choose another base model")
    return parts[0::2]


@lru_cache(maxsize=8)
def _has_system_turn(tokenizer: Any, _template: str) -> bool:
    user, reply = EXCHANGE
    following = [user, reply, user]

    def structure_after(role: str, num_following: int) -> list[str] | None:
        opening = [{"role": role, "content": "c"}, *following[:num_following]]
        try:
            return _split_at_words(tokenizer, opening, True)
        except ChatFormatError:  # refused, dropped, or moved to another turn
            return None

    short, long = structure_after("system", 1), structure_after("system", len(following))
    if short is None or long is None or short[:2] != long[:2]:
        return False
    # A template that knows two roles writes any other one as the user's, or as the reply's.
    return short != structure_after("user", 1) and short != structure_after("assistant", 1)


@lru_cache(maxsize=8)  # rendered once for a tokenizer, not once for a conversation
def _find_headers(tokenizer: Any, _template: str) -> tuple[str, str]:
    """Return what stands between a user's words and a reply: in the reply's prompt, and once the conversation went on."""
    user, reply = EXCHANGE
    in_prompt = _split_at_words(tokenizer, [user], True)[-1]
    in_history = _split_at_words(tokenizer, [user, reply, user], False)[1]
    return in_prompt, in_history


def _find_reply_opening(tokenizer: Any) -> str:
    """Return the space that the template writes before a reply but not in a prompt: the model must generate it."""
    in_prompt, in_history = _find_headers(tokenizer, tokenizer.chat_template)
    opening = in_history.removeprefix(in_prompt)
    return opening if opening.isspace() else ""


def _find_prompt_ending(tokenizer: Any) -> str:
    """Return what the template writes at the end of a prompt but not before earlier replies (an empty thought).

    Every reply gets it here, in training and in the chat. Raises ChatFormatError when a reply does not go on where its
    prompt ended.
    """
    in_prompt, in_history = _find_headers(tokenizer, tokenizer.chat_template)
    if OPEN_THOUGHT_RE.search(in_prompt):
        raise ChatFormatError("this chat template makes the model think before each reply; choose another base model")
    if in_prompt.startswith(in_history):
        return in_prompt.removeprefix(in_history)
    if in_history.removeprefix(in_prompt).isspace():
        return ""  # the opening
    raise ChatFormatError(OTHER_PROMPT)


def _special_tokens_re(tokenizer: Any) -> re.Pattern[str]:
    specials = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    specials.update(tokenizer.all_special_tokens)
    if not specials:
        raise ChatFormatError("the tokenizer has no special tokens, so a reply would never stop; choose another base")
    return re.compile("|".join(re.escape(token) for token in sorted(specials, key=len, reverse=True)))


def _split_into_runs(tokenizer: Any, spans: list[_Span]) -> Iterator[list[_Span]]:
    """Yield the spans that are encoded together, split at spans with given ids or with special tokens in their words."""
    special_re = _special_tokens_re(tokenizer)
    run: list[_Span] = []
    for span in spans:
        if span.ids is None and not (span.is_words and special_re.search(span.text)):
            run.append(span)
            continue
        yield run
        yield [span]
        run = []
    yield run


def _encode_run(tokenizer: Any, run: list[_Span], is_first: bool) -> list[list[int]]:
    """Return the ids of each span of `run`; `is_first`: nothing precedes it.

    The run is encoded as one string, which gives the same ids as any other tool gets from the rendered template. It is
    split only where a token would reach from a header into a reply: a prompt ends there and must have the same ids.
    """
    if len(run) == 1 and run[0].ids is not None:
        return [run[0].ids]
    if len(run) == 1 and run[0].is_words:
        tokens = _encode_text(tokenizer, run[0].text, is_first, split_special_tokens=True)
        return [[token_id for token_id, _, _ in tokens]]
    ids_of_spans: list[list[int]] = [[] for _ in run]
    number, span_end = 0, len(run[0].text) if run else 0
    for token_id, start, end in _encode_text(tokenizer, "".join(span.text for span in run), is_first):
        while start >= span_end and number + 1 < len(run):
            number += 1
            span_end += len(run[number].text)
        if end > span_end and not run[number].is_supervised:
            reached, reached_start = number + 1, span_end
            while not run[reached].is_supervised and reached_start + len(run[reached].text) < end:
                reached_start += len(run[reached].text)
                reached += 1
            if run[reached].is_supervised:
                before = _encode_run(tokenizer, run[:reached], is_first)
                return before + _encode_run(tokenizer, run[reached:], is_first=False)
        ids_of_spans[number].append(token_id)  # a token belongs to the span where it starts
    return ids_of_spans


def _encode_text(
    tokenizer: Any, text: str, is_first: bool, split_special_tokens: bool = False
) -> list[tuple[int, int, int]]:
    """Return (id, start, end) of each token. Unless the text is first, it is encoded after a line break, which is removed.

    Many tokenizers add a space before the first word of a text.
    """
    options = {"add_special_tokens": False, "split_special_tokens": split_special_tokens}
    for prefix in ("",) if is_first else ("\n", ""):
        encoded = tokenizer(prefix + text, return_offsets_mapping=True, **options)
        prefix_ids = tokenizer(prefix, **options)["input_ids"] if prefix else []
        if encoded["input_ids"][: len(prefix_ids)] == prefix_ids:
            break  # else the line break and the text share a token
    return [
        (token_id, start - len(prefix), end - len(prefix))
        for token_id, (start, end) in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
    ][len(prefix_ids) :]
