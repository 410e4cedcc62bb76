"""Keeping the replicas alive: who is gone, what other holders lack of what others wrote, and what is at risk."""
