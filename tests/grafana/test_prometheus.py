"""Prometheus' files: valid, tested alert by alert, of metrics that there are, and with a runbook for each alert."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import pytest
import yaml
from prometheus_client import generate_latest

from tests.grafana.exported import exported
from tests.grafana.expressions import read, unknown
from worker.cli import killick
from worker.metrics import ConsumerMetrics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "grafana" / "prometheus"
RUNBOOKS = ROOT / "docs" / "runbooks"
SECTIONS = ["What it means", "What to look at", "What to do", "When it is over"]
SEVERITIES = {"critical", "warning", "info"}

Rule = dict[str, Any]


def rules(name: str) -> list[Rule]:
    """The rules of one file."""
    groups = yaml.safe_load((FOLDER / "rules" / f"{name}.yml").read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


ALERTS = {rule["alert"]: rule for rule in rules("alerts")}
RECORDED = {rule["record"]: rule for rule in rules("recording")}
TESTS = {p.name: yaml.safe_load(p.read_text(encoding="utf-8")) for p in sorted((FOLDER / "tests").glob("*.yml"))}
GROUPS = [group for file in TESTS.values() for group in file["tests"]]


def known() -> dict[str, frozenset[str]]:
    """Every metric that rules may read, with its labels: of our processes, of Prometheus, and recorded ones."""
    found = exported()
    consumer = ConsumerMetrics("m")
    consumer.block({"observations": 1, "refused.late": 1, "forecasts": 1}, 1)  # a counter's series begin with an event
    served = re.findall(r"^# TYPE (\w+_created) ", generate_latest(consumer.registry).decode(), re.MULTILINE)
    found |= {name: found[name.removesuffix("_created") + "_total"] for name in served}
    found["ALERTS"] |= {label for rule in ALERTS.values() for label in read(rule["expr"]).grouped}
    return found | {name: frozenset(name.split(":")[0].split("_")) for name in RECORDED}


def queries_of(rule: Rule) -> list[str]:
    """The expression of a rule, and those that its annotations ask."""
    asked = re.findall(r'printf "(\w[^"]*%q[^"]*)"', " ".join(rule.get("annotations", {}).values()))
    return [rule["expr"], *(one.replace("%q", '"x"') for one in asked)]


def fenced(page: Path, kind: str = "") -> list[str]:
    """The blocks of a page: those of a kind, or those without one."""
    text = page.read_text(encoding="utf-8")
    found = re.findall(r"^( *)```(\w*)\n(.*?)^\1```", text, re.MULTILINE | re.DOTALL)
    return [body for _, said, body in found if said == kind]


def run(promtool: str, *words: str | Path) -> tuple[int, str]:
    """Exit code and output of promtool."""
    done = subprocess.run([promtool, *map(str, words)], cwd=FOLDER, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A copy of rules and tests that a test may spoil."""
    return Path(shutil.copytree(FOLDER, tmp_path / "prometheus"))


@pytest.fixture
def of_alerts(copied: Path) -> Path:
    """Such a copy with the tests of alerts only."""
    for name in ("healthy.yml", "recording.yml"):
        (copied / "tests" / name).unlink()
    return copied


def spoil(folder: Path, name: str, change: Callable[[Rule], object]) -> None:
    """Change every rule of a file."""
    path = folder / "rules" / f"{name}.yml"
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    for group in content["groups"]:
        for rule in group["rules"]:
            change(rule)
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")


def hasty(rule: Rule, **more: str) -> None:
    """Let an alert fire at once; without annotations, whose queries take most of the time."""
    rule.update(annotations={}, **more)
    rule.pop("for", None)


def failures(promtool: str, folder: Path) -> list[tuple[str, str]]:
    """What the rule tests of a folder find: alert or expression, and what was expected of it."""
    _, output = run(promtool, "test", "rules", *sorted((folder / "tests").glob("*.yml")))
    alerts = re.findall(r"alertname: (\w+), time: [^,]*,\s*exp:\[(.*?)\],\s*got:", output, re.DOTALL)
    return alerts + [(expr, "") for expr in re.findall(r'expr: "(.*)", time', output)]


@pytest.mark.parametrize("name", ["prometheus.yml", "prometheus.compose.yml"])
def test_the_configuration_is_valid(promtool: str, name: str) -> None:
    """Prometheus' own tool accepts it, with its rules."""
    code, output = run(promtool, "check", "config", "--lint-fatal", name)
    assert code == 0, output
    assert all(f"rules/{part}.yml" in output for part in ("alerts", "recording"))


def test_both_configurations_are_one_but_for_where_the_processes_are() -> None:
    """On a machine and in docker compose the same is scraped as the same jobs, at the same intervals and rules."""
    configs = [yaml.safe_load((FOLDER / name).read_text()) for name in ("prometheus.yml", "prometheus.compose.yml")]
    found = [job.popitem() for config in configs for job in config["scrape_configs"]]
    assert configs[0] == configs[1]
    jobs = [f"killick-{kind}" for kind in ("consumer", "monitor", "retrainer", "api")]
    assert [kind for kind, _ in found] == 4 * ["file_sd_configs"] + 4 * ["dns_sd_configs"]
    assert [job["job_name"] for job in configs[0]["scrape_configs"]] == jobs


def test_targets_on_a_machine_are_the_default_ports() -> None:
    """Who changes nothing is scraped: each process at the port of its setting, in the file that `killick up` writes."""
    found = {p.stem: yaml.safe_load(p.read_text(encoding="utf-8")) for p in (FOLDER / "targets").glob("*.yml")}
    assert found == {
        "consumers": [{"targets": ["localhost:9464"]}],
        "monitors": [{"targets": ["localhost:9465"]}],
        "retrainers": [{"targets": ["localhost:9466"]}],
        "apis": [{"targets": ["localhost:9467"]}],
        "alertmanagers": [],
    }


@pytest.mark.parametrize("name", sorted(TESTS))
def test_the_rules_pass_their_tests(promtool: str, name: str) -> None:
    """Every rule, evaluated over made-up series, gives what each test says."""
    code, output = run(promtool, "test", "rules", f"tests/{name}")
    assert code == 0, output


def judged() -> Iterator[tuple[str, bool]]:
    """Every alert that a test looks at, and whether it is to fire there."""
    for group in GROUPS:
        for one in group.get("alert_rule_test", ()):
            yield one["alertname"], bool(one["exp_alerts"])


@pytest.mark.parametrize("name", sorted(ALERTS))
def test_every_alert_is_tested_firing_and_silent(name: str) -> None:
    """There is a moment at which it must fire, and one at which it must not."""
    assert {fires for tested, fires in judged() if tested == name} == {True, False}


def test_tests_look_at_alerts_that_there_are() -> None:
    """A misspelt alert is silent for promtool: no test may look at one."""
    assert {name for name, _ in judged()} == set(ALERTS)


def test_an_alert_that_never_fires_is_found(promtool: str, of_alerts: Path) -> None:
    """Each alert whose expression gives nothing fails a test of its own."""
    spoil(of_alerts, "alerts", lambda rule: rule.update(expr="vector(1) < 0"))
    assert {name for name, expected in failures(promtool, of_alerts) if expected.strip()} >= set(ALERTS)


def test_an_alert_that_always_fires_is_found(promtool: str, of_alerts: Path) -> None:
    """Each alert that fires all the time fails a test in which it must be silent."""
    spoil(of_alerts, "alerts", lambda rule: hasty(rule, expr="vector(1)"))
    assert {name for name, expected in failures(promtool, of_alerts) if not expected.strip()} >= set(ALERTS)


def test_an_alert_that_does_not_wait_is_found(promtool: str, of_alerts: Path) -> None:
    """Each alert with a `for` fails a test without it."""
    spoil(of_alerts, "alerts", hasty)
    early = {name for name, expected in failures(promtool, of_alerts) if not expected.strip()}
    assert early >= {name for name, rule in ALERTS.items() if "for" in rule}


def test_a_wrong_figure_is_found(promtool: str, copied: Path) -> None:
    """Each recording rule that gives twice its value, and one more, fails a test of its own."""
    spoil(copied, "recording", lambda rule: rule.update(expr=f"({rule['expr']}) * 2 + 1"))
    for path in (copied / "tests").glob("*.yml"):
        if path.name != "recording.yml":
            path.unlink()
    found = {name for expr, _ in failures(promtool, copied) for name in read(expr).metrics}
    assert found == set(RECORDED)


@pytest.mark.parametrize(
    "change",
    [
        lambda rule: rule.pop("for", None),
        lambda rule: rule.update(expr=rule["expr"].replace(">= 100", ">= 0")),
        lambda rule: rule.update(expr=rule["expr"].replace("> 0.01", "> 0.001")),
    ],
    ids=["without waiting", "with few pairs", "at one bad record"],
)
def test_a_false_alarm_at_the_start_is_found(promtool: str, copied: Path, change: Callable[[Rule], object]) -> None:
    """The test of a healthy model fails for rules that do not wait, or judge by too little."""
    for name in ("alerts", "recording"):
        spoil(copied, name, change)
    code, output = run(promtool, "test", "rules", copied / "tests" / "healthy.yml")
    assert code == 1, output


@pytest.mark.parametrize("rule", [*ALERTS.values(), *RECORDED.values()], ids=[*ALERTS, *RECORDED])
def test_rules_read_what_our_processes_export(rule: Rule) -> None:
    """Every metric and every label, also those of queries in annotations, is one that somebody exports or records."""
    for expr in queries_of(rule):
        assert unknown(expr, known()) == [], expr


@pytest.mark.parametrize(
    ("expr", "found"),
    [
        (
            "sum by (model) (rate(killick_observation_total[5m])) > 0",
            ["metric killick_observation_total", "label model"],
        ),
        ('killick_redis_up{modell="x"} == 0', ["label modell of killick_redis_up"]),
        ("max by (partition) (killick_paused offset 1h)", ["label partition"]),
        ("killick_paused and on (series) killick_redis_up", ["label series"]),
        ('killick_skill_score{lead="all"} < 0 unless on (job) absent(up)', []),
        ("histogram_quantile(0.9, sum by (le) (rate(killick_swap_seconds_bucket[1h]))) > 1e3", []),
    ],
)
def test_an_unknown_name_is_found(expr: str, found: list[str]) -> None:
    """A metric, a matcher's label or a label of a grouping that nobody has is told, and nothing else is."""
    assert unknown(expr, known()) == found


def test_recorded_names_say_which_labels_are_left() -> None:
    """Labels, metric, operation: promtool finds just the labels that the name begins with, or some of them."""
    asked = [one for group in GROUPS for one in group.get("promql_expr_test", ())]
    samples = [sample["labels"] for one in asked for sample in one["exp_samples"]]
    for name in RECORDED:
        labels, metric, operation = name.split(":")
        found = [set(re.findall(r"(\w+)=", text)) for text in samples if text.startswith(f"{name}{{")]
        assert all(one <= set(labels.split("_")) for one in found), name
        assert metric
        assert operation


@pytest.mark.parametrize("name", sorted(ALERTS))
def test_every_alert_says_what_people_need(name: str) -> None:
    """A severity, a summary, a description with figures, and the link to its runbook."""
    rule = ALERTS[name]
    assert set(re.findall(r"critical|warning|info", rule["labels"]["severity"])) <= SEVERITIES
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
    assert rule["annotations"]["runbook_url"] == f"{{{{ $externalURL }}}}/user/{name}.md"


@pytest.mark.parametrize("name", sorted(ALERTS))
def test_every_alert_has_a_runbook(name: str) -> None:
    """A page of its name: what it means, what to look at, what to do, when it is over; and the list has it."""
    text = (RUNBOOKS / f"{name}.md").read_text(encoding="utf-8")
    assert text.startswith(f"# {name}\n")
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == SECTIONS
    assert all(len(body.strip()) > 20 for body in re.split(r"^## .*$", text, flags=re.MULTILINE)[1:])
    severity = {"critical", "warning", "info"} & set(re.findall(r"[a-z]+", ALERTS[name]["labels"]["severity"]))
    listed = re.search(
        rf"^\| \[{name}\]\({name}\.md\) \| (.*?) \| (.*?) \|$", (RUNBOOKS / "README.md").read_text(), re.MULTILINE
    )
    assert listed is not None
    assert set(listed[1].split(", ")) == severity
    assert f"\n\n{listed[2]}\n\n" in text


def test_there_is_no_runbook_without_an_alert() -> None:
    """Pages, and alerts that pages name, are there."""
    pages = {path.stem for path in RUNBOOKS.glob("*.md")} - {"README"}
    assert pages == set(ALERTS)
    named = {name for path in RUNBOOKS.glob("*.md") for name in re.findall(r"Killick[A-Z]\w+", path.read_text())}
    assert named <= pages


def wrong_command(words: list[str]) -> str:
    """What is wrong with a command line of ours: an unknown command or option; empty when nothing is."""
    at: click.Command = killick
    for word in words:
        if word.startswith("-"):
            if not any(word in (*asked.opts, *asked.secondary_opts) for asked in at.params):
                return f"{at.name} has no {word}"
        elif isinstance(at, click.Group):
            more = at.get_command(click.Context(at), word)
            if more is None:
                return f"no command {word}"
            at = more
    return ""


def commands(text: str) -> list[list[str]]:
    """The command lines of `killick` in a text, without comments and quoted words."""
    found = re.findall(r"\bkillick ((?:[a-z]+)(?: [^\n#`]*)?)", text)
    return [re.sub(r'"[^"]*"', "x", line).split() for line in found]


@pytest.mark.parametrize("page", sorted(RUNBOOKS.glob("*.md")), ids=lambda page: page.stem)
def test_runbooks_name_commands_that_there_are(page: Path) -> None:
    """Whoever is woken at night can type what stands there: command, subcommand and options exist."""
    said = [*fenced(page), *re.findall(r"`(killick [a-z][^`]*)`", page.read_text(encoding="utf-8"))]
    for line in (line for body in said for line in commands(body)):
        assert wrong_command(line) == "", line


def test_a_command_that_there_is_not_is_found() -> None:
    """A misspelt command, subcommand or option is told."""
    assert [
        wrong_command(line) for line in commands('killick rollbak --to 3\nkillick rollback --too 3 --reason "a -x"')
    ] == [
        "no command rollbak",
        "rollback has no --too",
    ]
    assert wrong_command(["deadletters", "list", "--limit", "5"]) == ""
    assert wrong_command(["deadletters", "lists"]) == "no command lists"


def test_queries_of_runbooks_are_valid(promtool: str, tmp_path: Path) -> None:
    """Each can be pasted into Prometheus, and reads metrics that there are."""
    found = [body.strip() for page in sorted(RUNBOOKS.glob("*.md")) for body in fenced(page, "promql")]
    assert len(found) > 10
    assert [unknown(expr, known()) for expr in found if unknown(expr, known())] == []
    asked = [{"record": f"asked:{number}", "expr": expr} for number, expr in enumerate(found)]
    path = tmp_path / "asked.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "asked", "rules": asked}]}), encoding="utf-8")
    code, output = run(promtool, "check", "rules", path)
    assert code == 0, output
