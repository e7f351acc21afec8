"""`python -m minicvae`: the command line."""

import sys

from minicvae.cli import main

sys.exit(main())
