"""``python -m captum_concepts.cli``: the command line."""

from __future__ import annotations

from captum_concepts.cli.app import main

if __name__ == "__main__":
    main()
