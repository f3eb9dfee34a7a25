"""What the model makes of held-out conversations: the loss is taken over tokens, and sample replies disturb nothing."""

import math

import pytest
import torch
from head_loss import compute_loss_in_blocks
from held_out_evaluation import ComparedReply, SampleReplies, measure_reply_loss
from output_folder import make_generation_config
from packed_attention import SEGMENT_ATTENTION, register_segment_attention
from packing import PackedRows
from qlora_model import add_lora
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer

from common.chat_format import PERSON_TEMPLATE, encode_conversation
from common.script import printable

register_segment_attention()


@pytest.fixture
def model(tiny_base_dir):
    """The tiny base as it is trained: with an adapter that changes its replies, attending by segments, in training mode."""
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(tiny_base_dir, dtype=torch.float32, attn_implementation="eager")
    with torch.no_grad():
        base.lm_head.weight.mul_(30)  # a new model finds all tokens equally likely
    compute_loss_in_blocks(base)
    model = add_lora(base, rank=4, alpha=8, dropout=0.5)  # would change every loss, were it not switched off
    redraw_adapter(model, std=0.1)
    base.set_attn_implementation(SEGMENT_ATTENTION)
    return model.train()


def redraw_adapter(model, std):
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=std)


def separate_rows_losses(model, chunk):
    """The losses of the replies' tokens of one chunk, computed plainly."""
    base = model.get_base_model()
    base.set_attn_implementation("eager")
    ids = torch.tensor(chunk["input_ids"])
    with torch.no_grad():
        logits = model.eval()(input_ids=ids[None]).logits[0]
    losses = cross_entropy(logits[:-1], ids[1:], reduction="none")
    model.train()
    base.set_attn_implementation(SEGMENT_ATTENTION)
    return losses[torch.tensor(chunk["is_supervised"][1:])]


class TestReplyLoss:
    @pytest.fixture
    def rows(self, model):
        """One row of a short reply, the likeliest to this model, and one of two long ones at random."""
        model.get_base_model().set_attn_implementation("eager")
        prompt = torch.tensor([[0, 7, 8, 9]])
        likeliest = model.eval().generate(input_ids=prompt, do_sample=False, max_new_tokens=2, min_new_tokens=2)[0]
        model.get_base_model().set_attn_implementation(SEGMENT_ATTENTION)
        model.train()
        chunks = [
            {"input_ids": likeliest.tolist(), "is_supervised": [False] * 4 + [True] * 2, "num_reply_chars": 3},
            {"input_ids": [0, *range(9, 209)], "is_supervised": [False] * 21 + [True] * 180, "num_reply_chars": 400},
            {"input_ids": [0, *range(300, 400)], "is_supervised": [False] * 11 + [True] * 90, "num_reply_chars": 200},
        ]
        return PackedRows(chunks, [[0], [1, 2]])

    def test_it_is_the_mean_over_tokens_whatever_the_rows(self, model, rows):
        losses = [separate_rows_losses(model, chunk) for chunk in rows.chunks]
        over_tokens = torch.cat(losses).mean().item()
        over_rows = (losses[0].mean() + torch.cat(losses[1:]).mean()).item() / 2
        assert abs(over_rows - over_tokens) > 0.1 * over_tokens, "the rows are too alike to tell the two means apart"
        measured = measure_reply_loss(model, rows)
        assert measured.num_tokens == 2 + 180 + 90
        assert measured.per_token == pytest.approx(over_tokens, rel=1e-5)
        repacked = measure_reply_loss(model, PackedRows(rows.chunks, [[2], [0, 1]]))
        assert repacked.per_token == pytest.approx(over_tokens, rel=1e-5)

    def test_bits_count_the_characters_of_the_replies(self, model, rows):
        nats = sum(separate_rows_losses(model, chunk).sum().item() for chunk in rows.chunks)
        measured = measure_reply_loss(model, rows)
        assert measured.num_chars == 3 + 400 + 200
        assert measured.bits_per_char == pytest.approx(nats / math.log(2) / 603, rel=1e-5)

    def test_the_model_goes_on_training(self, model, rows):
        measure_reply_loss(model, rows)
        assert model.training
        assert all(parameter.grad is None for parameter in model.parameters())


def make_conversation(number, roles=("user", "assistant")):
    """A conversation whose words tell which one it is."""
    return [{"role": role, "content": f"{role} {number}"} for role in roles]


class TestSampleReplies:
    @pytest.fixture
    def tokenizer(self, tiny_base_dir):
        tokenizer = AutoTokenizer.from_pretrained(tiny_base_dir)
        tokenizer.chat_template = PERSON_TEMPLATE
        return tokenizer

    @pytest.fixture
    def show(self, model, tokenizer, capsys):
        """A function that takes prompts from conversations and returns one that shows them, as [(label, text), ...]."""

        def take(conversations):
            with_headers = [("", messages) for messages in conversations]
            samples = SampleReplies(model, tokenizer, with_headers, make_generation_config(tokenizer), seed=3)

            def show(is_base):
                samples.show(is_base)
                return [(line[:8].strip(), line[8:]) for line in capsys.readouterr().out.splitlines()]

            return show

        return take

    @pytest.fixture
    def reply(self, model, tokenizer):
        """A function that lets the model as it is now reply to `make_conversation(0)`, in the library's own way."""

        def reply():
            ids = encode_conversation(tokenizer, make_conversation(0)[:1], add_generation_prompt=True).input_ids
            sampling = make_generation_config(tokenizer) | {"max_new_tokens": 40}
            model.get_base_model().set_attn_implementation("eager")
            torch.manual_seed(3)
            output = model.eval().generate(input_ids=torch.tensor([ids]), use_cache=True, **sampling)
            model.get_base_model().set_attn_implementation(SEGMENT_ATTENTION)
            model.train()
            text = tokenizer.decode(output[0][len(ids) :], skip_special_tokens=True).replace("\ufffd", "")
            return printable(" / ".join(text.strip().splitlines()))[:100]

        return reply

    def test_after_training_the_models_reply_stands_beside_the_real_one(self, model, tokenizer, reply):
        conversations = [("", make_conversation(0)), ("", make_conversation(1, ("assistant", "user", "assistant")))]
        samples = SampleReplies(model, tokenizer, conversations, make_generation_config(tokenizer), seed=3)
        first, second = samples.compare()
        assert first == ComparedReply("user 0", "assistant 0", reply())
        assert (second.message, second.real) == ("user 1", "assistant 1")
        many = SampleReplies(model, tokenizer, conversations * 5, make_generation_config(tokenizer), seed=3)
        assert len(many.compare()) == 3

    def test_the_bases_reply_stays_and_todays_is_that_of_the_adapter(self, model, show, reply):
        with model.disable_adapter():
            base_reply = reply()
        base_lines = [("them", "user 0"), ("base", base_reply)]
        show_samples = show([make_conversation(0)])
        assert show_samples(is_base=True) == base_lines
        replies = [base_reply]
        for std in (0.1, 0.3):
            redraw_adapter(model, std)
            replies.append(reply())
            assert show_samples(is_base=False) == [*base_lines, ("now", replies[-1])]
        assert len(set(replies)) == 3

    def test_a_resumed_run_asks_the_base_without_its_adapter(self, model, show, reply):
        with model.disable_adapter():
            base_reply = reply()
        assert show([make_conversation(0)])(is_base=False)[1:] == [("base", base_reply), ("now", reply())]

    def test_looking_changes_nothing_of_the_training(self, model, show):
        random_state = torch.get_rng_state()
        show([make_conversation(0)])(is_base=False)
        assert torch.equal(torch.get_rng_state(), random_state)
        assert model.training
        assert model.get_base_model().config._attn_implementation == SEGMENT_ATTENTION

    @pytest.mark.parametrize(
        ("conversations", "prompts"),
        [
            ([make_conversation(number) for number in range(10)], ["user 0", "user 5"]),
            ([make_conversation(0, ["assistant", "user", "assistant"])], ["user 0"]),  # what came before is context
            ([make_conversation(0, ["assistant"]), make_conversation(1)], ["user 1"]),
            ([make_conversation(0, ["assistant"])], []),
            ([], []),
        ],
    )
    def test_prompts_are_spread_over_the_held_out_conversations(self, show, conversations, prompts):
        assert [text for label, text in show(conversations)(is_base=True) if label == "them"] == prompts
