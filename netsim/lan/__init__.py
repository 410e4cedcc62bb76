"""Local networks on this machine: hosts, switches and routers as network namespaces. Needs root and iproute2."""
