"""Lua libraries with a part of their text changed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Text:
    """A library's text, as `load_functions` reads it."""

    text: str

    def read_text(self) -> str:
        """The text."""
        return self.text

    def replaced(self, old: str, new: str) -> Text:
        """The text with something else in one place, which must be there."""
        assert self.text.count(old) == 1, f"{old!r} is there {self.text.count(old)} times"
        return Text(self.text.replace(old, new))
