"""What the library costs, as ratios against the floor that the same machine sets in the same run."""
