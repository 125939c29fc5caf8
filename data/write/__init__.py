"""From rows to shards: the writer of a folder, which another process can go on with.

`folder_writer` takes rows, `given` checks that they go together, `cut` makes record batches of them, `shard_sequence`
writes these, `journal` remembers what is finished, `commit` puts the folder in its place.
"""
