"""The commands of ``heliostat``: a module for each, imported when its command runs."""
