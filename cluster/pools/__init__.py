"""Where workers live: Ray actors, threads of this process (`heliostat.cluster.control.pool` is the seam)."""
