"""`python -m clipcap`."""

from clipcap.cli import main

main(prog_name="clipcap")
