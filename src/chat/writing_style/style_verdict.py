"""From measured intervals to a verdict, with its reasons, the checks of the measurement, and warnings.

Each reason is a question with three answers: "yes" or "no" where the whole interval lies on one side of the limit, else
"open". One no is enough for a no; without one, an open answer leaves the verdict open. Every limit is a constant at the
top of this file. Measuring and drawing are left to other modules.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from common.script import counted

NOT_ENOUGH_DATA = "not enough data"
NO_CLOSER = "no closer than the base"
CANNOT_TELL = "cannot tell"
CLOSER = "closer than the base"
AS_CLOSE = "as close as the owner to themselves"

YES, NO, OPEN = "yes", "no", "open"

# With 50 held-out replies of made-up writers, 9 of 11 habits separate base and owner; with fewer, chance decides.
MIN_REPLIES = 50
MIN_CONVERSATIONS = 8  # conversations are what is resampled
# With 200, an imitation that is right in three of four replies still differs in 7 of 11 habits; with fewer, finding no
# difference means little.
MIN_REPLIES_FOR_AS_CLOSE = 200

# Bits per character. A gain below this is nothing, however narrow its interval: an untouched base gains 0.
MIN_GAIN_BITS = 0.02
# The lowest position of the median habit between the base (0) and the owner's second half (1).
MIN_POSITION = 0.25
# The share of what the owner's replies show of their situation: replies dealt out to other questions keep 0.
MIN_KEPT = 0.25

# The lowest position allowed between the other person (0) and the owner (1). A model trained on turns
# assigned to either person at random was at 0.66 [0.55, 0.75], one trained on the owner's turns at 1.00 [0.93, 1.07].
MIN_SIDE_OF_THE_OWNER = 0.75

# Copies, repeats and non-words beyond the owner's own share. A parrot of 30 training replies has about 1. The second limit
# is not 0, because long replies known from training are left out of the owner's: their own share is a little too low.
MAX_EXCESS = 0.25  # above it: no
MAX_EXCESS_FOR_AS_CLOSE = 0.10  # above it: no perfect imitation

# The classifier must tell the two people apart before it is applied to a model (pools of five replies).
MIN_OWNER_POOLS = 0.7
MAX_OTHER_POOLS = 0.3
CHANCE_TOLERANCE = 0.02  # of an area under the curve that should be 0.5

MAX_SHARE_EMPTY = 0.02
MAX_SHARE_CUT = 0.05
MAX_SHARE_LOOPING = 0.01
MAX_SHARE_NAMED = 0.01


def is_enough(num_replies: int, num_conversations: int) -> bool:
    """Return whether there are enough held-out replies to measure."""
    return num_replies >= MIN_REPLIES and num_conversations >= MIN_CONVERSATIONS


def reach_verdict(measured: Mapping[str, Any]) -> dict[str, Any]:
    """Return the verdict on one measured set under `verdict`, and beside it what it rests on.

    `summary` are sentences for a layperson, `sentence` the bits per character, `reasons` the questions with their
    answers, `told_from_owner_by` what still differs, `checks` those of the measurement, then `warnings`.
    """
    reasons, checks = _reasons(measured), _checks(measured)
    told = _differences(measured)
    states = [reason["state"] for reason in reasons]
    is_trustworthy = all(check["holds"] for check in checks)
    if NO in states and is_trustworthy:
        verdict = NO_CLOSER
    elif OPEN in states or not is_trustworthy:
        verdict = CANNOT_TELL
    elif measured["num_replies"] >= MIN_REPLIES_FOR_AS_CLOSE and not told:
        verdict = AS_CLOSE
    else:
        verdict = CLOSER
    return {
        "verdict": verdict,
        "summary": _summary(measured, verdict, reasons, told, is_trustworthy),
        "sentence": _sentence(measured["bits"]),
        "reasons": reasons,
        "told_from_owner_by": told,
        "checks": checks,
        "is_trustworthy": is_trustworthy,
        "warnings": _warnings(measured),
    }


def not_enough_data(num_replies: int, num_conversations: int) -> dict[str, Any]:
    """Return the verdict, in the form of `reach_verdict`, when there is too little to measure."""
    sentence = (
        f"Too few to tell: {counted(num_replies, 'held-out reply')} in {counted(num_conversations, 'conversation')}; "
        f"at least {MIN_REPLIES} in {MIN_CONVERSATIONS} are needed. A longer chat gives more."
    )
    return {
        "verdict": NOT_ENOUGH_DATA,
        "summary": [],
        "sentence": sentence,
        "reasons": [],
        "told_from_owner_by": [],
        "checks": [],
        "is_trustworthy": True,
        "warnings": [],
    }


def answer_of(interval: Mapping[str, float], yes_above: float, no_below: float) -> str:
    """Return "yes" where the whole interval is above `yes_above`, "no" where it is below `no_below`, else "open".

    >>> answer_of({"low": 0.1, "high": 0.3}, 0, 0), answer_of({"low": -0.1, "high": 0.3}, 0, 0)
    ('yes', 'open')
    """
    is_yes, is_no = interval["low"] > yes_above, interval["high"] < no_below
    if is_yes == is_no:
        return OPEN
    return YES if is_yes else NO


def _reason(name: str, state: str, text: str, needed: str, advice: str) -> dict[str, str]:
    """Return one reason: its name, its answer, what was measured, what would be a yes, and what to do about a no."""
    return {"name": name, "state": state, "text": text, "needed": needed, "advice": advice}


def _needed(interval: Mapping[str, float], yes_above: float, no_below: float) -> str:
    """Return what would be a yes, and by how much the interval misses it where it is a no."""
    if interval["high"] < no_below:
        return f"above {no_below}; the interval ends {no_below - interval['high']:.2f} below that"
    return f"the whole interval above {yes_above}"


LONGER = "train longer (--epochs), on more messages, or on a base that knows the language better"
RIGHT_PERSON = "check whom stage 1 imitated (--imitate), and that each export's names are right"


def _reasons(measured: Mapping[str, Any]) -> list[dict[str, str]]:
    bits, position = measured["bits"], measured["position"]
    num_measurable = sum(row["is_measurable"] for row in measured["habits"])
    return [
        _reason(
            "prediction",
            answer_of(bits["owner_drop"], 0, MIN_GAIN_BITS),
            "it predicts the owner's replies better than the base: bits per character are lower by "
            f"{_interval(bits['owner_drop'])}",
            _needed(bits["owner_drop"], 0, MIN_GAIN_BITS),
            LONGER,
        ),
        _reason(
            "habits",
            OPEN if position is None else answer_of(position, MIN_POSITION, MIN_POSITION),
            "base and owner differ in no measured habit"
            if position is None
            else "its habits moved from the base towards the owner: the median of "
            f"{counted(num_measurable, 'habit')} is at {_interval(position)} (0 the base, 1 the owner)",
            "a difference between the two" if position is None else _needed(position, MIN_POSITION, MIN_POSITION),
            LONGER,
        ),
        *_context_reasons(measured),
        _originality_reason(measured["excess"]),
        *_person_reasons(measured),
    ]


def _context_reasons(measured: Mapping[str, Any]) -> list[dict[str, str]]:
    bits, situations = measured["bits"], measured["situations"]
    kept, base_kept = situations["kept"], situations["base_kept"]
    state, needed = answer_of(bits["relevance"], 0, MIN_GAIN_BITS), _needed(bits["relevance"], 0, MIN_GAIN_BITS)
    gain = bits["relevance_gain"]
    if state != NO and gain["low"] <= -MIN_GAIN_BITS:
        # Replies dealt out to other questions leave some of what the base knew of the context.
        state = NO if gain["high"] < 0 else OPEN
        needed = f"no less than the base; the difference is {_interval(gain)}"
    if state == NO and kept is None and bits["base_relevance"]["low"] <= 0:
        state = OPEN  # nothing shows that these replies depend on what they answer
    advice = "check that the export is whole and in order; a base that knows the language better follows a talk better"
    reasons = [
        _reason(
            "relevance",
            state,
            "it uses what was said before: in its own context a real reply costs fewer bits per character than in others, by "
            f"{_interval(bits['relevance'])} (the base: {_interval(bits['base_relevance'])})",
            needed,
            advice,
        )
    ]
    # Where the base does not use the context either, there is no fit to keep: it is no closer, but farther neither.
    if kept is not None and (kept["low"] > 0 or base_kept["low"] > 0):
        labels = [
            row["label"] for row in measured["situations"]["rows"] if row["is_measurable"] and row["is_in_prompt"]
        ]
        reasons.append(
            _reason(
                "situation",
                answer_of(kept, 0, MIN_KEPT),
                "its replies fit what they answer, as the owner's do: they show "
                f"{_interval(kept)} of what the owner's show of their situation ({_listed(labels)})",
                _needed(kept, 0, MIN_KEPT),
                advice,
            )
        )
    return reasons


def _originality_reason(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    states = [answer_of(_negated(row["excess"]), -MAX_EXCESS, -MAX_EXCESS) for row in rows]
    worst = max(rows, key=lambda row: float(row["excess"]["low"]))
    state = NO if NO in states else OPEN if OPEN in states else YES
    return _reason(
        "own words",
        state,
        f"it has words of its own: {worst['label']} are {worst['tuned']['value']:.0%} (the owner's: "
        f"{worst['owner']['value']:.0%}), {_percent(worst['excess'])} more"
        + ("" if state != YES else "; this is the largest excess of copies, repeats and non-words"),
        f"less than {100 * MAX_EXCESS:.0f} points more"
        + (
            f"; the interval begins {100 * (worst['excess']['low'] - MAX_EXCESS):.0f} above that" if state == NO else ""
        ),
        "train for fewer epochs, or on more messages: it repeats a few replies",
    )


def _negated(interval: Mapping[str, float]) -> dict[str, float]:
    return {"value": -interval["value"], "low": -interval["high"], "high": -interval["low"]}


def _person_reasons(measured: Mapping[str, Any]) -> list[dict[str, str]]:
    if "other" not in measured["writers"]:
        return []
    bits, side = measured["bits"], measured["side_of_the_owner"]
    reasons = []
    if "specificity" in bits:
        reasons.append(
            _reason(
                "person",
                # Two people who write alike get better together: then it says nothing.
                answer_of(bits["specificity"], 0, 0) if side is not None else OPEN,
                "it learnt this person rather than chats in general: bits per character fall by "
                f"{_interval(bits['specificity'])} more on the owner's replies than on the other person's",
                _needed(bits["specificity"], 0, 0),
                RIGHT_PERSON,
            )
        )
    if side is None:
        text = "the two people write too much alike to tell whom it imitates"
        return [*reasons, _reason("side", OPEN, text, "a difference between the two", RIGHT_PERSON)]
    return [
        *reasons,
        _reason(
            "side",
            answer_of(side, MIN_SIDE_OF_THE_OWNER, MIN_SIDE_OF_THE_OWNER),
            f"it writes like the owner, not like a mixture of people: {_interval(side)} (0 the other person, 1 the owner)",
            _needed(side, MIN_SIDE_OF_THE_OWNER, MIN_SIDE_OF_THE_OWNER),
            RIGHT_PERSON,
        ),
    ]


def _differences(measured: Mapping[str, Any]) -> list[str]:
    """Return the labels of all in which the tuned model still differs clearly from the owner."""
    habits = [row["label"] for row in measured["habits"] if row["is_measurable"] and row["is_told_from_owner"]]
    # A habit that neither base nor owner has, and the tuned model brought along.
    habits += [
        row["label"]
        for row in measured["habits"]
        if not row["is_measurable"] and row["is_farther"] and row["is_told_from_owner"]
    ]
    situations = [
        f"situation: {row['label'][0].lower()}{row['label'][1:]}"
        for row in measured["situations"]["rows"]
        if row["is_told_from_owner"]
    ]
    excess = [row["label"] for row in measured["excess"] if row["excess"]["low"] > MAX_EXCESS_FOR_AS_CLOSE]
    return habits + situations + excess


def _checks(measured: Mapping[str, Any]) -> list[dict[str, Any]]:
    checks = []
    controls = measured["controls"]
    if "pools_taken_for_owner" in controls:
        pools = controls["pools_taken_for_owner"]
        checks.append(
            {
                "holds": pools["owner"] >= MIN_OWNER_POOLS and pools["other"] <= MAX_OTHER_POOLS,
                "text": f"the classifier tells the two people apart: it assigns {pools['owner']:.0%} of the owner's pools "
                f"of five replies to the owner, and {pools['other']:.0%} of the other person's",
            }
        )
    if "shuffled_labels" in controls:
        checks.append(
            {
                "holds": _is_chance(controls["shuffled_labels"]),
                "text": "with shuffled labels the classifier finds nothing: area under the curve "
                f"{_interval(controls['shuffled_labels'])} (chance is 0.5)",
            }
        )
    telling = next((row for row in measured["habits"] if row["name"] == "telling_apart"), None)
    if telling is not None:
        checks.append(
            {
                "holds": _is_chance(telling["owner"]),
                "text": "a classifier cannot separate the owner's replies from more replies of the owner: area under the "
                f"curve {_interval(telling['owner'])} (chance is 0.5)",
            }
        )
    return checks


def _is_chance(area: Mapping[str, float]) -> bool:
    return area["low"] - CHANCE_TOLERANCE <= 0.5 <= area["high"] + CHANCE_TOLERANCE


def _warnings(measured: Mapping[str, Any]) -> list[str]:
    tuned, endings = measured["writers"]["tuned"], measured["endings"]["tuned"]
    num_replies = tuned["num_replies"]
    found = []
    if tuned["share_empty"] > MAX_SHARE_EMPTY:
        found.append(f"{tuned['share_empty']:.0%} of the replies are empty")
    if endings.get("limit", 0) > MAX_SHARE_CUT * num_replies:
        found.append(f"{endings['limit'] / num_replies:.0%} of the replies were cut at the length limit")
    if endings.get("marker", 0):
        found.append(f"{counted(endings['marker'], 'reply')} continued into the other person's turn")
    num_loops = endings.get("loop", 0) + round(tuned["share_looping"] * num_replies)
    if num_loops > MAX_SHARE_LOOPING * num_replies:
        found.append(f"{counted(num_loops, 'reply')} got stuck in a loop")
    num_named = measured.get("num_with_a_members_name", 0)
    if num_named > MAX_SHARE_NAMED * num_replies:
        found.append(f"{counted(num_named, 'reply')} began with the name of a member of the group, as if they wrote it")
    kept = measured["situations"]["kept"]
    if kept is not None and kept["low"] <= 0:
        found.append(f"the replies hardly fit what they answer: they show {_interval(kept)} of what the owner's show")
    found += [
        f"{row['label']}: {row['tuned']['value']:.0%} (the owner's: {row['owner']['value']:.0%})"
        for row in measured["excess"]
        if row["excess"]["low"] > MAX_EXCESS_FOR_AS_CLOSE
    ]
    return found


def _sentence(bits: Mapping[str, Any]) -> str:
    sentence = (
        f"Bits per character of the owner's replies: {bits['owner_tuned']['value']:.2f} with the tuned model, "
        f"{bits['owner_base']['value']:.2f} with the base"
    )
    if "other_drop" in bits:
        change = bits["other_drop"]["value"]
        word = "fewer" if change >= 0 else "more"
        sentence += f"; of the other person's replies: {abs(change):.2f} {word} with the tuned model"
    return sentence + "."


def _summary(
    measured: Mapping[str, Any],
    verdict: str,
    reasons: Sequence[Mapping[str, str]],
    told: Sequence[str],
    is_trustworthy: bool,
) -> list[str]:
    """Return what was compared, what came out, how sure that is, and what to do next: one sentence or two each."""
    refused = [reason for reason in reasons if reason["state"] == NO]
    undecided = [reason for reason in reasons if reason["state"] == OPEN]
    compared = (
        f"The tuned model and the untouched base each answered {counted(measured['num_replies'], 'message')} from "
        f"{counted(measured['num_conversations'], 'conversation')} that the training never saw, and their replies were "
        "compared with what the owner really wrote there."
    )
    if verdict == AS_CLOSE:
        result = "The tuned model writes like the owner: nothing measured here tells its replies from more of theirs."
        advice = "Let people who know the owner try: --quiz makes a blind test."
    elif verdict == CLOSER:
        is_to_the_point = any(reason["name"] == "situation" for reason in reasons)
        result = "The tuned model writes more like the owner than the base does"
        result += ", and its replies fit what they answer" if is_to_the_point else ""
        result += f"; it still differs in: {_listed(told)}." if told else "."
        advice = (
            "More messages or longer training (--epochs) bring it nearer; so does a base that knows the language better."
            if told
            else f"More messages: below {MIN_REPLIES_FOR_AS_CLOSE} held-out replies, finding no difference means little."
        )
    elif verdict == NO_CLOSER:
        one = f"one of {len(reasons)} reasons" if len(refused) == 1 else f"{len(refused)} of {len(reasons)} reasons"
        result = f"The tuned model does not write like the owner. This no hangs on {one}: it is not so that " + (
            "; nor that ".join(f"{reason['text']} (needed: {reason['needed']})" for reason in refused)
        )
        result += "."
        advice = "; ".join(dict.fromkeys(reason["advice"] for reason in refused))
        advice = f"{advice[0].upper()}{advice[1:]}."
    else:
        result = "Whether the tuned model writes like the owner cannot be told"
        if not is_trustworthy:
            result += ": a check of the measurement itself failed."
            advice = "Look at the checks below; two people who write alike, or too few replies, make a check fail."
        else:
            opened = [f"{reason['text']} (needed: {reason['needed']})" for reason in undecided]
            result += ". Open is whether " + "; and whether ".join(opened) + "."
            advice = "More messages make the intervals narrower; people who know the owner can judge with --quiz."
    return [
        compared,
        result,
        "How sure: every number stands with the interval [from, to] that holds the true value in about 95 of 100 cases, "
        "and only an interval that lies wholly on one side counts as a yes or a no.",
        f"What to do next: {advice[0].lower()}{advice[1:]}",
    ]


def _interval(interval: Mapping[str, float]) -> str:
    return f"{interval['value']:.2f} [{interval['low']:.2f}, {interval['high']:.2f}]"


def _percent(interval: Mapping[str, float]) -> str:
    value, low, high = (100 * interval[key] for key in ("value", "low", "high"))
    return f"{value:.0f} [{low:.0f}, {high:.0f}] percentage points"


def _listed(labels: Sequence[str]) -> str:
    return ", ".join(f"{label[0].lower()}{label[1:]}" for label in labels)
