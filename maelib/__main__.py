"""``python -m maelib`` is the command ``maelib``."""

import sys

from maelib.cli import main

sys.exit(main())
