"""The commands of `bzzz`. A command imports what it needs when it runs, so that `--help` and completion stay fast."""
