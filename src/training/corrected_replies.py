"""The replies that the user put right in the chat with `/better`, read and checked for the training.

Which of their tokens are learnt, and how often, is left to `training_material`.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from processes import say, warn
from recipes import CORRECTION_WEIGHT

from common.conversation_data import TrainingData, TrainingDataError, read_training_data
from common.script import ScriptError, counted, shown_path


def read_corrections(path: Path | None, skip_bad_lines: bool) -> TrainingData | None:
    """Return the corrections in `path`, and print how many; None without a path. Raises ScriptError.

    When a reply to the same messages of a chat was put right several times, only the last one counts. Openers answer no
    message: of those that begin the same conversation, the last one counts.
    """
    if path is None:
        return None
    if not path.is_file():
        raise ScriptError(f"{shown_path(path)}: no corrections; type /better in the chat, or leave out --corrections")
    try:
        corrections = read_training_data(path, skip_bad_lines=True)
    except TrainingDataError as error:
        what, _, _cure = str(error).partition("; ")  # the cure is that of the training data
        raise ScriptError(f"{shown_path(path)}: {what}; give the file that /better writes in the chat") from None
    if corrections.bad_lines:
        if not skip_bad_lines:
            raise ScriptError(
                f"{shown_path(path)}: {corrections.bad_lines[0]}; correct or remove the line, or pass --skip-bad-lines"
            )
        warn(
            f"{counted(len(corrections.bad_lines), 'bad line')} of the corrections skipped, the first: "
            f"{corrections.bad_lines[0]}"
        )
    by_place = {
        json.dumps([talk.chat, talk.messages[:-1] or talk.started_at]): talk for talk in corrections.conversations
    }
    corrections = dataclasses.replace(corrections, conversations=list(by_place.values()))
    say(
        f"Corrections: {shown_path(path)}, {counted(len(by_place), 'reply')}, "
        f"each learnt as often as {CORRECTION_WEIGHT} replies"
    )
    return corrections
