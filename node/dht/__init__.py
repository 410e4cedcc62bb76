"""put, get, history, provide, find_providers: one Protocol, three backends."""
