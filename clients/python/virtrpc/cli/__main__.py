"""`python -m virtrpc.cli`."""

from virtrpc.cli import main

main()
