"""``python -m sstl``: the same as the ``sstl`` command."""

from sstl.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
