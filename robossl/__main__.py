"""`python -m robossl` and `torchrun -m robossl`: the command line."""

import sys

from robossl.cli.main import main

sys.exit(main())
