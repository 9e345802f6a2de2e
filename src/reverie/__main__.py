"""`python -m reverie` is the same as `reverie`."""

from reverie.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
