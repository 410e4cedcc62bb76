"""The write path: signing a version, hinted handoff to its holders, and the merges that peers ask for."""
