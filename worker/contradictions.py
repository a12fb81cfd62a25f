"""Settings that are possible alone and not together: one line each, with the cure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from models import choices

if TYPE_CHECKING:
    from collections.abc import Iterator

    from worker.sections import (
        KafkaSettings,
        ModelSettings,
        MonitorSettings,
        NetworkSettings,
        RedisSettings,
        TrainingSettings,
    )
    from worker.sections_updating import ApiSettings, JudgementSettings, RetrainingSettings

MAX_RING_STEPS = 1_000_000
MAX_HELD_OUT = 0.6


def of_model(model: ModelSettings) -> Iterator[str]:
    """What contradicts itself in [model]."""
    if len(set(model.features)) != len(model.features):
        yield f"model.features = {', '.join(model.features)}: a name stands there twice: leave one out"
    if model.target not in model.features:
        yield (
            f"model.target = {model.target!r} is not among model.features = {', '.join(model.features)}: "
            "add it there, or name one of them"
        )
    if model.period.ms % model.interval.ms:
        yield (
            f"model.period = {model.period} is not a multiple of model.interval = {model.interval}: "
            "set the cycle's length in whole steps"
        )
    if model.max_gap >= model.period:
        yield f"model.max_gap = {model.max_gap} is not below model.period = {model.period}: shorten it"
    if model.half_life < model.interval:
        yield f"model.half_life = {model.half_life} is below model.interval = {model.interval}: lengthen it"


def of_network(network: NetworkSettings, period_steps: int, ring_steps: int, needed: int) -> Iterator[str]:
    """What the inputs of [network] ask of a ring of `ring_steps` and do not get."""
    for problem, cure in choices.of_transform(network.transform, network.transform_lambda):
        yield f"network.{problem}: {cure}"
    if network.form == "season" and period_steps == 1:
        yield "network.form is 'season' and the period is one step: use 'correction', which is the same there"
    longest = max(network.season_lags, default=0)
    if longest and longest >= period_steps:
        yield f"network.season_lags = {longest} is not below the period of {period_steps} steps: leave it out"
    elif ring_steps < needed:
        yield f'model.ring = {ring_steps} is below the {needed} that period and [network] need: set it to "auto"'
    elif ring_steps > MAX_RING_STEPS:
        yield (
            f"{ring_steps} steps would be kept for each series, the limit is {MAX_RING_STEPS}: "
            "set a longer model.interval, a shorter model.period or a smaller network.season_mean"
        )


def of_services(kafka: KafkaSettings, redis: RedisSettings) -> Iterator[str]:
    """What contradicts itself in [kafka] and [redis]."""
    topics = (kafka.observations, kafka.predictions, kafka.dead_letters)
    if len(set(topics)) != len(topics):
        yield f"kafka topics {', '.join(topics)}: two are the same: give each its own"
    if kafka.security_protocol.startswith("SASL") and not kafka.username:
        yield f"kafka.username is empty and kafka.security_protocol = {kafka.security_protocol}: set it"
    if kafka.password is not None and kafka.password_file:
        yield "kafka.password and kafka.password_file are both set: leave one out"
    if redis.password is not None and redis.password_file:
        yield "redis.password and redis.password_file are both set: leave one out"


def of_monitor(monitor: MonitorSettings) -> Iterator[str]:
    """What contradicts itself in [monitor]: one that leads must be able to say so again before it counts as silent."""
    if monitor.lease.ms < 2 * monitor.poll.ms:
        yield (
            f"monitor.lease = {monitor.lease} is below twice monitor.poll = {monitor.poll}: "
            "monitors would take over from each other all the time: set a longer lease"
        )


def of_training(training: TrainingSettings) -> Iterator[str]:
    """What [training] holds out that it would need to learn from, and what of its optimiser would do nothing."""
    for problem, cure in choices.of_optimiser(training.optimiser, training.momentum, training.weight_decay):
        yield f"training.{problem}: {cure}"
    held_out = training.validation + training.evaluation
    if held_out > MAX_HELD_OUT:
        yield (
            f"training.validation + training.evaluation = {held_out:g} is above {MAX_HELD_OUT} of the span: "
            "leave more to train on"
        )


def of_updating(retraining: RetrainingSettings, judgement: JudgementSettings, api: ApiSettings) -> Iterator[str]:
    """What contradicts itself in [retraining], [judgement] and [api]."""
    held_out = retraining.validation + retraining.evaluation
    if held_out > MAX_HELD_OUT:
        yield (
            f"retraining.validation + retraining.evaluation = {held_out:g} is above {MAX_HELD_OUT} of the new data: "
            "leave more to train on"
        )
    if retraining.history < retraining.new_data:
        yield (
            f"retraining.history = {retraining.history} is below retraining.new_data = {retraining.new_data}: "
            "no retraining would ever have its data"
        )
    if judgement.alpha > judgement.budget:
        yield (
            f"judgement.alpha = {judgement.alpha:g} is above judgement.budget = {judgement.budget:g}: "
            "one trial would take more than all together may"
        )
    if judgement.harm > judgement.deadline:
        yield (
            f"judgement.harm = {judgement.harm} is above judgement.deadline = {judgement.deadline}: "
            "no trial for harm would come to an end"
        )
    if judgement.gate == "offline" and judgement.trial != "by-trigger":
        yield (
            f'judgement.trial = "{judgement.trial}" is of no effect with judgement.gate = "offline": '
            "there is no trial, leave one of them out"
        )
    if api.token is not None and api.token_file:
        yield "api.token and api.token_file are both set: leave one out"
