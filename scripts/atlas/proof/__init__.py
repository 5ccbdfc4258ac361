"""Planted models whose circuits are known exactly, and the certificate that the searches find them."""
