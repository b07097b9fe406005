"""Streams the documents of a dataset to candlewick over file descriptor 3: `python streamer.py --dataset D 3>frames`.

Requests come as JSON lines on stdin, answers go out as frames (see candlewick_streamer/frames.py), stderr is for
people. The end of stdin means leave at once.

With `--protocol json` it writes every document as JSON lines to stdout instead, in file order, and reads no requests.
"""

import os
import signal
import sys
import time

STARTED = time.monotonic()

if __name__ == "__main__":
    # Ctrl+C in a terminal is the parent's business; it ends this process by closing stdin.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Libraries print to stdout at will; data has its own pipe, so what they print is for people.
    stdout = os.dup(1)
    os.dup2(2, 1)
    # The package lives beside this file, possibly in a directory that is not ours to write to.
    sys.dont_write_bytecode = True
    from candlewick_streamer.command import main

    sys.dont_write_bytecode = False
    # Nothing that lies beside this file or in it may shadow an installed library.
    sys.path.pop(0)
    main(sys.argv[1:], STARTED, stdout)
