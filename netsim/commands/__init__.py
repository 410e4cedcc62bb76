"""The commands of `bzzz sim`, one file each."""
