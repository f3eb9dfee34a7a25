"""From measured intervals to a verdict, with its reasons, the checks of the measurement, and warnings.

Every limit is a constant at the top of this file. Measuring and drawing are left to other modules.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from common.script import counted

NOT_ENOUGH_DATA = "not enough data"
NO_CLOSER = "no closer than the base"
CLOSER = "closer than the base"
AS_CLOSE = "as close as the owner to themselves"

# With 50 held-out replies of made-up writers, 9 of 11 habits separate base and owner; with fewer, chance decides.
MIN_REPLIES = 50
MIN_CONVERSATIONS = 8  # conversations are what is resampled
# With 200, an imitation that is right in three of four replies still differs in 7 of 11 habits; with fewer, finding no
# difference means little.
MIN_REPLIES_FOR_AS_CLOSE = 200

# The lowest position allowed between the other person (0) and the owner (1). A model trained on turns
# assigned to either person at random was at 0.66 [0.55, 0.75], one trained on the owner's turns at 1.00 [0.93, 1.07].
MIN_SIDE_OF_THE_OWNER = 0.75

# The classifier must tell the two people apart before it is applied to a model (pools of five replies).
MIN_OWNER_POOLS = 0.7
MAX_OTHER_POOLS = 0.3
SHUFFLED_LABELS_TOLERANCE = 0.02

MAX_SHARE_EMPTY = 0.02
MAX_SHARE_CUT = 0.05
MAX_SHARE_LOOPING = 0.01
MAX_EXTRA_REPEATED = 0.10
MIN_COPIES_TO_WARN = 3


def is_enough(num_replies: int, num_conversations: int) -> bool:
    """Return whether there are enough held-out replies to measure."""
    return num_replies >= MIN_REPLIES and num_conversations >= MIN_CONVERSATIONS


def reach_verdict(measured: Mapping[str, Any]) -> dict[str, Any]:
    """Return verdict, sentence, reasons, checks and warnings for one measured set."""
    reasons = _reasons(measured)
    rows = measured["habits"]
    told = [row["label"] for row in rows if row["is_measurable"] and row["is_told_from_owner"]]
    has_reply_count = measured["num_replies"] >= MIN_REPLIES_FOR_AS_CLOSE
    if not all(reason["holds"] for reason in reasons):
        verdict = NO_CLOSER
    elif has_reply_count and not told and any(row["is_measurable"] for row in rows):
        verdict = AS_CLOSE
    else:
        verdict = CLOSER
    checks = _checks(measured)
    return {
        "verdict": verdict,
        "sentence": _sentence(measured["bits"]),
        "reasons": reasons,
        "told_from_owner_by": told,
        "checks": checks,
        "is_trustworthy": all(check["holds"] for check in checks),
        "warnings": _warnings(measured),
    }


def not_enough_data(num_replies: int, num_conversations: int) -> dict[str, Any]:
    """Return the verdict, in the form of `reach_verdict`, when there is too little to measure."""
    return {
        "verdict": NOT_ENOUGH_DATA,
        "sentence": (
            f"Too few to tell: {counted(num_replies, 'held-out reply')} in {counted(num_conversations, 'conversation')}; "
            f"at least {MIN_REPLIES} in {MIN_CONVERSATIONS} are needed. A longer chat gives more."
        ),
        "reasons": [],
        "told_from_owner_by": [],
        "checks": [],
        "is_trustworthy": True,
        "warnings": [],
    }


def _reasons(measured: Mapping[str, Any]) -> list[dict[str, Any]]:
    bits, rows = measured["bits"], measured["habits"]
    num_closer = sum(row["is_closer"] for row in rows)
    num_farther = sum(row["is_farther"] for row in rows)
    num_measurable = sum(row["is_measurable"] for row in rows)
    reasons = [
        {
            "holds": bits["owner_drop"]["low"] > 0,
            "text": "it predicts the owner's replies better than the base: bits per character are lower by "
            f"{_interval(bits['owner_drop'])}",
        },
        {
            "holds": num_measurable > 0 and 2 * (num_closer - num_farther) >= num_measurable,
            "text": f"most habits are clearly closer: {num_closer} of the {num_measurable} in which base and owner differ, "
            f"minus {num_farther} clearly farther",
        },
    ]
    if "specificity" in bits:
        reasons.append(
            {
                "holds": bits["specificity"]["low"] > 0,
                "text": "it learnt this person rather than chats in general: bits per character fall by "
                f"{_interval(bits['specificity'])} more on the owner's replies than on the other person's",
            }
        )
    side = measured["side_of_the_owner"]
    if side is not None:
        reasons.append(
            {
                "holds": side["low"] > MIN_SIDE_OF_THE_OWNER,
                "text": "it writes like the owner, not like a mixture of both people: "
                f"{_interval(side)} (0 the other person, 1 the owner; the interval must lie above {MIN_SIDE_OF_THE_OWNER})",
            }
        )
    elif "other" in measured["writers"]:
        reasons.append({"holds": False, "text": "the two people write too much alike to tell whom it imitates"})
    return reasons


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
        shuffled = controls["shuffled_labels"]
        low, high = shuffled["low"] - SHUFFLED_LABELS_TOLERANCE, shuffled["high"] + SHUFFLED_LABELS_TOLERANCE
        checks.append(
            {
                "holds": low <= 0.5 <= high,
                "text": f"with shuffled labels the classifier finds nothing: area under the curve {_interval(shuffled)} "
                "(chance is 0.5)",
            }
        )
    telling = next((row for row in measured["habits"] if row["name"] == "telling_apart"), None)
    if telling is not None:
        checks.append(
            {
                "holds": telling["owner"]["low"] <= 0.5 <= telling["owner"]["high"],
                "text": "a classifier cannot separate the owner's replies from more replies of the owner: area under the "
                f"curve {_interval(telling['owner'])} (chance is 0.5)",
            }
        )
    return checks


def _warnings(measured: Mapping[str, Any]) -> list[str]:
    tuned, owner = measured["writers"]["tuned"], measured["writers"]["owner"]
    endings, copies = measured["endings"]["tuned"], measured["copies"]
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
    if tuned["share_repeated_replies"] > owner["share_repeated_replies"] + MAX_EXTRA_REPEATED:
        found.append(
            f"{tuned['share_repeated_replies']:.0%} of the replies repeat another reply (the owner's: "
            f"{owner['share_repeated_replies']:.0%})"
        )
    tuned_copies, owner_copies = (
        copies[name]["num_exact_copies"] / max(copies[name]["num_over_three_words"], 1) for name in ("tuned", "owner")
    )
    if copies["tuned"]["num_exact_copies"] >= MIN_COPIES_TO_WARN and tuned_copies > 2 * owner_copies:
        found.append(
            f"{tuned_copies:.0%} of the replies of more than three words are copies of training replies (of the "
            f"owner's held-out replies: {owner_copies:.0%}): the model may have memorized them"
        )
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


def _interval(interval: Mapping[str, float]) -> str:
    return f"{interval['value']:.2f} [{interval['low']:.2f}, {interval['high']:.2f}]"
