"""What is stored: columns, manifests, shards and their files, and the rows in them.

Nothing here opens a dataset or writes one; reading and writing stand on this floor. The way in is one: whatever it is,
rows become Arrow arrays (`python_values`), are cast to what is stored (`arrow`, `casts`, `exact`; what changes goes to
the `account`), and written. The way out is one as well: a shard is mapped (`ipc_shards`), and rows are copied from
where they lie (`chunks`, `memory`) into arrays and `Ragged`.
"""
