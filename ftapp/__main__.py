"""python -m ftapp VERB: the terminal's door."""

import sys

from ftapp.terminal.verbs import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
