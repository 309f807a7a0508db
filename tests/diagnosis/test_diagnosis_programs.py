"""The labelled programs, trained through ``watch()`` and diagnosed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from labelled_programs import Program, all_programs, faulty_programs, healthy_programs
from scoring import all_results, evaluated, score, seed_of

from inspector.diagnosis.finding import CODES

SOME = (
    "deep_sigmoid", "recurrent_without_clipping", "bias_far_below_zero", "scaled_tanh",
    "nan_in_a_sample", "never_cleared", "sgd_diverges", "sgd_stands_still", "constant_weights",
    "softmax_module_before_cross_entropy", "activation_forgotten_once", "nll_of_probabilities",
    "pixels_up_to_255", "optimizer_got_a_part", "column_against_row", "one_rare_class",
    "few_samples", "eval_after_validation", "sorted_by_class", "one_image_at_a_time",
    "cleared_before_the_step", "never_stepped", "relu_behind_the_scores",
    "log_likelihood_without_its_minus", "somewhat_small_in_every_layer", "summed_over_the_batch",
    "clipped_to_a_thousandth",
)  # fmt: skip
SOUND = (
    "frozen_backbone", "gradient_accumulation", "adversarial_pair", "warm_up", "several_outputs",
    "clipped_recurrent", "small_loss_from_the_start", "normalised_inside",
    "queries_before_anything_else",
)  # fmt: skip
SEED = 60

torch.set_num_threads(1)


def named(*names: str) -> list[Program]:
    return [program for program in all_programs() if program.name in names]


def test_there_are_enough_programs_of_every_code() -> None:
    assert {program.code for program in faulty_programs()} == set(CODES)
    assert len(faulty_programs()) >= 60
    assert len(healthy_programs()) >= 20


@pytest.mark.parametrize("program", named(*SOME), ids=lambda program: program.name)
def test_a_fault_is_named_first_and_its_twin_is_left_alone(
    program: Program, tmp_path: Path
) -> None:
    seed = seed_of(program, SEED)
    broken = evaluated(program, seed, True, tmp_path)
    assert broken.codes[:1] == [program.code], broken.findings
    repaired = evaluated(program, seed, False, tmp_path)
    assert not repaired.alarmed, repaired.findings


@pytest.mark.parametrize("program", named(*SOUND), ids=lambda program: program.name)
def test_an_odd_but_healthy_program_is_left_alone(program: Program, tmp_path: Path) -> None:
    result = evaluated(program, seed_of(program, SEED), False, tmp_path)
    assert result.error == ""
    assert not result.alarmed, result.findings


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_whole_suite_reaches_the_demanded_score() -> None:
    results = all_results(all_programs(), [61])
    counted = score(results)
    assert counted.first >= 0.85 * counted.faulty, counted.text
    assert counted.among_three >= 0.95 * counted.faulty, counted.text
    assert counted.alarmed <= 0.05 * counted.sound, counted.text
