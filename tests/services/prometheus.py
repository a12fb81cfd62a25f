"""A real Prometheus with Killick's own configuration, which it only speeds up, in a temporary directory."""

from __future__ import annotations

import json
import shutil
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

from models.errors import ServiceUnreachable
from tests.services.scoped import Scoped
from worker.child import Child, free_port

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

START_S = 30.0
ANSWER_S = 30.0
ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "grafana" / "prometheus"
RUNBOOKS = ROOT / "docs" / "runbooks"
MISSING = "needs Prometheus: install it (apt-get install prometheus)"


def missing() -> str:
    """What the machine lacks to run Prometheus and promtool; empty when it lacks nothing."""
    return "" if shutil.which("prometheus") and shutil.which("promtool") else MISSING


class Sample(NamedTuple):
    """One series of an answer: its labels (`__name__` among them) and its value."""

    labels: dict[str, str]
    value: float


class PrometheusServer(Scoped):
    """One server on 127.0.0.1 that scrapes `consumers` and `monitors` (host:port), a context manager.

    `targets` names a folder that somebody else writes consumers.yml and monitors.yml to, as `killick up --targets`
    does. Rules are those of the repository, but for `rules`. `close` removes the data.
    """

    def __init__(
        self,
        consumers: Sequence[str] = (),
        monitors: Sequence[str] = (),
        *,
        targets: Path | None = None,
        rules: Sequence[Path] | None = None,
        interval: str = "500ms",
    ) -> None:
        self.port = free_port()
        self.directory = Path(tempfile.mkdtemp(prefix="killick-prometheus-"))
        if targets is None:
            targets = self.directory / "targets"
            targets.mkdir()
            for name, found in (("consumers", consumers), ("monitors", monitors)):
                (targets / f"{name}.yml").write_text(json.dumps([{"targets": list(found)}]), encoding="utf-8")
        rules = sorted((FOLDER / "rules").glob("*.yml")) if rules is None else rules
        config = self.directory / "prometheus.yml"
        config.write_text(yaml.safe_dump(quick(targets, rules, interval)), encoding="utf-8")
        command = [
            shutil.which("prometheus") or "prometheus",
            f"--config.file={config}",
            f"--storage.tsdb.path={self.directory / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
            f"--web.external-url={self.url}",
            f"--web.user-assets={RUNBOOKS}",
        ]
        self.process = Child("prometheus", command, self.directory / "server.log", self.directory)

    @property
    def url(self) -> str:
        """Where its pages are: `http://127.0.0.1:port`."""
        return f"http://127.0.0.1:{self.port}"

    def query(self, expr: str, at: float | None = None) -> list[Sample]:
        """What an instant query gives, now or at seconds since 1970; a scalar is one sample without labels.

        Raises:
            ServiceUnreachable: Prometheus refused the query, or does not answer.
        """
        found = self.api("query", {"query": expr, **({} if at is None else {"time": str(at)})})
        if found["resultType"] in ("scalar", "string"):
            return [Sample({}, float(found["result"][1]))]
        return [Sample(one["metric"], float(one["value"][1])) for one in found["result"]]

    def query_range(
        self, expr: str, start: float, end: float, step_s: float
    ) -> list[tuple[dict[str, str], list[tuple[float, float]]]]:
        """The series of a query over a span: labels, and (seconds since 1970, value) every `step_s`."""
        words = {"query": expr, "start": str(start), "end": str(end), "step": str(step_s)}
        found = self.api("query_range", words)["result"]
        return [(one["metric"], [(float(at), float(value)) for at, value in one["values"]]) for one in found]

    def rules(self) -> list[dict[str, Any]]:
        """Every rule with its health, its last error and, of alerts, what is pending or fires."""
        return [rule for group in self.api("rules")["groups"] for rule in group["rules"]]

    def targets(self) -> dict[str, dict[str, Any]]:
        """The targets by host:port, with their labels, health and last error."""
        found = self.api("targets")["activeTargets"]
        return {urllib.parse.urlsplit(one["scrapeUrl"]).netloc: one for one in found}

    def api(self, path: str, words: Mapping[str, str] | None = None) -> Any:
        """The data of one call of the HTTP API: `/api/v1/<path>`.

        Raises:
            ServiceUnreachable: it refused the call, or does not answer.
        """
        body = urllib.parse.urlencode(words).encode() if words is not None else None
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/{path}", body, ANSWER_S) as answer:  # noqa: S310 - our own
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            with error:
                said = error.read().decode(errors="replace")
            raise ServiceUnreachable(f"prometheus refused {path} {dict(words or {})}: {said}") from error
        except OSError as error:
            raise ServiceUnreachable(f"prometheus at {self.url} does not answer ({error})") from error

    def start(self) -> None:
        """Start the server and return when it answers queries."""
        self.process.start(self._ready, START_S)

    def close(self) -> None:
        """Kill the server and remove its data."""
        self.process.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=1):  # noqa: S310 - our own server
                return True
        except OSError:
            return False


def quick(targets: Path, rules: Sequence[Path], interval: str) -> dict[str, Any]:
    """The repository's configuration with other targets, rules and intervals; jobs and all else stay."""
    config: dict[str, Any] = yaml.safe_load((FOLDER / "prometheus.yml").read_text(encoding="utf-8"))
    config["global"] |= {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval}
    config["rule_files"] = [str(path) for path in rules]
    config.pop("alerting")
    for job in config["scrape_configs"]:
        for found in job["file_sd_configs"]:
            found["files"] = [str(targets / Path(name).name) for name in found["files"]]
            found["refresh_interval"] = "1s"
    return config
