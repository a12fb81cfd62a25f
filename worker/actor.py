"""Who asks for a change, where a command is not told."""

from __future__ import annotations

import os
import pwd
import socket


def this_actor() -> str:
    """`user@host` of this process; a container's user may have no name, and is a number then."""
    number = os.getuid()
    try:
        name = pwd.getpwuid(number).pw_name
    except KeyError:
        name = str(number)
    return f"{name}@{socket.gethostname()}"
