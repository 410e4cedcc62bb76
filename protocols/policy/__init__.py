"""Local policy: what each node decides by itself, as pure state machines and values."""
