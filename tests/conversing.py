"""What a user does in a conversation, in one call."""

from turns import take_back_reply


def say(conversation, text, **callbacks):
    """Add the user's `text` and return the reply to it."""
    conversation.add(text)
    return conversation.answer(**callbacks)


def regenerate(conversation):
    """Replace the last reply by another one."""
    take_back_reply(conversation.messages)
    return conversation.answer()
