"""What an operator changes while the node runs, and the audit log of those changes."""
