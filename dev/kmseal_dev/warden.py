"""A program that ends the servers and removes their folder when the process that started them is gone.

``processes`` starts it with a pipe as its standard input and never writes to it: the pipe closes when the parent
exits, is killed or crashes, and no handler in the parent has to run for that. The servers are members of this
program's process group, so a single signal ends exactly them, and no process id can have been used again.

It is run by its path in a bare interpreter (-I -S) and imports the standard library only. After an orderly stop
there is nothing left for it to do.
"""

import os
import shutil
import signal
import sys
import time


def main() -> None:
    folder = sys.argv[1]
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # Whatever ends the parent must not end the one that cleans up after it.
        signal.signal(ignored, signal.SIG_IGN)
    sys.stdin.buffer.read()
    group = os.getpgrp()
    if os.fork() != 0:
        # As the group's leader this process stays until the signal below, which keeps the group's number taken.
        signal.pause()
    os.setpgid(0, 0)
    os.killpg(group, signal.SIGKILL)
    for _ in range(100):
        # A dying server may still be creating files while the tree is removed: look again after a moment.
        shutil.rmtree(folder, ignore_errors=True)
        time.sleep(0.05)
        if not os.path.exists(folder):
            break


if __name__ == "__main__":
    main()
