"""A short benchmark for everybody's machine, `sightline bench`. The long one is in the repository: benchmarks/."""
