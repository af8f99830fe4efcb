//! Nodes and pods as network namespaces on one machine, for the demo and the kernel tests.
