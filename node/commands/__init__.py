"""The commands of `bzzz`, a file for each kind. Importing one costs nothing that answering `--help` does not need."""
