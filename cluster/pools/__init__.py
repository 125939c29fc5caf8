"""Where workers live: Ray actors, threads of this process (`heliostat.cluster.group.pool` is the seam)."""
