"""The command line ``rtl-plugin``: thin commands over the library."""

from rtl_plugin.cli.main import main as main
