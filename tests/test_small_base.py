"""The small base behaves as a base model from a hub: it loads by its path, encodes anything, and can learn."""

import math

import make_small_base
from transformers import AutoModelForCausalLM, AutoTokenizer


def test_loads_by_its_path_like_any_base(tiny_base_dir, tiny_tokenizer):
    model = AutoModelForCausalLM.from_pretrained(tiny_base_dir)
    tokenizer = AutoTokenizer.from_pretrained(tiny_base_dir)
    assert model.config.model_type == "mistral"
    assert model.config.vocab_size == len(tokenizer)
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.chat_template) == ("<s>", "</s>", None)
    assert (model.config.bos_token_id, model.config.eos_token_id) == (tokenizer.bos_token_id, tokenizer.eos_token_id)
    text = "שלום 👨‍👩‍👧‍👦 hello\nשורה שנייה"
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text
    assert tokenizer(text)["input_ids"] == tiny_tokenizer(text)["input_ids"]


def test_learns_and_the_same_seed_gives_the_same_weights(tiny_tokenizer):
    texts = make_small_base.neutral_texts(60, seed=1)
    losses = []
    for _ in range(2):
        model = make_small_base.make_model(len(tiny_tokenizer), hidden_size=64, num_layers=2, seed=0)
        losses.append(make_small_base.train_on_texts(model, tiny_tokenizer, texts, num_steps=30, seed=0))
    assert losses[0] == losses[1]
    assert losses[0] < 0.9 * math.log(len(tiny_tokenizer))  # an untaught model gives every token the same chance
