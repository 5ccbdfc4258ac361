"""Circuits of several tasks, models or publications side by side."""
