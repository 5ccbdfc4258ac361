"""What finished studies of several models found, as one page: claims with effect, interval, control and file."""
