"""What the tickets look like and how they relate to each other."""
