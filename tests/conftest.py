"""Before any test."""

import signal

# A shell lets what it runs in the background ignore ctrl-c, and processes that tests start and
# interrupt would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
