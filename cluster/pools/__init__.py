"""Where workers live: the seam, Ray actors, threads of this process."""
