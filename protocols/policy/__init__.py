"""What each node decides by itself, without asking anybody: pure state machines and values, like all of `protocols`."""
