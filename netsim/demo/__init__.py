"""The demonstration: five real node processes on this machine, told apart only by what their API answers."""
