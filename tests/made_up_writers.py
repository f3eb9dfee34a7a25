"""Three invented writers on the same topics, each with a style, and imitations of any quality.

The owner writes short bursts, laughs and uses little punctuation; the friend writes whole sentences, the assistant long
formal ones.
"""

import random

from writing_style.writing_habits import Reply

TOPICS = "אני הולך לים מחר אולי בערב נראה עבודה אוכל פיצה שבת סרט כדורגל בית אמא לבוא רוצה צריך יודע מתי איפה טוב"
TOPIC_WORDS = TOPICS.split()
REPLIES_PER_CONVERSATION = 5


def write_as_owner(rng):
    messages = []
    for _ in range(rng.choice([1, 1, 2, 2, 3])):
        text = " ".join(rng.choices(TOPIC_WORDS + ["אחי", "יאללה", "סבבה"] * 3, k=rng.randint(1, 5)))
        if rng.random() < 0.35:
            text += " " + "ח" * rng.choice([3, 3, 4, 5])
        if rng.random() < 0.3:
            text += " " + rng.choice("😂😂🔥🙏")
        if rng.random() < 0.2:
            text += " ok"
        if rng.random() < 0.1:
            text += "!!"
        messages.append(text)
    return "\n".join(messages)


def write_as_friend(rng):
    text = " ".join(rng.choices(TOPIC_WORDS + ["מותק", "בכיף", "נשמה"] * 3, k=rng.randint(3, 9)))
    if rng.random() < 0.3:
        text += " " + rng.choice("😍🌸")
    if rng.random() < 0.2:
        text += " haha"
    return text + rng.choice([".", "!", "?", "..."])


def write_as_assistant(rng):
    return " ".join(rng.choices(TOPIC_WORDS + ["בהחלט", "ברצוני", "לסייע"] * 2, k=rng.randint(10, 25))) + "."


def make_writers(num_replies, seed, dose=1.0, imitated=write_as_owner, otherwise=write_as_assistant):
    """Return replies of owner, base (the assistant), other (the friend) and tuned.

    Tuned writes like `imitated` in a share `dose` of its replies, and like `otherwise` in the rest.
    """
    rng = random.Random(seed)
    writers = {"owner": [], "base": [], "other": [], "tuned": []}
    for number in range(num_replies):
        conversation = number // REPLIES_PER_CONVERSATION
        writers["owner"].append(Reply(conversation, write_as_owner(rng)))
        writers["base"].append(Reply(conversation, write_as_assistant(rng)))
        writers["other"].append(Reply(conversation, write_as_friend(rng)))
        writers["tuned"].append(Reply(conversation, (imitated if rng.random() < dose else otherwise)(rng)))
    return writers
