"""Build a small base model: a MistralForCausalLM and its tokenizer, trained on made-up chats.

Reads nothing. Writes a folder that any tool loads by its path, like a base model from a hub: `config.json`,
`model.safetensors`, the tokenizer with its `<s>` and `</s>`, and no chat template, since a base has none.
Run:    python3 src/demo/make_small_base.py --output-dir .demo/small_base
Needs:  about 1 GiB of memory and 100 seconds on two processor cores; no GPU, no network.
"""

from __future__ import annotations

import math
import random
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from chat_grammar import neutral_conversations

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))  # for `common`

from common.command_line import check_folder_of, make_parser, whole_number
from common.script import run_script

if TYPE_CHECKING:
    from transformers import MistralForCausalLM, PreTrainedTokenizerFast

NUM_CONVERSATIONS = 3_000  # enough that each conversation is read about three times at most
VOCAB_SIZE = 1_500  # enough for the grammar's few hundred words; a larger one only slows the head down
HIDDEN_SIZE = 256
NUM_LAYERS = 4
BLOCK_TOKENS = 128  # a conversation has about this many
BLOCKS_PER_STEP = 8
NUM_STEPS = 300
LEARNING_RATE = 3e-3  # usual for a model of a few million parameters
WARM_UP_STEPS = 20
SEED = 0

BOS, EOS = "<s>", "</s>"  # ids 0 and 1


def neutral_texts(num_conversations: int, seed: int) -> list[str]:
    """Return conversations of other people, `<person2>` or `<person1>` before each turn and `</s>` after it.

    A large base has seen dialogues in every form; this one needs them in the form used for the chat.
    """
    texts = []
    for turns in neutral_conversations(num_conversations, seed):
        text, previous_name = "", None
        for name, messages in turns:
            words = "\n".join(messages)
            if name == previous_name:
                text = f"{text.removesuffix(EOS)}\n{words}{EOS}"
            else:
                text += f"<person{1 if name == turns[-1][0] else 2}>{words}{EOS}"
            previous_name = name
        texts.append(BOS + text)
    return texts


def make_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer on `texts`; it encodes every string, Hebrew and emoji included.

    `<s>` and `</s>` are special tokens and are left out of the training text.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((text.replace(BOS, "").replace(EOS, "") for text in texts), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=BOS, eos_token=EOS)


def make_model(vocab_size: int, hidden_size: int, num_layers: int, seed: int) -> MistralForCausalLM:
    """Return a MistralForCausalLM with random weights from `seed`."""
    import torch
    from transformers import MistralConfig, MistralForCausalLM

    torch.manual_seed(seed)
    config = MistralConfig(
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        intermediate_size=hidden_size * 5 // 2,
        num_hidden_layers=num_layers,
        num_attention_heads=hidden_size // 32,
        num_key_value_heads=hidden_size // 64,
        max_position_embeddings=2048,
        sliding_window=None,
        bos_token_id=0,
        eos_token_id=1,
    )
    return MistralForCausalLM(config)


def train_on_texts(
    model: MistralForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    texts: list[str],
    num_steps: int,
    seed: int,
    show_step: Callable[[int, float], None] = lambda _step, _loss: None,
) -> float:
    """Train `model` on the concatenated `texts`; return the last step's loss.

    The same seed gives the same weights on the same machine. `show_step` is called with each step's number and loss.
    """
    import torch

    ids = [token for text in texts for token in tokenizer(text, add_special_tokens=False)["input_ids"]]
    blocks = torch.tensor(ids[: len(ids) // BLOCK_TOKENS * BLOCK_TOKENS]).view(-1, BLOCK_TOKENS)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _learning_rate_share(step, num_steps))
    rng = random.Random(seed)
    last_loss = math.nan
    model.train()
    for step in range(1, num_steps + 1):
        batch = blocks[rng.sample(range(len(blocks)), min(BLOCKS_PER_STEP, len(blocks)))]
        loss = model(input_ids=batch, labels=batch, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        last_loss = loss.item()
        show_step(step, last_loss)
    model.eval()
    return last_loss


def _learning_rate_share(step: int, num_steps: int) -> float:
    """Return the factor of the learning rate at `step`: linear warm-up, then a cosine down to a tenth."""
    if step < WARM_UP_STEPS:
        return (step + 1) / WARM_UP_STEPS
    return 0.1 + 0.45 * (1 + math.cos(math.pi * step / num_steps))


def main() -> int:
    """Build, train and save the small base."""
    parser = make_parser((__doc__ or "").splitlines()[0])
    parser.add_argument("--output-dir", type=Path, required=True, help="folder to write the base model to")
    parser.add_argument(
        "--steps", type=whole_number(1), default=NUM_STEPS, help="training steps (default: %(default)s)"
    )
    arguments = parser.parse_args()
    check_folder_of(arguments.output_dir)

    from tqdm import tqdm
    from transformers.utils import logging

    logging.disable_progress_bar()
    started = time.monotonic()
    texts = neutral_texts(NUM_CONVERSATIONS, SEED)
    tokenizer = make_tokenizer(texts, VOCAB_SIZE)
    model = make_model(len(tokenizer), HIDDEN_SIZE, NUM_LAYERS, SEED)
    print(f"small base: {model.num_parameters():,} parameters, {len(texts):,} made-up conversations of other people")
    with tqdm(total=arguments.steps, unit="step", desc="training the small base", disable=None) as bar:

        def show_step(_step: int, loss: float) -> None:
            bar.set_postfix_str(f"loss {loss:.2f}", refresh=False)
            bar.update()

        loss = train_on_texts(model, tokenizer, texts, arguments.steps, SEED, show_step)
    model.save_pretrained(arguments.output_dir)
    tokenizer.save_pretrained(arguments.output_dir)
    print(f"loss {loss:.2f} nats per token after {arguments.steps} steps, {time.monotonic() - started:.0f} s")
    print(f"written: {arguments.output_dir}")
    return 0


if __name__ == "__main__":
    run_script(main)
