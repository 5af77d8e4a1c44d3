"""The front door: what stands between buyers and the nodes, rendered from one cluster file.

`cluster_file` says what there is; `nginx`, `lvs` and `ospf` render it for the programs of each layer;
`check` lets those programs judge it.
"""
