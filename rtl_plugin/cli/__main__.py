"""``python -m rtl_plugin.cli``: the command line where the script is not on the PATH."""

import sys

from rtl_plugin.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
