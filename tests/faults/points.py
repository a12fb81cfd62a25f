"""Every point at which the simulator crashes a consumer, and every fault: a run that is long enough hits them all.

A call that is not listed here and is made all the same is a finding of `benchmarks/simulator.py`.
"""

from __future__ import annotations

from tests.faults.boundaries import CLOSING, JUDGING, LOOP, OPENING, RETRAINING, SPIN_UP, SWAP, Point

# Calls whose answer may be lost, or never come: crashed at before and after.
CALLS = {
    OPENING: (
        "commit.roster function_load get.roster hgetall.head hgetall.registry.state hgetall.snapshot_index "
        "hmget.carried hmget.series hset.registry.state load lrange.names take xrange.blocks xrange.refusals"
    ),
    LOOP: (
        "commit commit.empty commit.roster hgetall.head mark sink.forecast sink.letter snapshot source.commit "
        "source.poll trim xlen.blocks xrange.blocks"
    ),
    SPIN_UP: "hgetall.head hmget.series llen.names xrange.blocks",
    SWAP: "commit.roster disk hgetall.head hgetall.registry.state load note trim xlen.blocks xrange.blocks",
    CLOSING: "commit mark sink.forecast sink.letter snapshot",
    JUDGING: (
        "hget.registry.verdict_versions hget.registry.verdicts hgetall.registry.state hmget.registry.gate "
        "monitor.change monitor.lease registry.nominate registry.promote registry.rollback xrevrange.registry.audit"
    ),
    RETRAINING: (
        "get.registry.alpha_spent get.registry.verdict_draft hget.registry.verdicts hgetall.registry.infos "
        "hgetall.registry.state hmget.registry.verdicts registry.nominate registry.register updating.answered "
        "updating.claim updating.draft updating.keep updating.waiting updating.write xrevrange.registry.audit "
        "zrevrange.registry.verdict_order"
    ),
}
# Calls that answer at once, or only tell something: crashed at once.
WORDS = {
    OPENING: "observer.rewound source.committed source.log_span source.start",
    LOOP: (
        "observer.acknowledged observer.block observer.commit observer.lag observer.redis_up observer.rewound "
        "observer.roster"
    ),
    SWAP: (
        "observer.block observer.commit observer.diverged observer.lag observer.roster observer.spun_up "
        "observer.swapped"
    ),
    CLOSING: "observer.acknowledged observer.block observer.commit source.close",
}
# Passed so seldom that a run need not crash at them.
SELDOM = {
    CLOSING: (
        "commit.empty commit.roster function_load hgetall.head observer.lag observer.roster observer.swapped trim "
        "xlen.blocks xrange.blocks"
    ),
    LOOP: "function_load hgetall.registry.state",
    SWAP: "commit commit.empty function_load observer.rewound",
    SPIN_UP: "hmget.carried",
    OPENING: "commit.empty hdel.registry.state observer.redis_up observer.roster",
    JUDGING: "function_load hgetall.registry.infos",
    RETRAINING: "function_load updating.ask updating.leave",
}
POINTS = (
    *(
        Point(call, phase, when)
        for phase, calls in CALLS.items()
        for call in calls.split()
        for when in ("before", "after")
    ),
    *(Point(word, phase, "at") for phase, words in WORDS.items() for word in words.split()),
)
KNOWN = {(point.phase, point.label) for point in POINTS} | {
    (p, c) for p, calls in SELDOM.items() for c in calls.split()
}
FAULTS = (
    "Kafka away", "an updater killed", "approve", "arrived twice", "arrived, not acknowledged", "clear",
    "crash between two steps", "doubled call", "expelled, at work", "frozen", "gate: nominate", "gate: promote",
    "guard: rollback", "late call", "late call arrived", "left in order", "load unanswered", "lease ran out",
    "lost answer", "meanwhile: acknowledge", "meanwhile: arrive", "meanwhile: cut", "meanwhile: operate",
    "meanwhile: step", "meanwhile: sync", "nominate", "pause", "producer full", "promote", "rebalance",
    "restart not noticed", "restart noticed", "restart, nothing lost", "resume", "retrainer: nominate",
    "rewound", "rollback", "rollback to", "tail cut", "thawed", "unreachable", "version refused",
)  # fmt: skip
