"""What heads do: patching, direct attribution, lens, attention, detectors, OV scores, backup, and labels from these."""
