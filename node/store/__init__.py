"""The log and the hints: one door in (`merge`), many readers out."""
