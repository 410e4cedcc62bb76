"""The demonstration: five real node processes on this machine, observed over their HTTP APIs alone."""
