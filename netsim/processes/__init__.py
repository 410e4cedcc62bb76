"""The process world: real `bzzz up` processes on this machine, under signals and partitions."""
