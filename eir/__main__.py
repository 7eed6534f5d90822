"""`python -m eir` is `eir`."""

from eir.cli import main

main()
