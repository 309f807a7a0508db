"""What the card says of a NaN whose own step could not be run again."""

from __future__ import annotations

from inspector.events import NonFinite, Origin, StoredEvent
from inspector.views.repair import origin_card


def events(origin: Origin, step: int, first: int) -> list[StoredEvent]:
    seen = NonFinite(where="loss", count=1)
    return [StoredEvent(1, first, 0, 0.0, 0, seen), StoredEvent(2, step, 0, 0.0, 0, origin)]


def origin(phase: str) -> Origin:
    tensor = {"name": "w", "shape": [2], "dtype": "float32", "low": None, "high": 1234.5678}
    return Origin(phase=phase, op="parameter w", value="NaN", tensors=[tensor])


def test_a_nan_found_one_step_late_says_what_would_find_it_in_time() -> None:
    card = origin_card(events(origin("parameters"), 231, 230))
    assert card is not None
    assert card.missed.startswith("Step 230, where it began, could not be run again:")
    assert "loss_fn=criterion" in card.missed


def test_a_nan_found_in_its_own_step_needs_no_advice() -> None:
    for card in (
        origin_card(events(origin("parameters"), 230, 230)),
        origin_card(events(origin("forward"), 231, 230)),
    ):
        assert card is not None
        assert not card.missed


def test_a_range_without_finite_numbers_is_a_dash() -> None:
    card = origin_card(events(origin("forward"), 3, 3))
    assert card is not None
    assert (card.tensors[0]["Smallest"], card.tensors[0]["Largest"]) == ("–", "1234.57")


def test_a_nan_of_the_data_is_in_no_module_and_not_in_the_loss() -> None:
    data = Origin(phase="data", op="the batch's input", value="NaN", module_type="Sequential")
    card = origin_card(events(data, 3, 3))
    assert card is not None and "Module" not in dict(card.rows)
    seen = NonFinite(where="loss", op="the batch's input", module_type="Sequential", count=1)
    assert seen.text == "Non-finite loss, born in the batch's input."
    loss = Origin(phase="forward", op="log", value="NaN", module_type="NLLLoss", in_loss=True)
    card = origin_card(events(loss, 3, 3))
    assert card is not None and dict(card.rows)["Module"] == "the loss (NLLLoss)"


def test_a_gradient_of_the_loss_is_told_once_with_what_would_name_its_line() -> None:
    chain = ["AddmmBackward0", "torch::autograd::AccumulateGrad"]
    loss = Origin(phase="loss", op="the loss", module_type="Net", in_loss=True, chain=chain)
    card = origin_card(events(loss, 3, 3))
    assert card is not None
    rows = dict(card.rows)
    assert not {"Operation", "Pass", "Module"} & rows.keys()
    assert "set_detect_anomaly" in rows["Its line"]
    assert rows["Passed on by"] == "AddmmBackward0 → AccumulateGrad"
    card = origin_card(events(origin("forward"), 3, 3))
    assert card is not None and "Its line" not in dict(card.rows)
