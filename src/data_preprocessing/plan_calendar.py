"""The dated plans ahead -> a calendar file (.ics) that the usual calendar programs open.

One event each: at its hour, which lasts an hour, or the whole day where no hour is certain; the words in the description, an alarm a day before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from icalendar import Alarm, Calendar, Event

PRODUCT = "-//PersonalChatbot//chat_digest//EN"
EVENT_LENGTH = timedelta(hours=1)
ALARM_BEFORE = timedelta(days=1)
MAX_SUMMARY_CHARS = 80


def make_calendar(plans: Iterable[Mapping[str, Any]]) -> bytes:
    """Return the calendar of `plans`, as `digest_report` lists them.

    Times are those of the phone's clock, without a time zone: the export has none. The same plan has the same identity each
    time, so that a calendar that reads the file again holds it once.
    """
    calendar = Calendar()
    calendar.add("prodid", PRODUCT)
    calendar.add("version", "2.0")
    for plan in plans:
        calendar.add_component(_event(plan))
    return bytes(calendar.to_ical())


def _event(plan: Mapping[str, Any]) -> Event:
    summary = " ".join(plan["text"].split())
    if len(summary) > MAX_SUMMARY_CHARS:
        summary = summary[: MAX_SUMMARY_CHARS - 1] + "…"
    sent_at = datetime.fromisoformat(plan["sent_at"])
    event = Event()
    identity = "\0".join([plan["chat"], plan["sent_at"], plan["sender"], plan["words"], plan["date"]])
    event.add("uid", hashlib.sha256(identity.encode("utf-8")).hexdigest()[:32] + "@personalchatbot")
    event.add("dtstamp", sent_at.replace(tzinfo=UTC))
    event.add("summary", summary)
    event.add("description", f"{plan['sender']}, {sent_at:%Y-%m-%d %H:%M}, {plan['chat']}:\n{plan['text']}")
    day = date.fromisoformat(plan["date"])
    if plan["time"] is None:
        event.add("dtstart", day)
        event.add("dtend", day + timedelta(days=1))
    else:
        begins = datetime.combine(day, time.fromisoformat(plan["time"]))
        event.add("dtstart", begins)
        event.add("dtend", begins + EVENT_LENGTH)
    alarm = Alarm()
    alarm.add("action", "DISPLAY")
    alarm.add("description", summary)
    alarm.add("trigger", -ALARM_BEFORE)
    event.add_component(alarm)
    return event
