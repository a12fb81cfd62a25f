"""The door to Redis: what can go wrong is said once, and without passwords."""

from __future__ import annotations

import pytest

from models.errors import ConfigError
from models.server import connect


@pytest.mark.parametrize("url", ["redis://:hu/sh@127.0.0.1:6379/0", "redis://:hush@127.0.0.1:port/0", "redis://[::1/0"])
def test_a_url_that_is_none_is_a_wrong_setting_and_not_shown(url: str) -> None:
    """Waiting does not mend a URL, and a part of its password may be what could not be read."""
    with pytest.raises(ConfigError, match=r"redis\.url .* set KILLICK_REDIS__PASSWORD") as caught:
        connect(url)
    assert "hu" not in str(caught.value)
