"""A damaged trained folder or base is refused in one line or works; no mutation is a bug of ours."""

from fuzz_loading import BASE_NAMES, SAVED_NAMES, load_base, load_saved, try_mutations


def test_a_damaged_trained_folder_works_or_is_one_line(tiny_saved_model_dir):
    counts, failures = try_mutations(tiny_saved_model_dir, SAVED_NAMES, load_saved, 30, seed=0)
    assert not failures, failures
    assert min(counts["loaded"], counts["refused"]) > 3


def test_a_damaged_base_works_or_is_one_line(tiny_base_dir):
    counts, failures = try_mutations(tiny_base_dir, BASE_NAMES, load_base, 30, seed=0)
    assert not failures, failures
    assert min(counts["loaded"], counts["refused"]) > 3
