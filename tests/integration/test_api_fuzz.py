"""The HTTP API, fuzzed by its own document: whatever comes, the answer is one of those that the document names."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.worker.api_served import TOKEN, make_model, served, settings_file, settings_of

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import NewRedis

pytestmark = pytest.mark.services
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "missing_required_header",
    "unsupported_method",
    "allow_header_conformance",
    "ignored_auth",
)
EXAMPLES = 25  # for each route; about 900 requests with those that probe its limits
LEAST = 500


def test_no_request_breaks_what_the_document_promises(new_redis: NewRedis, tmp_path: Path) -> None:
    """Right and wrong requests to every route: no failure of ours, and status, type and content as promised."""
    server = new_redis({"appendfsync": "always"})
    make_model(server.url)
    with served(settings_of(settings_file(tmp_path, server.url, failures=10_000))) as http:
        words = [sys.executable, "-m", "schemathesis.cli", "run", str(http.base_url.join("/openapi.json"))]
        words += ["--header", f"Authorization: Bearer {TOKEN}", "--checks", ",".join(CHECKS), "--seed", "1"]
        words += ["--phases", "examples,coverage,fuzzing", "--max-examples", str(EXAMPLES), "--warnings", "off"]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
        assert http.get("/readyz").status_code == 200
    assert done.returncode == 0, done.stdout + done.stderr
    tested = re.search(r"(\d[\d,]*) generated, \1 passed", done.stdout)
    assert tested, done.stdout
    assert int(tested[1].replace(",", "")) > LEAST
