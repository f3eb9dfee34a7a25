"""Throw made-up exports at stage 1 for as long as wanted, and say how many it took.

    python tests/fuzz_stage1.py --seconds 3600      (by hand; the suite tries a thousand inputs)

An input is an export of some header format with hostile parts, its bytes then cut, doubled or changed here and there, as
text in some encoding or in a zip. What must hold for each: the outputs are whole and their sums right, or the error is one
of stage 1's own; in time; and nothing lies outside the output folder. With atheris installed (`pip install atheris`) the
coverage of the code chooses the inputs (`--guided`); else hypothesis does, which also makes a failing input small.
"""

import argparse
import contextlib
import io
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "src/data_preprocessing"), str(ROOT / "tests")]

MAX_SECONDS = 10  # for one input: they have some hundred lines at most
NEVER_IN_DATA_RE = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufeff\ufffd\ud800-\udfff]")

HEADERS = [
    "20/03/2023, 09:0{} - ", "[20.03.2023, 09:0{}:00] ", "3/2{}/23, 9:05 PM - ", "\u200e[3/2{}/23, 9:05:00\u202fPM] ",
    "2023/3/2{}, 9:05 - ", "20.3.2{}, 9.05 - ", "09:0{} 20/03/2023 - ", "20 Mar 202{}, 09:05 - ", "2023. 3. 2{}. 오후 9:05 - ",
    "٣٠‏/٩‏/٢٠٢{}، ٦:١٥ م - ", "99/99/202{}, 99:99 - ", "0/0/000{}, 00:00 - ", "20/03/2023, 09:0{}: ", "",
]  # fmt: skip
SENDERS = [
    "Dan: ",
    "Rut: ",
    "Rut:",
    "\u202a+972 50\u20115550123\u202c: ",
    "~\u202fNoa\x1b[2J: ",
    "A: B: ",
    "Trip: \u200e",
    "",
]
BODIES = [
    "<Media omitted>", "\u200eimage omitted", "<????>", "https://a.bc/d?e=f#g", "This message was deleted", "\u2028x\u0085y",
    "</s><s>[INST]{{7*7}}<|im_end|>", "x = f(1); return x;", "call 050-123-4567 or a@b.co", "קוד 483920", "GB29 NWBK 6016 1331 9268 19",
    "\x1b]52;c;aGk=\x07", "\ud83d", "\u202eevil", "e\u0301" * 40, "👨\u200d👩\u200d👧", "1" * 400, "((((" * 99, "a.b\n" * 30,
    'Dan created group "x: y"', "POLL:\nq\nOPTION: a", "IMG-1.jpg (file attached)\nhi", "null", "location: https://maps.google.com/?q=1,2",
]  # fmt: skip
FLAGS = [
    [], [], ["--no-redaction"], ["--max-messages-per-chat", "3"], ["--day-first"], ["--month-first"], ["--encoding", "cp1255"],
    ["--since", "2023-03-21"], ["--conversation-gap-seconds", "1"], ["--show-dropped", "all"], ["--chat", "_chat"],
    ["--phone-region", "US"], ["--imitate", "+972 50-5550123"],
]  # fmt: skip
ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "cp1255", "latin-1"]


def render(lines, line_end, encoding, edits, zip_name):
    """Make the bytes of an input from what a fuzzer chose."""
    text = "".join(
        HEADERS[header].format(digit) + SENDERS[sender] + (body if isinstance(body, str) else BODIES[body]) + line_end
        for header, digit, sender, body in lines
    )
    content = text.encode(encoding, "replace" if encoding in ("cp1255", "latin-1") else "surrogatepass")
    content = edited(content, edits)
    if zip_name is None:
        return content
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zip_name, content)
        archive.writestr("photo.jpg", "\xff\xd8\xff")
    return edited(buffer.getvalue(), edits[1:])


def edited(content, edits):
    """Cut, double or overwrite some bytes of `content`."""
    for place, length, inserted in edits:
        start = place % (len(content) + 1)
        content = content[:start] + inserted + content[start + length :]
    return content


@contextlib.contextmanager
def memory_folder():
    """Give a temporary folder, in memory where there is one: flushing to a real disk would take most of the time."""
    memory_disk = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory_disk if os.access(memory_disk, os.W_OK) else None) as folder:
        yield Path(folder)


class Fuzz:
    """Gives inputs to stage 1, checks what comes out, and counts."""

    def __init__(self, folder: Path) -> None:
        self.num_inputs = self.num_converted = 0
        self.slowest_seconds = 0.0
        self._folder = folder

    def try_input(self, content: bytes, more_flags: Sequence[str] = ()) -> None:
        """Raise AssertionError, or whatever stage 1 raised, unless all is well with `content` under these flags."""
        import load_whatsapp

        from common.script import ScriptError

        self.num_inputs += 1
        export, out = self._folder / "chat.bin", self._folder / "out"
        export.write_bytes(content)
        shutil.rmtree(out, ignore_errors=True)
        flags = ["--imitate", "Rut", "--path-to-data", str(out / "data.jsonl")]
        shown = io.StringIO()
        started_at = time.process_time()
        signal.alarm(6 * MAX_SECONDS)  # an input that hangs ends the fuzz, and shows where
        try:
            with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(shown):
                load_whatsapp.main([str(export), *flags, *more_flags])
        except ScriptError as error:
            shown.write(str(error))
            assert re.match(r".+?: .+; .+", str(error).split("\n")[0]), error
            assert not out.exists() or not any(out.iterdir())
        else:
            self.num_converted += 1
            check_outputs(out)
        finally:
            signal.alarm(0)
        seconds = time.process_time() - started_at
        self.slowest_seconds = max(self.slowest_seconds, seconds)
        assert seconds < MAX_SECONDS
        assert not {"\x1b", "\x9b", "\u202e"} & set(shown.getvalue())
        assert export.read_bytes() == content
        assert {path.name for path in self._folder.iterdir()} <= {"chat.bin", "out"}


def check_outputs(out: Path) -> None:
    """Assert that the three files are whole and agree with each other."""
    text = (out / "data.jsonl").read_text(encoding="utf-8")
    assert not NEVER_IN_DATA_RE.search(text)
    conversations = [json.loads(line) for line in text.split("\n")[:-1]]
    for conversation in conversations:
        roles = [turn["role"] for turn in conversation["messages"]]
        assert roles[-1] == "assistant" and all(one != other for one, other in zip(roles, roles[1:], strict=False))
        assert all(turn["content"].strip() for turn in conversation["messages"])
    report = json.loads((out / "preprocessing_report.json").read_text(encoding="utf-8"))
    numbers = report["messages"]
    dropped = (out / "dropped_messages.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
    assert all(json.loads(line)["reason"] in numbers["dropped"] for line in dropped)
    assert numbers["parsed"] == numbers["kept"] + len(dropped) == report["exports"][0]["num_messages"]
    assert report["conversations"]["num_conversations"] == len(conversations) > 0


def fuzz_with_hypothesis(fuzz: Fuzz, is_over: Callable[[], bool], seed: int) -> None:
    """Try inputs until it is over; the same ones for the same seed."""
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import seed as with_seed
    from hypothesis import strategies as st

    body = st.integers(0, len(BODIES) - 1) | st.text(max_size=40)
    sender = st.sampled_from([0, 1, 0, 1, *range(len(SENDERS))])
    # Mostly one header in a file and two people, as in real ones; else nearly every input is refused at the door.
    lines = st.sampled_from(range(len(HEADERS))).flatmap(
        lambda usual: st.lists(
            st.tuples(st.sampled_from([*[usual] * 40, *range(len(HEADERS))]), st.integers(0, 9), sender, body),
            min_size=2,
            max_size=40,
        )
    )
    edits = st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 50), st.binary(max_size=8)), max_size=3)
    zip_names = st.sampled_from([None, None, None, "_chat.txt", "../../x.txt", "a/צ'אט WhatsApp.txt"])
    no_edits = st.just([])
    made = st.builds(
        render, lines, st.sampled_from(["\n", "\n", "\n", "\r\n", "\r", "\n\n"]), st.sampled_from(ENCODINGS[:2] * 8 + ENCODINGS), st.one_of(no_edits, no_edits, edits), zip_names
    )  # fmt: skip
    while not is_over():

        @with_seed(seed)
        @settings(
            max_examples=200,
            deadline=None,
            database=None,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        )
        @given(st.one_of(made, made, made, made, st.binary(max_size=300)), st.sampled_from(FLAGS))
        def batch(content: bytes, more_flags: list[str]) -> None:
            if not is_over():
                fuzz.try_input(content, more_flags)

        batch()
        seed += 1


def fuzz_guided(fuzz: Fuzz, seconds: float, seed: int) -> None:
    """Let libFuzzer choose: an input that reaches new code is kept and changed further. It counts itself, and exits."""
    import atheris

    with atheris.instrument_imports(include=[path.stem for path in (ROOT / "src/data_preprocessing").glob("*.py")]):
        import conversations  # noqa: E401, F401
        import load_whatsapp  # noqa: F401

    def try_bytes(data: bytes) -> None:
        chosen = atheris.FuzzedDataProvider(data)
        kind = chosen.ConsumeIntInRange(0, 3)
        if kind == 0:
            fuzz.try_input(chosen.ConsumeBytes(2_000))
            return
        flags = FLAGS[chosen.ConsumeIntInRange(0, len(FLAGS) - 1)]
        usual = chosen.ConsumeIntInRange(0, len(HEADERS) - 1)
        lines = []
        while chosen.remaining_bytes() > 12 and len(lines) < 40:
            header = usual if chosen.ConsumeIntInRange(0, 3) else chosen.ConsumeIntInRange(0, len(HEADERS) - 1)
            body = chosen.ConsumeIntInRange(0, 2 * len(BODIES))
            text = chosen.ConsumeUnicode(20) if body >= len(BODIES) else body
            lines.append((header, chosen.ConsumeIntInRange(0, 9), chosen.ConsumeIntInRange(0, len(SENDERS) - 1), text))
        edits = (
            [(chosen.ConsumeIntInRange(0, 9999), chosen.ConsumeIntInRange(0, 9), chosen.ConsumeBytes(3))]
            if kind == 2
            else []
        )
        fuzz.try_input(render(lines, "\n", ENCODINGS[0], edits, "_chat.txt" if kind == 3 else None), flags)

    atheris.Setup(
        [
            sys.argv[0],
            f"-max_total_time={seconds:.0f}",
            f"-seed={seed}",
            "-max_len=2000",
            "-len_control=0",
            "-rss_limit_mb=4000",
        ],
        try_bytes,
    )
    atheris.Fuzz()


def main() -> None:
    """Fuzz and print the count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--guided", action="store_true", help="by coverage, with atheris")
    options = parser.parse_args()
    with memory_folder() as folder:
        fuzz = Fuzz(folder)
        try:
            if options.guided:
                fuzz_guided(fuzz, options.seconds, options.seed)
            else:
                end = time.monotonic() + options.seconds
                fuzz_with_hypothesis(fuzz, lambda: time.monotonic() >= end, options.seed)
        finally:
            print(
                f"{fuzz.num_inputs:,} inputs tried, {fuzz.num_converted:,} converted and the others refused, "
                f"the slowest took {fuzz.slowest_seconds:.2f} s"
            )


if __name__ == "__main__":
    main()
