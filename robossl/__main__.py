"""Run the command line, by `python -m robossl` or `torchrun -m robossl`."""

import sys

from robossl.cli.main import main

sys.exit(main())
