"""The crash-point matrix: every failpoint with every fault that makes sense there, on real processes and real files."""
