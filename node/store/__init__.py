"""The store of a node: a log of envelopes with one way in (`merge`), and the hints for peers that miss some of them."""
