"""The house: what lies at the top level, and that the README names only what exists."""

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from matplotlib.patches import FancyBboxPatch

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SCRIPTS = sorted(
    path.relative_to(ROOT).as_posix()
    for path in ROOT.glob("src/*/*.py")
    if '__name__ == "__main__"' in path.read_text("utf-8")
)
# What the README names and the scripts make: never in a clone.
MADE_BY_RUNNING = re.compile(
    r"(src/data_preprocessing/(final_outputs|WhatsappChatOriginal)|saved_model|src/chat/conversation|src/chat/corrections|\.demo|\.venv"
    r"|path/to|exported_model)"
)


def tracked_files():
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listing = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return listing.splitlines()


@pytest.fixture(scope="module")
def draw_images():
    spec = importlib.util.spec_from_file_location("draw_images", ROOT / "images/draw_images.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["draw_images"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_visible_top_level_is_exactly_this():
    visible = {name.split("/")[0] for name in tracked_files() if not name.startswith(".")}
    assert visible == {"README.md", "images", "preprocess_start.sh", "requirements.txt", "src", "tests"}


def test_no_private_or_large_file_is_in_git():
    for name in tracked_files():
        assert not re.search(r"\.(jsonl|zip|safetensors|gguf|bin)$|final_outputs/|saved_model/", name), name
        assert (ROOT / name).stat().st_size < 500_000, name


def test_every_path_in_the_readme_exists():
    words = re.findall(r"(?<![\w./-])((?:src|tests|images|\.ci)/[\w./*-]*[\w*/]|[\w]+\.(?:sh|txt|py|png)\b)", README)
    assert len(words) > 20
    names = {path.name for path in ROOT.rglob("*") if ".venv" not in path.parts} | {
        "WhatsappChatOriginal.txt",
        "conversation.txt",
        "loss_curve.png",
    }
    for word in words:
        if "/" in word:
            assert MADE_BY_RUNNING.match(word) or (ROOT / word).exists(), word
        else:
            assert word in names, word


def test_every_flag_in_the_readme_exists():
    sources = "".join(path.read_text(encoding="utf-8") for path in ROOT.glob("src/*/*.py"))
    flags = set(re.findall(r"(?<![\w-])--[a-z][a-z_-]+", README))
    # argparse's own, and those of other programs
    others = {
        "--help", "--index-url", "--port", "--enable-lora", "--max-lora-rank", "--lora-modules", "--chat-template",
        "--multi_gpu", "--num_processes", "--nnodes", "--node-rank", "--master-addr", "--cpu",
        "--force-reinstall", "--install",
    }  # fmt: skip
    assert {flag for flag in flags if f'"{flag}"' not in sources} == others


def test_the_readme_shows_the_block_as_it_is():
    block_re = re.compile(r"^ *(base_model_id = .*)\n *(path_to_data = .*)\n *(saved_model_path = .*)$", re.MULTILINE)
    script = (ROOT / "src/chat/chat_bot.py").read_text(encoding="utf-8")
    assert block_re.findall(README) == block_re.findall(script)
    assert len(block_re.findall(README)) == 1


def test_counts_in_the_readme_are_computed(draw_images):
    shape = draw_images.BaseShape()
    trained = shape.num_lora_weights(rank=32)
    total = shape.num_weights + trained
    assert f"exactly {trained:,} of {total:,} parameters, {100 * trained / total:.4f} %" in " ".join(README.split())


def test_every_figure_is_drawn_used_and_small(draw_images):
    figures = {path.name for path in (ROOT / "images").glob("*.png")}
    assert figures == {"pipeline.png", "lora.png", "four_bit.png", "chat_digest.png"}
    for name in figures:
        assert f"(images/{name})" in README
        assert (ROOT / "images" / name).stat().st_size < 200_000
        assert hasattr(draw_images, f"draw_{name.removesuffix('.png')}")


def test_text_in_a_figure_keeps_clear_of_the_edges_of_its_box(draw_images):
    figure = draw_images.draw_pipeline()
    renderer = figure.canvas.get_renderer()
    (axes,) = figure.axes
    boxes = [patch.get_window_extent(renderer) for patch in axes.patches if isinstance(patch, FancyBboxPatch)]
    room = 0.1 * figure.dpi  # inches
    num_inside = 0
    for text in axes.texts:
        extent = text.get_window_extent(renderer)
        x, y = (extent.x0 + extent.x1) / 2, (extent.y0 + extent.y1) / 2
        for box in boxes:
            if box.contains(x, y):
                num_inside += 1
                assert box.x0 + room <= extent.x0 and extent.x1 <= box.x1 - room, text.get_text()
                assert box.y0 + room <= extent.y0 and extent.y1 <= box.y1 - room, text.get_text()
    assert num_inside == 2 * len(boxes) == 14


def test_no_line_of_a_figure_runs_through_its_legend(draw_images):
    figure = draw_images.draw_four_bit(draw_images.BaseShape())
    figure.draw_without_rendering()
    (axes,) = figure.axes
    legend = axes.get_legend().get_window_extent()
    lines = [axes.transData.transform((line.get_xdata()[0], 0))[0] for line in axes.lines]
    assert len(lines) == 3
    assert not any(legend.x0 <= x <= legend.x1 for x in lines)
    assert not any(legend.overlaps(bar.get_window_extent()) for bar in axes.patches)


def test_requirements_are_pinned_and_torch_stands_first():
    for name in ("requirements.txt", "tests/requirements.txt"):
        lines = [line for line in (ROOT / name).read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
        assert all(re.fullmatch(r"[A-Za-z0-9_.-]+(\[[a-z,]+\])?==[0-9][\w.]*", line) for line in lines), lines
        assert name != "requirements.txt" or lines[0].startswith("torch==")


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_answers_help_without_libraries(script):
    # -S leaves the installed libraries out, as on a computer where nothing has been installed yet.
    result = subprocess.run([sys.executable, "-S", ROOT / script, "--help"], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "usage:" in result.stdout


@pytest.mark.parametrize(
    "script",
    [
        "preprocess_start.sh",
        "src/data_preprocessing/preprocess_start.sh",
        "src/demo/run_demo.sh",
        "src/demo/set_up_venv.sh",
        "tests/run_tests.sh",
        ".ci/run",
    ],
)
def test_shell_scripts_can_be_run(script):
    assert (ROOT / script).stat().st_mode & 0o100
    assert subprocess.run(["bash", "-n", ROOT / script], check=False).returncode == 0
