"""How the programs of this folder say what a driver told them: one line each, and nothing that is
another server's or another day's."""

import sys


def say(*words):
    print(*words, flush=True)


def section(name):
    say(f"--- {name}")


def failed(error):
    """What the server said to a statement that it refused."""
    state = getattr(error, "sqlstate", None)
    diag = getattr(error, "diag", None)
    said = diag.message_primary if diag and diag.message_primary else str(error)
    say("error", type(error).__name__, state, said.strip().splitlines()[0] if said.strip() else "")


def done():
    section("done")
    sys.stdout.flush()
