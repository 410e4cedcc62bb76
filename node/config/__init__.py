"""The settings and flags of a node: what each is, where its value comes from, and how it is read."""
