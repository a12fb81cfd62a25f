"""What every command is given: the words before its name, and the settings once they are asked for."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from worker.settings import Settings
    from worker.settings_reading import Loaded


@dataclass
class Session:
    """What every command is given: the words before its name, and the settings once they are asked for."""

    config: str | None = None
    log_level: str | None = None
    _loaded: Loaded | None = field(default=None, repr=False)

    def load(self) -> Loaded:
        """The settings with their origins; the first call also starts the log.

        Raises:
            ConfigError: the settings can't be used.
        """
        if self._loaded is None:
            from worker import logs, settings_reading  # noqa: PLC0415 - `killick --help` needs neither

            self._loaded = settings_reading.load(self.config)
            log = self._loaded.settings.log
            logs.configure(self.log_level or log.level, log.format, sys.stderr)
        return self._loaded

    def settings(self) -> Settings:
        """The settings.

        Raises:
            ConfigError: the settings can't be used.
        """
        return self.load().settings
