"""The command line `virtrpc`: one module for each noun, pieces that they share beside them.

    root         the command itself: global options, nouns by name, exit codes
    session      what a verb works with: client, output, notes
    command      the classes of nouns and verbs, and options that verbs share
    output       documents and streams as tables, JSON and YAML     (tables, words)
    failure      errors as text and as exit codes
    parameters   types of arguments: sizes, key=value, interfaces, enums
    naming       instances by name or UUID
    progress     operations, followed to their end
    long_running verbs that are operations
    change       calls for each instance named, and lines that tell what they did
    standard_input   what is too secret or too long for arguments
    instance     and instance_*, its verbs by what they are about; spawn, specification
    image        and image_*: what goes into the store and comes out; bytes, how many have passed
    diagnostics  and its tables
    interface, firewall: what instances are connected by; nic, rule: how both are noted
    completion, console, event, host, operation

A further noun is a module with a `noun` in it and a line in `root.NOUNS`.
"""

import os
import sys
from importlib import import_module


def main() -> None:
    """Runs the command line and ends the process with its exit code."""
    _open_what_is_closed()
    # grpc reports a refused connection in a log of its own; ours says it better.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        root = import_module("virtrpc.cli.root")
    except ModuleNotFoundError as error:
        sys.exit(f"virtrpc: the command line needs {error.name}: pip install 'virtrpc[cli]'")
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(root.run(sys.argv[1:]))


def _open_what_is_closed() -> None:
    """Standard streams that whoever started us has closed: `virtrpc … <&-`."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))
