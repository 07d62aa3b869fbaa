"""`python -m sightline` and the `sightline` command."""

from __future__ import annotations

from sightline.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
