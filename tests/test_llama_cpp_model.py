"""The chat on llama.cpp: the same replies as on transformers, from a GGUF file and nothing else."""

import os
import random
import shutil
import sys
import threading
from collections import Counter
from dataclasses import replace

import psutil
import pytest
import torch
from chat_engine import choose_engine
from conversing import regenerate, say
from gguf_file import GgufExport
from gguf_header import FORMAT_KEY, ModelFiles, NotGguf, find_model_files, read_header
from live_conversation import Conversation
from llama_cpp_model import run_llama_cpp_model
from saved_model_checks import check_saved_model, check_trained_folder
from scipy.stats import chisquare
from static_decoding import make_processors
from test_live_conversation import carry_out
from tiny_saved_model import write_saved_model

from common.base_model_files import base_fingerprint
from common.model_folder import Sampling
from common.script import ScriptError


@pytest.fixture(scope="module")
def gguf_dir(tmp_path_factory, tiny_saved_model_dir):
    """The tiny trained folder with its f32 file, as the chat finds it. Do not change it."""
    folder = shutil.copytree(tiny_saved_model_dir, tmp_path_factory.mktemp("gguf") / "saved")
    (folder / "gguf").mkdir()
    GgufExport(check_saved_model(folder), "model", "f32").write(folder / "gguf/model-f32.gguf")
    return folder


@pytest.fixture(scope="module")
def llama_model(gguf_dir):
    saved = check_trained_folder(gguf_dir)
    with run_llama_cpp_model(saved, find_model_files(saved)) as model:
        yield model


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))])
def test_greedy_replies_are_those_of_transformers_through_a_whole_chat(tiny_model, llama_model, seed):
    """Undo, edits, regenerating, swapped roles, interruptions and a full context, with all that is reused."""
    greedy = replace(tiny_model.sampling, do_sample=False, max_new_tokens=16)
    conversations = [
        Conversation(tiny_model, seed=0, sampling=greedy),
        Conversation(llama_model, seed=0, sampling=greedy, cache=llama_model.open_cache()),
    ]
    rng = random.Random(seed)
    for step in range(30):
        operation = rng.choice(["say"] * 6 + ["undo", "edit", "regenerate", "interrupt", "interrupt", "swap", "break"])
        outcomes = [carry_out(conversation, operation, seed=1000 * seed + step) for conversation in conversations]
        assert outcomes[0] == outcomes[1], f"step {step}: {operation}"
        assert conversations[0].messages == conversations[1].messages
    assert conversations[0]._num_dropped == conversations[1]._num_dropped > 0, "the walk never filled the context"


def test_an_opener_is_that_of_transformers(tiny_model, llama_model):
    greedy = replace(tiny_model.sampling, do_sample=False, max_new_tokens=16)
    ours = Conversation(tiny_model, seed=0, sampling=greedy)
    theirs = Conversation(llama_model, seed=0, sampling=greedy, cache=llama_model.open_cache())
    for conversation in (ours, theirs):
        conversation.answer()
        say(conversation, "hello")
        conversation.undo()
        regenerate(conversation)
        say(conversation, "again")
    assert ours.messages == theirs.messages
    assert [message["role"] for message in ours.messages] == ["assistant", "user", "assistant"]


def test_what_is_said_to_be_reused_is_not_read_again(llama_model):
    conversation = Conversation(
        llama_model, seed=0, sampling=replace(llama_model.sampling, max_new_tokens=8), cache=llama_model.open_cache()
    )
    first = say(conversation, "שלום, מה נשמע היום?")
    assert first.num_reused_tokens == 0
    conversation.add("ok")
    prompt_ids = conversation.fit_prompt()
    num_reused = conversation.cache.rewind(prompt_ids)
    assert num_reused >= first.num_prompt_tokens
    answer = llama_model.server._predict(prompt_ids, n_predict=0)
    assert answer["timings"]["cache_n"] == num_reused


SAMPLINGS = {
    "the default": Sampling(),
    "colder": Sampling(temperature=0.5),
    "hotter, top_k": Sampling(temperature=2.0, top_k=20, min_p=0.0),
    "top_p": Sampling(top_p=0.8, min_p=0.0),
    "all": Sampling(temperature=1.3, top_k=50, top_p=0.9, min_p=0.02, repetition_penalty=1.4),
    "penalty": Sampling(repetition_penalty=0.5, min_p=0.0),
}


def expected_probabilities(trained, prompt_ids, reply_ids, sampling):
    """What transformers draws the token after `reply_ids` from, by the library's own processors."""
    with torch.no_grad():
        scores = trained.model(input_ids=torch.tensor([prompt_ids + reply_ids])).logits[:, -1].float()
    if not reply_ids:
        scores[:, sorted(trained.end_ids)] = -torch.inf
    for processor in make_processors(sampling):
        scores = processor(torch.tensor([reply_ids], dtype=torch.long), scores)
    return scores.softmax(-1)[0]


@pytest.mark.parametrize("num_reply_tokens", [0, 1, 9])
@pytest.mark.parametrize("name", SAMPLINGS)
def test_a_token_is_drawn_with_the_probability_of_transformers(tiny_model, llama_model, name, num_reply_tokens):
    sampling = SAMPLINGS[name]
    prompt_ids = tiny_model.encode_prompt([{"role": "user", "content": "שלום, what's up? 😂"}])[0]
    reply_ids = [300, 300, 301, 40, 300, 77, 450, 12, 300][:num_reply_tokens]
    expected = expected_probabilities(tiny_model, prompt_ids, reply_ids, sampling)
    options = llama_model.sampling_options(sampling, num_reply_tokens)
    options |= {"n_probs": len(expected), "post_sampling_probs": True}
    answers = (llama_model.server._predict(prompt_ids + reply_ids, seed=seed, **options) for seed in range(100))
    # Where the token that ends the turn is drawn, llama.cpp gives no probabilities.
    probabilities = next(found for answer in answers if (found := answer["choices"][0]["logprobs"]))
    given = {entry["id"]: entry["prob"] for entry in probabilities["content"][0]["top_probs"]}
    assert max(abs(float(expected[number]) - given.get(number, 0.0)) for number in range(len(expected))) < 1e-5
    assert {number for number, share in given.items() if share > 0} == set(expected.nonzero()[:, 0].tolist())


def test_log_probability_of_every_token_is_that_of_transformers(tiny_model, llama_model):
    """Also of bytes that are no character, and of the token that ends a turn."""
    prompt_ids = tiny_model.encode_prompt([{"role": "user", "content": "שלום"}])[0]
    with torch.no_grad():
        expected = tiny_model.model(input_ids=torch.tensor([prompt_ids])).logits[0, -1].log_softmax(-1)
    given = [llama_model.log_probability(prompt_ids, number) for number in range(0, len(expected), 3)]
    assert (torch.tensor(given) - expected[::3]).abs().max() < 1e-3
    assert abs(llama_model.log_probability(prompt_ids, 1) - float(expected[1])) < 1e-3


def test_drawn_tokens_are_as_frequent_as_their_probabilities(tiny_model, llama_model):
    """Each token is drawn with a seed of its own: their numbers must not follow each other."""
    sampling = Sampling(temperature=1.0, top_k=12, min_p=0.0)
    conversation = Conversation(llama_model, seed=0, sampling=sampling, cache=llama_model.open_cache())
    conversation.add("שלום")
    prompt_ids = conversation.fit_prompt()
    expected = expected_probabilities(tiny_model, prompt_ids, [], sampling)
    one_token = replace(sampling, max_new_tokens=1)
    drawn = Counter()
    for seed in range(600):
        stream = llama_model.new_stream(len(prompt_ids), one_token)
        drawn[conversation.cache.generate(prompt_ids, one_token, seed, stream)[-1]] += 1
    tokens = expected.nonzero()[:, 0].tolist()
    assert set(drawn) <= set(tokens)
    frequencies = expected[tokens].double() / expected[tokens].double().sum() * drawn.total()
    assert chisquare([drawn[token] for token in tokens], frequencies.numpy()).pvalue > 1e-3


def test_sampled_replies_repeat_with_the_seed_and_differ_when_regenerated(llama_model):
    hot = replace(llama_model.sampling, temperature=2.0, min_p=0.0)
    texts = []
    for _ in range(2):
        conversation = Conversation(llama_model, seed=7, sampling=hot, cache=llama_model.open_cache())
        texts.append([say(conversation, "שלום").text, regenerate(conversation).text])
    assert texts[0] == texts[1]
    assert texts[0][0] != texts[0][1]


def test_a_reply_stopped_while_its_prompt_is_read_leaves_nothing_wrong(tiny_model, llama_model):
    greedy = replace(tiny_model.sampling, do_sample=False, max_new_tokens=12)
    stopped, expected = (
        Conversation(model, seed=0, sampling=greedy, cache=cache)
        for model, cache in ((llama_model, llama_model.open_cache()), (tiny_model, None))
    )
    stop = threading.Event()
    stop.set()
    reply = say(stopped, "one two three four five six seven eight nine ten", stop=stop)
    assert (reply.text, reply.ending, reply.num_new_tokens) == ("", "interrupted", 0)
    expected.add("one two three four five six seven eight nine ten")
    assert regenerate(stopped).text == expected.answer().text != ""


def test_nobody_can_connect(llama_model):
    """The server of llama.cpp always listens: its socket must be gone, and no port open."""
    listening = [entry for entry in psutil.Process().net_connections("inet") if entry.status == psutil.CONN_LISTEN]
    assert listening == []
    assert not llama_model.server._socket_path.exists()


def test_its_folder_is_removed_at_the_end(gguf_dir):
    saved = check_trained_folder(gguf_dir)
    with run_llama_cpp_model(saved, find_model_files(saved)) as model:
        folder = model.server._socket_path.parent
        assert folder.stat().st_mode & 0o777 == 0o700
    assert not folder.exists()


# ---- Which file ------------------------------------------------------------------------------------------------------


@pytest.fixture
def own_dir(gguf_dir, tmp_path):
    return shutil.copytree(gguf_dir, tmp_path / "saved")


def choose(folder, engine):
    choice = choose_engine(engine, check_trained_folder(folder), None, True, "the export command")
    return choice.model_files, choice.notice


def test_the_newest_file_of_this_training_is_taken(own_dir):
    paths = [own_dir / f"gguf/{name}.gguf" for name in ("model-f32", "mine", "cut")]
    content = paths[0].read_bytes()
    paths[1].write_bytes(content)
    paths[2].write_bytes(content[:-1])
    for order in ((0, 1, 2), (1, 0, 2)):
        for hour, number in enumerate(order):
            os.utime(paths[number], (3_600 * hour, 3_600 * hour))
        files, notice = choose(own_dir, "auto")
        assert (files.model_path, notice) == (paths[order[1]], None)
    assert choose(own_dir, "transformers") == (None, None)


def test_an_adapter_needs_its_base_beside_it(own_dir, tiny_model):
    (own_dir / "gguf/model-f32.gguf").unlink()
    saved = check_saved_model(own_dir)
    adapter_path, base_path = own_dir / "gguf/adapter-f32.gguf", own_dir / "gguf/base-f32.gguf"
    GgufExport(saved, "adapter", "f32").write(adapter_path)
    with pytest.raises(ScriptError, match="adapter-f32.gguf: no base of this training lies beside it"):
        choose(own_dir, "llama.cpp")
    GgufExport(saved, "base", "f32").write(base_path)
    files, _notice = choose(own_dir, "auto")
    assert (files.model_path, files.adapter_path) == (base_path, adapter_path)
    greedy = replace(tiny_model.sampling, do_sample=False, max_new_tokens=12)
    with run_llama_cpp_model(saved, files) as model:
        replies = [
            say(Conversation(trained, seed=0, sampling=greedy, cache=cache), "שלום, what's up?").text
            for trained, cache in ((tiny_model, None), (model, model.open_cache()))
        ]
    assert replies[0] == replies[1] != ""


def test_a_package_that_cannot_be_loaded_is_one_line(own_dir, monkeypatch):
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    saved = check_trained_folder(own_dir)
    words = "xllamacpp: cannot be loaded .*; pip install xllamacpp --force-reinstall"
    with pytest.raises(ScriptError, match=words), run_llama_cpp_model(saved, find_model_files(saved)):
        pass


def test_without_a_file_the_command_is_told(own_dir):
    shutil.rmtree(own_dir / "gguf")
    files, notice = choose(own_dir, "auto")
    assert files is None
    assert (
        notice
        == "without an NVIDIA card, llama.cpp computes all but the smallest models several times as fast: the export command"
    )
    with pytest.raises(ScriptError, match="gguf: no GGUF file of this training; write one: the export command"):
        choose(own_dir, "llama.cpp")


def test_a_base_that_cannot_be_written_is_not_recommended_to_be(tmp_path, own_dir, tiny_base_dir):
    """The command would refuse it: the form of Gemma or Phi is not written."""
    base_dir, config_path = tmp_path / "base", tmp_path / "base/config.json"
    shutil.copytree(tiny_base_dir, base_dir)
    config_path.write_text(config_path.read_text().replace('"model_type": "mistral"', '"model_type": "phi3"'))
    shutil.rmtree(own_dir / "gguf")
    saved = check_trained_folder(own_dir)
    settings = saved.settings | {"base_fingerprint": base_fingerprint(base_dir)}
    choice = choose_engine("auto", replace(saved, settings=settings), str(base_dir), True, "the export command")
    assert (choice.model_files, choice.notice) == (None, None)


def test_another_device_or_number_type_means_transformers(own_dir):
    saved = check_trained_folder(own_dir)
    choice = choose_engine("auto", saved, None, False, "")
    assert (choice.model_files, choice.notice) == (None, None)
    assert choice.saved.base.folder is not None


def test_a_missing_package_is_told_with_its_command(own_dir, monkeypatch):
    monkeypatch.setattr("llama_cpp_server.PACKAGE", "no_such_package")
    files, notice = choose(own_dir, "auto")
    assert files is None
    assert notice.endswith("model-f32.gguf: llama.cpp is not installed, which reads it; pip install xllamacpp")
    with pytest.raises(ScriptError, match="llama.cpp is not installed"):
        choose(own_dir, "llama.cpp")


def other_training(content, folder):
    write_saved_model(folder, check_saved_model(folder).base_dir, max_length=160, adapter_scale=0.3)
    return content


DAMAGES = {
    "of another training than": other_training,
    "is no GGUF file, or is cut or damaged": lambda content, folder: content[:-100],
    "is no GGUF file": lambda content, folder: b"PK\3\4" * 100,
    "cut or damaged; remove it": lambda content, folder: content[:4] + b"\x09" + content[5:],
    "written by another version": lambda content, folder: content.replace(
        FORMAT_KEY.encode() + (4).to_bytes(4, "little") + b"\1", FORMAT_KEY.encode() + (4).to_bytes(4, "little") + b"\2"
    ),
    "not written by this project": lambda content, folder: content.replace(FORMAT_KEY.encode(), b"p" * len(FORMAT_KEY)),
}


@pytest.mark.parametrize("words", DAMAGES)
def test_other_files_are_refused_in_words(own_dir, words):
    path = own_dir / "gguf/model-f32.gguf"
    path.write_bytes(DAMAGES[words](path.read_bytes(), own_dir))
    with pytest.raises(ScriptError, match=words) as raised:
        choose(own_dir, "llama.cpp")
    assert "\n" not in str(raised.value)
    files, notice = choose(own_dir, "auto")
    assert (files, notice) == (None, str(raised.value))


def test_damaged_headers_never_raise_anything_else(own_dir, tmp_path):
    content = (own_dir / "gguf/model-f32.gguf").read_bytes()
    rng = random.Random(0)
    num_refused = 0
    path = tmp_path / "damaged.gguf"
    for _ in range(300):
        damaged = bytearray(content)
        for _byte in range(rng.randint(1, 4)):
            damaged[rng.randrange(600)] = rng.choice([0, 1, 127, 255, rng.randrange(256)])
        path.write_bytes(damaged)
        try:
            read_header(path)
        except NotGguf:
            num_refused += 1
    assert num_refused > 30


def test_a_whole_but_hostile_file_is_one_line(own_dir):
    """What llama.cpp itself refuses, behind a header that is right."""
    path = own_dir / "gguf/model-f32.gguf"
    path.write_bytes(path.read_bytes().replace(b"llama.block_count", b"llama.block_cound"))
    saved = check_trained_folder(own_dir)
    files = find_model_files(saved)
    assert isinstance(files, ModelFiles)
    with (
        pytest.raises(ScriptError, match="model-f32.gguf: llama.cpp cannot load it"),
        run_llama_cpp_model(saved, files),
    ):
        pass
