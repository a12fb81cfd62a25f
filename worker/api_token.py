"""What a token of the HTTP API has to be like; asked by the API before it starts, and by `killick doctor`."""

from __future__ import annotations

from models.errors import ConfigError

LEAST_CHARACTERS = 16
MOST_CHARACTERS = 1_024


def check_token(token: str) -> str:
    """The token, if it can be used.

    Raises:
        ConfigError: there is none, it is too short, or no header can hold it.
    """
    cure = (
        "`openssl rand -hex 24` makes one; set KILLICK_API__TOKEN, or write it to a file and name that: api.token_file"
    )
    if not token:
        raise ConfigError("the HTTP API has no token, and lets nobody in without one", cure)
    if not LEAST_CHARACTERS <= len(token) <= MOST_CHARACTERS:
        limits = f"{LEAST_CHARACTERS} to {MOST_CHARACTERS}"
        raise ConfigError(f"the token of the HTTP API has {len(token)} characters, it needs {limits}", cure)
    if not all("!" <= character <= "~" for character in token):
        raise ConfigError("the token of the HTTP API holds blanks, or characters that are not ASCII", cure)
    return token
