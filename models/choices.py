"""What can be chosen by name for networks and trainings, and which choices contradict each other; without NumPy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from collections.abc import Iterator

Cell = Literal["lstm", "gru"]
Form = Literal["correction", "season", "plain"]
TransformName = Literal["none", "log", "yeo-johnson"]
Activation = Literal["tanh", "softsign", "hard_tanh", "relu6"]
Optimiser = Literal["adam", "adamw", "rmsprop", "sgd"]
Start = Literal["glorot", "he", "lecun", "orthogonal"]
HeadStart = Literal["zero", "drawn"]

CELLS: tuple[Cell, ...] = get_args(Cell)
FORMS: tuple[Form, ...] = get_args(Form)
TRANSFORMS: tuple[TransformName, ...] = get_args(TransformName)
ACTIVATIONS: tuple[Activation, ...] = get_args(Activation)
OPTIMISERS: tuple[Optimiser, ...] = get_args(Optimiser)
STARTS: tuple[Start, ...] = get_args(Start)
HEAD_STARTS: tuple[HeadStart, ...] = get_args(HeadStart)
LAMBDA = 0.5  # of the Yeo-Johnson transform, unless another is given


def of_transform(name: str, power: float) -> Iterator[tuple[str, str]]:
    """What of a transform and its λ can't be, or would do nothing: what is wrong, and the cure."""
    if not 0.0 <= power <= 2.0:
        yield f"transform_lambda is {power:g}", "it must be 0 to 2: beyond, some forecasts would stand for no value"
    elif name != "yeo-johnson" and power != LAMBDA:
        yield f"transform_lambda is {power:g} and transform is {name!r}", "only 'yeo-johnson' takes it"
    elif name == "yeo-johnson" and power == 1.0:
        yield "transform is 'yeo-johnson' and transform_lambda is 1", "that changes nothing: use transform 'none'"


def of_optimiser(name: str, momentum: float, weight_decay: float) -> Iterator[tuple[str, str]]:
    """What of an optimiser's settings would do nothing: what is wrong, and the cure."""
    if momentum and name != "sgd":
        yield f"momentum is {momentum:g} and optimiser is {name!r}", "only 'sgd' takes momentum"
    if weight_decay and name != "adamw":
        problem = f"weight_decay is {weight_decay:g} and optimiser is {name!r}"
        yield problem, "only 'adamw' takes it; l2 is there for all"
    if name == "adamw" and not weight_decay:
        yield "optimiser is 'adamw' and weight_decay is 0", "set weight_decay above 0, or use 'adam'"
