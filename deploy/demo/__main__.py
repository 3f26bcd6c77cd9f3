"""`python -m deploy.demo`: see the package."""

import signal
import sys

# Until it is handled there is nothing to tidy up: Ctrl-C just ends it, without a trace.
signal.signal(signal.SIGINT, signal.SIG_DFL)

from deploy.demo.run import main  # noqa: E402 - most of the time before that passes in it

if __name__ == "__main__":
    sys.exit(main())
