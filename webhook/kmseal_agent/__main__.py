"""``python -m kmseal_agent``: what the containers run."""

import sys

from kmseal_agent.main import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
