"""How often must stage 2 repeat a correction until it is learnt, and what does that cost the rest?

Twelve facts about a person of `made_up_people` stand in no chat of theirs. Each is asked for once and answered by a correction;
trainings differ in how many replies a correction counts as. Measured are the sampled replies that name the fact, to the
question of the correction and to the same question in other words; the ordinary replies that name one; and the bits per
character of the validation conversations. Prints a Markdown table.
Run:    python3 tests/benchmarks/correction_weight.py --work-dir DIR --weights 0 1 3 6 10 20
Takes:  about a minute of one processor core for each weight, and six for the base, unless one is given.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from unittest import mock

from choose_epochs import SRC_DIR, make_base, train

sys.path[:0] = [str(SRC_DIR / "chat")]

from made_up_people import write_jsonl  # noqa: E402

NUM_REPLIES = 600
FLAGS = ["--learning-rate", "1e-3", "--epochs", "8"]
NUM_SAMPLES = 8  # of each reply to a question
NUM_ORDINARY = 200  # replies in held-out conversations

# The question of the correction, the same one in other words, the better reply, and its word that tells the fact.
FACTS = (
    ("איזה אוטו יש לך?", "על מה אתה נוהג עכשיו?", "סובארו ירוקה, למה?", "סובארו"),
    ("איפה אתה גר היום?", "באיזו עיר הדירה שלך?", "עברתי לקריית ענבים, לא?", "ענבים"),
    ("איך קוראים לכלב שלך?", "מה השם של הכלב?", "גבינצ׳ו, מה חשבת?", "גבינצ׳ו"),
    ("אתה אוכל בשר?", "בשר על האש בשבת, זה בסדר?", "אני טבעוני, שכחת?", "טבעוני"),
    ("במה אתה עובד?", "מה המקצוע שלך בעצם?", "אני נגר, לא סיפרתי?", "נגר"),
    ("מתי יום ההולדת שלך?", "באיזה חודש נולדת?", "בחשוון, רשמת?", "בחשוון"),
    ("על איזה כלי אתה מנגן?", "איזה כלי נגינה למדת?", "צ׳לו, בא לך לשמוע?", "צ׳לו"),
    ("איזו קבוצה אתה אוהד?", "את מי אתה מעודד בכדורגל?", "סכנין, מה השאלה?", "סכנין"),
    ("כמה אחים יש לך?", "אתם הרבה אחים בבית?", "שבעה, לא ידעת?", "שבעה"),
    ("לאן טסתם בקיץ?", "איפה הייתם בחופשה האחרונה?", "לאיסלנד, לא שלחתי תמונות?", "לאיסלנד"),
    ("מה אתה שותה בבוקר?", "קפה או תה?", "חליטת זעתר, רוצה?", "זעתר"),
    ("איך מגיעים אליך?", "באיזה קו נוסעים לבית שלך?", "ברכבל, למה לא?", "ברכבל"),
)


def prepare(work_dir: Path, person: str) -> tuple[Path, Path]:
    """Write the data and the corrections; return both paths."""
    data_path, corrections_path = work_dir / f"{person}.jsonl", work_dir / "corrections.jsonl"
    write_jsonl(data_path, person, NUM_REPLIES, seed=0)
    rows = [
        {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": better}]}
        for asked, _, better, _ in FACTS
    ]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    corrections_path.write_text(text, encoding="utf-8")
    return data_path, corrections_path


def train_with(folder: Path, base: Path, data_path: Path, corrections_path: Path, weight: int) -> None:
    """Train with each correction counted as `weight` replies, without them for 0."""
    import training_material

    flags = [*FLAGS, *(["--corrections", str(corrections_path)] if weight else [])]
    with mock.patch.object(training_material, "CORRECTION_WEIGHT", weight):
        train(folder, base, data_path, flags, "cosine")


def measure(folder: Path, data_path: Path) -> list[str]:
    """Return the cells of one training's row."""
    import torch
    from saved_model_checks import check_saved_model
    from trained_model import load_trained_model
    from writing_style.held_out_replies import list_exchanges, read_held_out_data, take_evenly
    from writing_style.model_replies import BatchGeneration, encode_fitting, make_batches

    torch.set_num_threads(1)
    trained = load_trained_model(check_saved_model(folder), device="cpu")
    generation = BatchGeneration(trained)

    def answer(contexts: list[list[dict[str, str]]]) -> list[str]:
        prompts = [encode_fitting(trained.tokenizer, context, 1_024, True).input_ids for context in contexts]
        texts = [""] * len(prompts)
        for number, rows in enumerate(make_batches([len(prompt) for prompt in prompts])):
            drawn = generation.generate([prompts[row] for row in rows], trained.sampling, number)
            for row, reply in zip(rows, drawn, strict=True):
                texts[row] = reply.text
        return texts

    def share_told(place: int) -> float:
        facts = [fact for fact in FACTS for _ in range(NUM_SAMPLES)]
        texts = answer([[{"role": "user", "content": fact[place]}] for fact in facts])
        return sum(fact[3] in text for fact, text in zip(facts, texts, strict=True)) / len(facts)

    data = read_held_out_data(folder, data_path)
    ordinary = take_evenly(list_exchanges(data.sets["spread"]), NUM_ORDINARY)
    texts = answer([exchange.context for exchange in ordinary])
    leaked = sum(any(fact[3] in text.split() for fact in FACTS) for text in texts)
    report = json.loads((folder / "training_report.json").read_text(encoding="utf-8"))
    bits = report["validation"]["tuned"]["bits_per_char"]
    return [f"{share_told(0):.0%}", f"{share_told(1):.0%}", f"{leaked} of {len(texts)}", f"{bits:.3f}"]


def main() -> None:
    """Train and measure what is missing; print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work-dir", type=Path, required=True)
    parser.add_argument("--base-model-id", type=Path, help="default: a base made here, which knows the language")
    parser.add_argument("--person", default="Tamar")
    parser.add_argument("--weights", nargs="+", type=int, default=[0, 1, 3, 6, 10, 20])
    options = parser.parse_args()
    options.work_dir.mkdir(parents=True, exist_ok=True)
    base = options.base_model_id or options.work_dir / "knowing_base"
    if not base.exists():
        make_base(base)
    data_path, corrections_path = prepare(options.work_dir, options.person)
    columns = ("counts as", "named when asked as corrected", "asked in other words", "unasked", "bits per character")
    rows = []
    for weight in options.weights:
        folder = options.work_dir / f"{options.person}_weight{weight}"
        train_with(folder, base, data_path, corrections_path, weight)
        rows.append([str(weight), *measure(folder, data_path)])
    print("\n| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))
    for row in rows:
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
