"""The loss in blocks is the model's own loss, gradients included, without all logits at one time."""

import pytest
import torch
from fake_training_step import StorageMeter
from head_loss import choose_block_positions, compute_loss_in_blocks, has_plain_head, is_product, sum_loss
from packed_attention import SEGMENT_ATTENTION, find_packing_fault, register_segment_attention
from packing import collate_row
from peft import LoraConfig, get_peft_model
from qlora_model import add_lora
from torch.nn.functional import cross_entropy
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GPT2Config,
    GPTJConfig,
    Llama4TextConfig,
    LlamaConfig,
    MistralConfig,
    MistralForCausalLM,
    ModernBertDecoderConfig,
    RecurrentGemmaConfig,
)

VOCAB_SIZE = 2**15  # its blocks are small
ROUNDING = 3e-5  # of a gradient; in fp32 the model's own and ours are each 5e-6 from what 64 bits give
SHAPE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
MISTRAL = MistralConfig(vocab_size=VOCAB_SIZE, num_key_value_heads=1, **SHAPE)
CONFIGS = [
    MISTRAL,
    LlamaConfig(vocab_size=VOCAB_SIZE, tie_word_embeddings=True, **SHAPE),
    GPT2Config(vocab_size=VOCAB_SIZE, n_embd=32, n_layer=2, n_head=2),
]


def make_model(config, in_blocks, targets=None, dtype=torch.float32, dropout=0.0):
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation="eager")
    if in_blocks:
        compute_loss_in_blocks(base)
    if targets is None:
        model = add_lora(base, rank=4, alpha=8, dropout=dropout)
    else:
        model = get_peft_model(
            base, LoraConfig(r=4, lora_dropout=dropout, target_modules=targets, task_type="CAUSAL_LM")
        )
    for name, parameter in model.named_parameters():
        if "lora_B" in name:  # zeros at first: then lora_A would have no gradient
            torch.nn.init.normal_(parameter, std=0.1)
    return model.eval()


def make_batch(length):
    torch.manual_seed(1)
    ids = torch.randint(3, VOCAB_SIZE, (length,)).tolist()
    return collate_row([[{"input_ids": ids, "is_supervised": [False] + [n % 3 != 0 for n in range(1, length)]}]])


def loss_and_gradients(model, batch, **arguments):
    model.zero_grad()
    loss = model(**batch, **arguments).loss
    loss.backward()
    return loss.item(), {name: value.grad for name, value in model.named_parameters() if value.grad is not None}


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.model_type)
@pytest.mark.parametrize(
    "arguments", [{}, {"num_items_in_batch": torch.tensor(7)}], ids=["mean", "a share of the step"]
)
def test_loss_and_every_gradient_are_the_models_own(config, arguments):
    batch = make_batch(900)
    assert len(batch["labels"]) > 2 * choose_block_positions(VOCAB_SIZE)
    own_loss, own_gradients = loss_and_gradients(make_model(config, in_blocks=False), batch, **arguments)
    loss, gradients = loss_and_gradients(make_model(config, in_blocks=True), batch, **arguments)
    assert loss == pytest.approx(own_loss, rel=1e-6)
    assert gradients.keys() == own_gradients.keys()
    for name, gradient in gradients.items():
        assert (gradient - own_gradients[name]).norm() < ROUNDING * own_gradients[name].norm()


def test_in_half_precision_it_is_the_same_up_to_rounding():
    """As on a GPU: the base in bf16, the adapter in fp32, under autocast."""
    batch = make_batch(900)
    with torch.autocast("cpu", torch.bfloat16):
        own_loss, own_gradients = loss_and_gradients(make_model(MISTRAL, False, dtype=torch.bfloat16), batch)
        loss, gradients = loss_and_gradients(make_model(MISTRAL, True, dtype=torch.bfloat16), batch)
    assert loss == pytest.approx(own_loss, rel=1e-3)
    for name, gradient in gradients.items():
        assert gradient.dtype == torch.float32
        assert (gradient - own_gradients[name]).norm() < 0.05 * own_gradients[name].norm()


def test_a_head_that_is_not_trained_passes_its_gradient_on():
    batch = make_batch(200)
    own_loss, own_gradients = loss_and_gradients(make_model(MISTRAL, False, ["q_proj"]), batch)
    loss, gradients = loss_and_gradients(make_model(MISTRAL, True, ["q_proj"]), batch)
    assert loss == pytest.approx(own_loss, rel=1e-6)
    for name, gradient in gradients.items():
        assert (gradient - own_gradients[name]).norm() < ROUNDING * own_gradients[name].norm()


def test_dropout_of_lora_reaches_its_gradients():
    """The same random places are dropped: torch draws them anew from the same state."""
    batch, found = make_batch(60), []
    for in_blocks in (False, True):
        model = make_model(MISTRAL, in_blocks, ["lm_head"], dropout=0.3).train()
        torch.manual_seed(2)
        found.append(loss_and_gradients(model, batch))
    (own_loss, own_gradients), (loss, gradients) = found
    assert loss == pytest.approx(own_loss, rel=1e-6)
    for name, gradient in gradients.items():
        assert (gradient - own_gradients[name]).norm() < ROUNDING * own_gradients[name].norm()


def test_a_head_with_a_bias_keeps_the_models_own_loss():
    config = GPTJConfig(vocab_size=300, n_embd=32, n_layer=1, n_head=2, rotary_dim=8)
    model = make_model(config, in_blocks=True)
    assert model.get_base_model().lm_head.base_layer.bias is not None
    assert not is_product(model.get_base_model().lm_head)
    batch = collate_row([[{"input_ids": list(range(5, 60)), "is_supervised": [False] + [True] * 54}]])
    own_loss, own_gradients = loss_and_gradients(make_model(config, in_blocks=False), batch)
    loss, gradients = loss_and_gradients(model, batch)
    assert loss == own_loss
    assert all(torch.equal(gradient, own_gradients[name]) for name, gradient in gradients.items())


def test_without_gradients_the_loss_is_the_same():
    batch = make_batch(900)
    with torch.no_grad():
        own, in_blocks = (make_model(MISTRAL, in_blocks)(**batch).loss.item() for in_blocks in (False, True))
    assert in_blocks == pytest.approx(own, rel=1e-6)


def test_a_target_the_model_finds_impossible_has_a_finite_loss_and_gradient():
    head = torch.nn.Linear(3, 3, bias=False)
    with torch.no_grad():
        head.weight.copy_(torch.eye(3))
    hidden = torch.tensor([[500.0, 0.0, -500.0], [-2000.0, 1000.0, 0.0]], requires_grad=True)
    loss = sum_loss(head, hidden, torch.tensor([2, 0]), block_positions=1)
    loss.backward()
    assert loss.item() == 1000 + 3000
    assert hidden.grad.tolist() == [[1, 0, -1], [-1, 1, 0]]


def test_other_calls_take_the_models_own_way():
    model, own = make_model(MISTRAL, in_blocks=True), make_model(MISTRAL, in_blocks=False)
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        assert torch.equal(model(input_ids=ids).logits, own(input_ids=ids).logits)
        assert torch.equal(model(input_ids=ids, labels=ids).loss, own(input_ids=ids, labels=ids).loss)
        length = {"max_new_tokens": 4, "do_sample": False, "pad_token_id": 0}
        assert torch.equal(model.generate(input_ids=ids, **length), own.generate(input_ids=ids, **length))


def test_peak_memory_holds_a_block_of_logits_and_not_all():
    batch = make_batch(2_000)
    peaks = []
    for in_blocks in (False, True):
        model = make_model(MISTRAL, in_blocks)
        model.get_base_model().set_attn_implementation("sdpa")  # its memory does not hide the head's
        with StorageMeter() as meter:
            model(**batch).loss.backward()
        peaks.append(meter.peak)
    assert peaks[1] < peaks[0] / 4


def test_a_model_that_does_more_after_its_head_keeps_its_own_loss():
    config = Gemma2Config(vocab_size=VOCAB_SIZE, num_key_value_heads=1, head_dim=16, **SHAPE)
    assert config.final_logit_softcapping and not has_plain_head(config)
    assert not has_plain_head(RecurrentGemmaConfig())
    batch = make_batch(40)
    with torch.no_grad():
        assert make_model(config, True)(**batch).loss.item() == make_model(config, False)(**batch).loss.item()


LLAMA4 = Llama4TextConfig(
    vocab_size=VOCAB_SIZE, num_key_value_heads=1, head_dim=16, num_local_experts=2, intermediate_size_mlp=64, **SHAPE
)
MODERN_BERT = ModernBertDecoderConfig(vocab_size=VOCAB_SIZE, pad_token_id=0, bos_token_id=1, eos_token_id=2, **SHAPE)


@pytest.mark.parametrize("config", [LLAMA4, MODERN_BERT], ids=lambda config: config.model_type)
def test_a_model_whose_decoder_is_itself_or_its_head_keeps_its_own_loss(config):
    batch = make_batch(40)
    with torch.no_grad():
        assert make_model(config, True)(**batch).loss.item() == make_model(config, False)(**batch).loss.item()


class MistralWithScaledLogits(MistralForCausalLM):
    """A kind of model whose config does not tell that it does something after its head."""

    def forward(self, *args, labels=None, **kwargs):
        output = super().forward(*args, **kwargs)
        output.logits = output.logits * 3
        if labels is not None:
            output.loss = cross_entropy(output.logits.view(-1, VOCAB_SIZE), labels)
        return output


def test_the_check_before_training_finds_a_loss_that_is_not_the_models_own():
    register_segment_attention()
    torch.manual_seed(0)
    base = MistralWithScaledLogits(MISTRAL)
    model = get_peft_model(base, LoraConfig(r=4, target_modules=["q_proj"], task_type="CAUSAL_LM")).eval()
    base.set_attn_implementation(SEGMENT_ATTENTION)
    chunk = {"input_ids": list(range(5, 60)), "is_supervised": [False] + [True] * 54}
    assert find_packing_fault(model, [chunk, chunk]) is None
    compute_loss_in_blocks(base)
    assert "is not the mean of the tokens' losses" in find_packing_fault(model, [chunk, chunk])
