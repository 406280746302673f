"""``python -m captum_concepts``: the command line."""

from __future__ import annotations

from captum_concepts.cli.app import main

if __name__ == "__main__":
    main()
