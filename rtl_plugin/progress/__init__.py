"""What a terminal shows of a running training: bars, lines, a live table."""

from rtl_plugin.progress.views import Progress as Progress
from rtl_plugin.progress.views import RoundsView as RoundsView
