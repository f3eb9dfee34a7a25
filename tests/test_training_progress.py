"""What a run shows and leaves behind: the progress bar, a log without doubled steps, a picture; and the recipe's numbers."""

import contextlib
import dataclasses
import json
import os
import termios

import pytest
import recipes
from recipes import DEFAULT_RECIPE, choose_epochs, choose_step_tokens, split_step
from training_progress import ProgressBar, TrainingLog, begin_peak_of_training, draw_loss_curve, peak_memory_bytes


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


def test_a_training_on_the_processor_beside_a_gpu_shows_its_own_memory(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert begin_peak_of_training() is None
    assert peak_memory_bytes() > 2**20


def show_bar(num_steps=200, first_step=100, is_shown=True):
    """Show two steps, room for other output between them, and the end."""
    bar = ProgressBar(num_steps, first_step, is_shown)
    for step in (1, 2):
        bar.begin_step()
        bar.advance(epoch=1 + step / 10, loss=2.0, num_tokens=1000)
        bar.clear()
    bar.close()


def show_bar_at_a_terminal(num_columns):
    """What a terminal of so many columns receives of the bar."""
    reading, writing = os.openpty()
    termios.tcsetwinsize(writing, (24, num_columns))
    with open(writing, "w", encoding="utf-8") as terminal, contextlib.redirect_stdout(terminal):
        show_bar()
    shown = b""
    with contextlib.suppress(OSError):  # what a terminal gives at its end
        while part := os.read(reading, 10_000):
            shown += part
    os.close(reading)
    return shown.decode("utf-8")


def test_at_a_terminal_the_bar_is_rewritten_in_place_and_never_wraps():
    for num_columns in (200, 40):
        shown = show_bar_at_a_terminal(num_columns)
        assert shown.count("\n") == 1
        assert shown.endswith("\r\n")
        states = shown.removesuffix("\r\n").split("\r")
        assert max(map(len, states)) <= num_columns
        assert states[1].startswith("[#####.....] step 100/200, ")
        assert states[-1].startswith("[#####.....] step 102/200, ")
        if num_columns == 200:
            assert ", epoch 1.20, loss 2.000, " in states[-1]
            assert " tokens/s, peak " in states[-1]


def test_without_a_terminal_the_first_and_the_last_state_are_lines(capsys):
    show_bar()
    first, last = capsys.readouterr().out.splitlines()
    assert first.startswith("[#####.....] step 100/200, ")
    assert last.startswith("[#####.....] step 102/200, ")
    assert "epoch 1.20, loss 2.000, " in last


def test_other_processes_than_the_first_show_nothing(capsys):
    show_bar(is_shown=False)
    assert capsys.readouterr() == ("", "")


def test_the_picture_is_drawn_with_and_without_held_out_replies(tmp_path):
    rows = [{"step": step, "loss": 3.0 / step} for step in range(1, 9)]
    draw_loss_curve(tmp_path / "without.png", rows, best_step=None)
    draw_loss_curve(tmp_path / "with.png", [*rows, {"step": 4, "held_out_loss": 1.0}], best_step=4)
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in tmp_path.iterdir())
    assert (tmp_path / "with.png").read_bytes() != (tmp_path / "without.png").read_bytes()


def test_little_data_gets_small_steps_and_much_data_no_larger_ones_than_useful():
    assert choose_step_tokens(DEFAULT_RECIPE, 10_000, num_epochs=3) == recipes.MIN_STEP_TOKENS
    assert choose_step_tokens(DEFAULT_RECIPE, 100_000, num_epochs=3) == 1_500
    assert choose_step_tokens(DEFAULT_RECIPE, 10_000_000, num_epochs=3) == recipes.MAX_STEP_TOKENS


def test_more_epochs_are_more_steps_not_larger_ones():
    assert choose_step_tokens(DEFAULT_RECIPE, 100_000, num_epochs=10) == 1_500
    assert choose_step_tokens(DEFAULT_RECIPE, 100_000, num_epochs=2) == 1_000


def test_less_data_is_read_more_often():
    limits = [choose_epochs(DEFAULT_RECIPE, 2**power) for power in range(20)]
    assert limits == sorted(limits, reverse=True)
    assert (limits[0], limits[-1]) == (recipes.EPOCHS_BY_REPLIES[0][1], recipes.USUAL_EPOCHS)
    for most_replies, epochs in recipes.EPOCHS_BY_REPLIES:
        assert choose_epochs(DEFAULT_RECIPE, most_replies) == epochs > choose_epochs(DEFAULT_RECIPE, most_replies + 1)


def test_epochs_that_were_asked_for_are_not_chosen():
    assert choose_epochs(dataclasses.replace(DEFAULT_RECIPE, epochs=7), num_replies=1) == 7


def test_two_processes_read_the_same_step_as_one():
    assert split_step(4096, 2048, num_processes=1) == split_step(4096, 2048, num_processes=2) == (2048, 2)


@pytest.mark.parametrize("jump_seconds", [-86_400, 86_400])
def test_the_time_that_is_left_is_right_although_the_clock_jumps(monkeypatch, capsys, jump_seconds):
    jumped = [0.0]
    monkeypatch.setattr("tqdm.std.time", lambda: 1_700_000_000 + jumped[0])
    monkeypatch.setattr("training_progress.SECONDS_BETWEEN_LINES", 0)
    bar = ProgressBar(num_steps=4, first_step=0, is_shown=True)
    for step in range(3):
        bar.begin_step()
        jumped[0] = jump_seconds * step
        bar.advance(0.1, 2.0, 100)
    lines = capsys.readouterr().out.splitlines()
    bar.close()
    assert lines[-1].startswith("[") and "step 3/4, 00:0" in lines[-1]
