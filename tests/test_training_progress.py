"""What a run shows and leaves behind: the live line, a log without doubled steps, a picture; and the recipe's numbers."""

import contextlib
import doctest
import io
import json
import shutil

import recipes
import training_progress
from recipes import DEFAULT_RECIPE, choose_step_tokens, split_step
from training_progress import LiveLine, ProgressMeter, TrainingLog, draw_loss_curve


def test_examples_in_the_docstrings_hold():
    for module in (training_progress, recipes):
        assert doctest.testmod(module).failed == 0


def test_a_resumed_log_drops_the_steps_that_are_trained_again_and_a_cut_row(tmp_path):
    path = tmp_path / "training_log.jsonl"
    log = TrainingLog(path, first_step=0)
    for step in (1, 2, 3):
        log.add({"step": step, "loss": 1.0 / step})
    log.add({"step": 3, "held_out_loss": 0.5})
    with path.open("a") as file:
        file.write('{"step": 4, "lo')  # a kill
    resumed = TrainingLog(path, first_step=2)
    resumed.add({"step": 3, "loss": 0.25})
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert rows == resumed.rows == [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 0.5}, {"step": 3, "loss": 0.25}]


def test_a_new_run_does_not_continue_an_old_log(tmp_path):
    TrainingLog(tmp_path / "log.jsonl", 0).add({"step": 1, "loss": 1.0})
    assert TrainingLog(tmp_path / "log.jsonl", 0).rows == []


def test_the_line_tells_step_epoch_time_left_loss_speed_and_memory():
    meter = ProgressMeter(num_steps=200, first_step=100)
    meter.begin_step()
    line = meter.advance(step=150, epoch=1.5, loss=2.0, num_tokens=1000)
    assert line.startswith("[#######...] step 150/200  epoch 1.50  0:00 left  loss 2.000  ")
    assert " tokens/s  peak " in line


class Terminal(io.StringIO):
    """Standard output that takes itself for a terminal."""

    def isatty(self):
        return True


def test_at_a_terminal_a_line_never_wraps_and_is_rewritten_in_place():
    with contextlib.redirect_stdout(Terminal()) as terminal:
        LiveLine(is_shown=True).show("x" * 1000)
    assert terminal.getvalue() == "\r\x1b[K" + "x" * (shutil.get_terminal_size().columns - 1)


def test_without_a_terminal_lines_come_now_and_then_and_the_last_always(capsys):
    line = LiveLine(is_shown=True)
    for text in ("first", "second", "third"):
        line.show(text)
    line.show("last", is_last=True)
    assert capsys.readouterr().out == "first\nlast\n"


def test_other_processes_than_the_first_show_nothing(capsys):
    LiveLine(is_shown=False).show("x", is_last=True)
    assert capsys.readouterr().out == ""


def test_the_picture_is_drawn_with_and_without_held_out_replies(tmp_path):
    rows = [{"step": step, "loss": 3.0 / step} for step in range(1, 9)]
    draw_loss_curve(tmp_path / "without.png", rows, best_step=None)
    draw_loss_curve(tmp_path / "with.png", [*rows, {"step": 4, "held_out_loss": 1.0}], best_step=4)
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in tmp_path.iterdir())
    assert (tmp_path / "with.png").read_bytes() != (tmp_path / "without.png").read_bytes()


def test_little_data_gets_small_steps_and_much_data_no_larger_ones_than_useful():
    assert choose_step_tokens(DEFAULT_RECIPE, 10_000) == recipes.MIN_STEP_TOKENS
    assert choose_step_tokens(DEFAULT_RECIPE, 100_000) == 1_500
    assert choose_step_tokens(DEFAULT_RECIPE, 10_000_000) == recipes.MAX_STEP_TOKENS


def test_two_processes_read_the_same_step_as_one():
    assert split_step(4096, 2048, num_processes=1) == split_step(4096, 2048, num_processes=2) == (2048, 2)
