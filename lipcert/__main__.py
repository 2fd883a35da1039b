"""``python -m lipcert``."""

from lipcert.cli.app import main

if __name__ == "__main__":
    main()
