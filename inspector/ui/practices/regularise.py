"""Against overfitting, and for keeping a part of the model as it is."""

from __future__ import annotations

import dataclasses
from typing import Any

import streamlit as st

from inspector.config import RunConfig
from inspector.numerals import short
from inspector.ui.fields import number_field
from inspector.ui.practices.modules import Module, modules_of, path_choice

_MODED = ("BatchNorm", "InstanceNorm", "SyncBatchNorm", "Dropout", "AlphaDropout")


def regularise_fields(config: RunConfig, key: str) -> dict[str, Any] | None:
    """``weight_decay``, ``early_stopping`` and the controls ``frozen`` and ``eval_modules``."""
    modules = modules_of(config)
    first, second = st.columns(2, gap="medium")
    with first:
        stopping = number_field(
            "Stop early after",
            config.early_stopping,
            least=0,
            key=f"{key}/stopping",
            help="Training ends when the validation loss has not improved for so many validations "
            "in a row; 0 never stops early. The best weights are kept as a checkpoint.",
        )
        if stopping and not config.validation:
            st.error(
                "Early stopping looks at the validation loss; hold samples out above.",
                icon=":material/block:",
            )
        st.caption(
            f"Weight decay is {short(config.weight_decay, 6)}: it is set beside the "
            "learning rate. Dropout is an argument of a model that has it."
        )
    controls = config.controls
    with second:
        frozen = path_choice(
            "Frozen modules",
            modules,
            list(controls.frozen),
            key=f"{key}/{config.model}/frozen",
            text="Their weights stay as they are: no gradient is computed for them. They can be "
            "freed while the run goes on.",
        )
        evaluated = eval_choice(
            modules, list(controls.eval_modules), key=f"{key}/{config.model}/eval"
        )
    made = dataclasses.replace(controls, frozen=tuple(frozen), eval_modules=tuple(evaluated))
    return {"early_stopping": stopping, "controls": made}


def eval_choice(modules: list[Module], current: list[str], *, key: str) -> list[str]:
    """A field of types or paths of modules that behave differently in eval mode."""
    options = list(dict.fromkeys([*eval_options(modules), *current]))
    return [
        str(name)
        for name in st.multiselect(
            "Held in eval mode",
            options,
            default=current,
            accept_new_options=True,
            placeholder="none",
            key=key,
            help="Types or paths. In eval mode dropout lets everything through, and batch "
            "normalisation uses what it has learnt instead of the batch's own mean and spread.",
        )
    ]


def eval_options(modules: list[Module]) -> list[str]:
    """Types, then paths, of the modules that behave differently in eval mode."""
    moded = [module for module in modules if module.type.startswith(_MODED)]
    return list(dict.fromkeys([*(one.type for one in moded), *(one.path for one in moded)]))
