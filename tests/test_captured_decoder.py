"""Replayed rows: padding changes nothing, gradients sum up over rows, other calls are computed as before.

On a processor nothing can be captured: there, recorded work is done again. On a card the same tests run with CUDA graphs.
"""

import pytest
import torch
from captured_decoder import (
    CapturedDecoder,
    GraphRecorder,
    RowShape,
    StaticRow,
    capture_decoder,
    choose_shape,
    find_hindrance,
)
from head_loss import compute_loss_in_blocks
from packed_attention import SEGMENT_ATTENTION, attend_within_segments, register_segment_attention
from packing import PackedRows, collate_row
from qlora_model import add_lora, enable_gradient_checkpointing
from transformers import AutoModelForCausalLM, Mamba2Config, MistralConfig, Trainer, TrainingArguments

CONFIG = MistralConfig(
    vocab_size=320, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2,
)  # fmt: skip
SHAPE = RowShape(num_tokens=128, num_segments=5, longest_segment=60)
CARD = pytest.param("cuda", marks=pytest.mark.gpu)
ROUNDING = {"cpu": 1e-5, "cuda": 0.05}  # of the norm: fp32; bf16 with other kernels for the padded length


class Repeating:
    """Stands for the graphs: what was recorded is done again."""

    def run(self, work):
        work()

    def record(self, work):
        return work


class Refusing(Repeating):
    """A card that cannot capture."""

    def record(self, work):
        raise RuntimeError("operation not permitted when stream is capturing\nmore lines")


class Silent(Repeating):
    """A card that cannot capture and does not say why."""

    def record(self, work):
        raise RuntimeError


class Forgetful(Repeating):
    """A recording that lacks the backward pass."""

    def __init__(self):
        self.num_recorded = 0

    def record(self, work):
        self.num_recorded += 1
        return work if self.num_recorded == 1 else lambda: None


@pytest.fixture(autouse=True)
def segments():
    register_segment_attention()


def make_model(device="cpu", checkpointing=False, dropout=0.0):
    torch.manual_seed(0)
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    base = AutoModelForCausalLM.from_config(CONFIG, dtype=dtype, attn_implementation=SEGMENT_ATTENTION)
    compute_loss_in_blocks(base)
    model = add_lora(base, rank=4, alpha=8, dropout=dropout)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:  # zeros at first: then lora_A would have no gradient
            torch.nn.init.normal_(parameter, std=0.1)
    if checkpointing:
        enable_gradient_checkpointing(model)
    return model.to(device).train()


def capture(model, recorder=None, shape=SHAPE):
    if recorder is None:
        recorder = Repeating() if model.device.type == "cpu" else GraphRecorder(model.device)
    return CapturedDecoder(model.get_base_model().get_decoder(), shape, recorder)


def make_batch(*lengths, seed=1, device="cpu"):
    generator = torch.Generator().manual_seed(seed)
    chunks = [
        {
            "input_ids": torch.randint(3, 320, (length,), generator=generator).tolist(),
            "is_supervised": [False] + [place % 3 != 0 for place in range(1, length)],
        }
        for length in lengths
    ]
    batch = collate_row([chunks])
    return {name: value.to(device) if torch.is_tensor(value) else value for name, value in batch.items()}


def train(model, *batches):
    """Return the losses and the summed gradients, as the Trainer computes them."""
    losses = []
    for batch in batches:
        with torch.autocast(model.device.type, torch.bfloat16, enabled=model.device.type == "cuda"):
            loss = model(**batch, num_items_in_batch=100).loss
        loss.backward()
        losses.append(loss.item())
    gradients = {name: value.grad.clone() for name, value in model.named_parameters() if value.requires_grad}
    model.zero_grad()
    return losses, gradients


def assert_close(found, expected, rounding):
    (losses, gradients), (expected_losses, expected_gradients) = found, expected
    assert losses == pytest.approx(expected_losses, rel=rounding)
    assert gradients.keys() == expected_gradients.keys()
    for name, gradient in gradients.items():
        assert (gradient - expected_gradients[name]).norm() <= rounding * expected_gradients[name].norm(), name


@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "checkpointed"])
@pytest.mark.parametrize("device", ["cpu", CARD])
def test_losses_and_gradients_of_several_steps_of_two_rows_are_as_before(device, checkpointing):
    model, plain = make_model(device, checkpointing), make_model(device, checkpointing)
    captured = capture(model)
    steps = [
        [make_batch(60, 50, device=device), make_batch(40, 40, 48, device=device)],  # padded, and full
        [make_batch(20, device=device), make_batch(33, 60, 1, 7, seed=2, device=device)],
    ]
    for batches in steps:
        assert_close(train(model, *batches), train(plain, *batches), ROUNDING[device])
    assert captured.problem is None
    assert captured.num_replayed == 4
    assert captured.seconds > 0


@pytest.mark.parametrize("device", ["cpu", CARD])
def test_a_training_by_the_library_has_the_same_losses_and_gradients(device, tmp_path):
    """Its steps clip the gradients, let go of them, and change the weights."""
    generator = torch.Generator().manual_seed(3)
    lengths = torch.randint(20, 60, (24,), generator=generator).tolist()
    chunks = [
        {
            "input_ids": torch.randint(3, 320, (length,), generator=generator).tolist(),
            "is_supervised": [False] + [True] * (length - 1),
        }
        for length in lengths
    ]
    rows = PackedRows(chunks, [[number, number + 1] for number in range(0, 24, 2)])
    arguments = TrainingArguments(
        str(tmp_path), per_device_train_batch_size=1, gradient_accumulation_steps=2, learning_rate=1e-2, max_grad_norm=0.1,
        num_train_epochs=1, logging_steps=1, save_strategy="no", report_to="none", disable_tqdm=True,
        remove_unused_columns=False, use_cpu=device == "cpu", bf16=device == "cuda", optim="adamw_torch_fused",
    )  # fmt: skip
    logs = []
    for is_captured in (True, False):
        model = make_model(device)
        captured = capture(model) if is_captured else None
        trainer = Trainer(model=model, args=arguments, train_dataset=rows, data_collator=collate_row)
        trainer.train()
        logs.append([(row["loss"], row["grad_norm"]) for row in trainer.state.log_history if "loss" in row])
        assert captured is None or captured.num_replayed == 12
    assert len(logs[0]) == 6
    for row, expected in zip(*logs, strict=True):
        assert row == pytest.approx(expected, rel=max(1e-3, ROUNDING[device]))


@pytest.mark.parametrize("device", ["cpu", CARD])
def test_rows_that_do_not_fit_sum_up_with_those_that_do(device):
    """Too long a segment, too many segments, too many tokens: each before and after a replayed row."""
    model, plain = make_model(device), make_model(device)
    captured = capture(model)
    fits = make_batch(60, 50, device=device)
    train(model, fits), train(plain, fits)
    for lengths in ([100], [5] * 6, [60, 60, 60]):
        odd = make_batch(*lengths, device=device)
        for batches in ([odd, fits], [fits, odd]):
            assert_close(train(model, *batches), train(plain, *batches), ROUNDING[device])
    assert captured.num_replayed == 7


def test_a_step_that_begins_with_a_longer_row_records_in_the_next_one():
    model, plain = make_model(), make_model()
    captured = capture(model)
    batches = [make_batch(100), make_batch(60, 50)]
    for num_replayed in (0, 0):
        assert_close(train(model, *batches), train(plain, *batches), ROUNDING["cpu"])
        assert captured.num_replayed == num_replayed
    train(model, batches[1])
    assert captured.num_replayed == 1


@pytest.mark.parametrize("device", ["cpu", CARD])
def test_weights_that_change_between_rows_reach_the_replays(device):
    model, plain = make_model(device), make_model(device)
    capture(model)
    batch = make_batch(60, 50, device=device)
    train(model, batch)
    for one in (model, plain):
        with torch.no_grad():
            for parameter in one.parameters():
                if parameter.requires_grad:
                    parameter.mul_(1.5)
    assert_close(train(model, batch), train(plain, batch), ROUNDING[device])


def test_evaluation_generation_and_other_attention_are_computed_as_before():
    model, plain = make_model(), make_model()
    captured = capture(model)
    batch = make_batch(60, 50)
    train(model, batch)
    with torch.no_grad():
        assert model(**batch).loss == plain(**batch).loss
    assert model.eval()(**batch).loss == plain.eval()(**batch).loss
    ids = torch.tensor([[5, 6, 7]])
    for one in (model, plain):
        one.train().get_base_model().set_attn_implementation("eager")
    settings = {"max_new_tokens": 4, "do_sample": False, "pad_token_id": 0}
    assert torch.equal(model.generate(input_ids=ids, **settings), plain.generate(input_ids=ids, **settings))
    assert captured.num_replayed == 1


@pytest.mark.parametrize(
    ("recorder", "reason"),
    [
        (Refusing(), "operation not permitted"),
        (Silent(), "RuntimeError"),
        (Forgetful(), "a replay differs from the same row"),
    ],
)
def test_what_cannot_be_captured_is_computed_as_before_and_the_reason_told_once(recorder, reason, capsys):
    model, plain = make_model(), make_model()
    captured = capture(model, recorder)
    for _ in range(2):
        batches = [make_batch(60, 50), make_batch(30)]
        assert_close(train(model, *batches), train(plain, *batches), ROUNDING["cpu"])
    assert captured.problem.startswith(reason)
    assert captured.num_replayed == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(captured.problem)


def test_a_removed_recording_leaves_the_decoder_as_it_was():
    model, plain = make_model(), make_model()
    captured = capture(model)
    batch = make_batch(60, 50)
    train(model, batch)
    captured.remove()
    assert_close(train(model, batch), train(plain, batch), ROUNDING["cpu"])
    assert captured.num_replayed == 1


def test_two_rows_before_a_backward_pass_are_refused_instead_of_mixed_up():
    model = make_model()
    capture(model)
    first, _second = (model(**make_batch(length)).loss for length in (50, 40))
    with pytest.raises(AssertionError, match="overwritten"):
        first.backward()


def test_padding_is_cut_into_segments_that_the_shape_allows():
    row = StaticRow(SHAPE, torch.device("cpu"))
    batch = make_batch(10, 5)
    row.fill(batch["input_ids"], batch["position_ids"], batch["cu_seq_lens_q"])
    assert row.arguments["cu_seq_lens_q"].tolist() == [0, 10, 15, 75, 128, 128]
    positions = row.arguments["position_ids"][0].tolist()
    assert positions == [*range(10), *range(5), *range(60), *range(53)]
    assert row.arguments["input_ids"][0, 15:].count_nonzero() == 0


def test_the_shape_has_room_for_every_row_that_is_no_longer_than_a_row_may_be():
    lengths = [60, 50, 40, 30, 5, 5, 5, 200]
    rows = [[0, 1], [2, 3, 4, 5], [6], [7]] * 10
    shape = choose_shape(lengths, rows, row_tokens=128)
    row = StaticRow(shape, torch.device("cpu"))
    for chunks in rows:
        tokens = [lengths[chunk] for chunk in chunks]
        assert row.has_room(sum(tokens), len(tokens), max(tokens)) == (sum(tokens) <= 128)
    assert shape.num_segments == 5
    assert choose_shape(lengths, rows[:8], row_tokens=128) is None


def test_what_hinders_is_told():
    assert find_hindrance(make_model(), SHAPE) == "there is no CUDA card"


def test_a_base_without_attention_heads_is_no_error():
    config = Mamba2Config(vocab_size=99, hidden_size=32, num_hidden_layers=1, num_heads=4, head_dim=16, n_groups=1)
    model = add_lora(AutoModelForCausalLM.from_config(config), rank=4, alpha=8, dropout=0.0)
    assert capture_decoder(model, SHAPE) is None


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("shape", "dropout", "attention", "reason"),
    [
        (SHAPE, 0.0, SEGMENT_ATTENTION, None),
        (None, 0.0, SEGMENT_ATTENTION, "fewer than"),
        (SHAPE, 0.1, SEGMENT_ATTENTION, "dropout"),
        (SHAPE, 0.0, "sdpa", "the attention is sdpa"),
    ],
)
def test_a_card_is_used_where_nothing_hinders(shape, dropout, attention, reason):
    model = make_model("cuda", dropout=dropout)
    model.get_base_model().set_attn_implementation(attention)
    found = find_hindrance(model, shape)
    assert found is None if reason is None else found.startswith(reason)


@pytest.mark.gpu
def test_attention_of_one_call_is_that_of_the_loop_over_segments():
    torch.manual_seed(0)
    borders = torch.tensor([0, 40, 41, 128, 128, 128], dtype=torch.int32)  # the last two segments have no tokens
    states = [torch.randn(1, heads, 128, 16, dtype=torch.bfloat16) for heads in (4, 2, 2)]
    outputs = []
    for device in ("cpu", "cuda"):
        moved = [state.detach().to(device).requires_grad_() for state in states]
        output, _ = attend_within_segments(None, *moved, None, cu_seq_lens_q=borders.to(device), max_length_q=90)
        output.sum().backward()
        outputs.append([output, *(state.grad for state in moved)])
    for of_loop, of_call in zip(*outputs, strict=True):
        assert (of_call.cpu() - of_loop).norm() < 0.02 * of_loop.norm()


@pytest.mark.gpu
def test_a_failed_capture_leaves_a_card_that_trains_and_samples():
    model, plain = make_model("cuda"), make_model("cuda")

    class Waiting(GraphRecorder):
        """Reads a number from the card in the middle, which is forbidden."""

        def record(self, work):
            def wait():
                work()
                torch.ones(3, device="cuda").sum().item()

            return super().record(wait)

    captured = capture(model, Waiting(model.device))
    batches = [make_batch(60, 50, device="cuda"), make_batch(30, device="cuda")]
    assert_close(train(model, *batches), train(plain, *batches), ROUNDING["cuda"])
    assert captured.problem is not None
    assert torch.rand(8, device="cuda").multinomial(1).item() < 8
