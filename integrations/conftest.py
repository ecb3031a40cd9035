"""Which integrations' examples can run on this Python."""

import sys

if sys.version_info >= (3, 14):  # NNI cannot be imported there
    collect_ignore_glob = ["rtl_nni/*"]
