"""`python -m lading`: the same as the `lading` command."""

from lading.cli import main

raise SystemExit(main())
